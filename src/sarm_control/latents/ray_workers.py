"""Makes shards of latents on Ray, with `Extractor` as an actor of Ray Data's `map_batches`.

Actors read the data files, which have to lie under the same paths on every machine. The shards come back to
the driver, and only the driver writes.
"""

import logging
import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sarm_control.errors import ConfigError, SarmError
from sarm_control.extras import import_ray
from sarm_control.latents.extraction import Engine, Extractor, Job, Shard


def on_ray(actors: int) -> Engine:
    """The engine of `actors` Ray actors. Each has a GPU if the cluster has any.

    It joins the cluster that `RAY_ADDRESS` names, or one that runs on this machine. Without either it starts
    a cluster and stops it at the end.

    Raises:
        MissingExtraError: Ray is not installed.
    """
    ray = require_ray()

    @contextmanager
    def engine(job: Job, numbers: Sequence[int]) -> Iterator[Iterator[Shard]]:
        if not numbers:
            yield iter(())
            return
        with _connected(ray, actors):
            yield _shards(ray, job, numbers, actors)

    return engine


def require_ray() -> Any:
    """The `ray` package with `ray.data`.

    Raises:
        MissingExtraError: it is not installed.
    """
    needed, otherwise = "--engine ray needs ray", ", or use --workers without --engine"
    import_ray("ray.data", needed=needed, otherwise=otherwise)
    return import_ray("ray", needed=needed, otherwise=otherwise)


class ShardActor:
    """A batch function of Ray Data: it gets the number of a shard and returns the shard.

    Args:
        job: what to extract; an actor loads the model once.
    """

    def __init__(self, job: Job) -> None:
        self.extractor = Extractor(job)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[bytes]]:
        """From `number` [1] to `made` [1]: a pickled `Shard`, or a pickled `SarmError`."""
        try:
            made: Shard | SarmError = self.extractor.shard(int(batch["number"][0]))
        # given back as a value: what an actor raises comes wrapped by Ray, with a traceback of the worker
        except SarmError as error:
            made = error
        return {"made": [pickle.dumps(made)]}


def _shards(ray: Any, job: Job, numbers: Sequence[int], actors: int) -> Iterator[Shard]:
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    gpus = 1 if ray.cluster_resources().get("GPU", 0) else 0
    # One block for each shard, since an actor works on one block at a time.
    asked = ray.data.from_items([{"number": number} for number in numbers], override_num_blocks=len(numbers))
    made = asked.map_batches(
        ShardActor,
        fn_constructor_args=(job,),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=min(actors, len(numbers))),
        num_cpus=1,
        num_gpus=gpus,
    )
    for row in made.iter_rows():
        # pickled by our own actor of this run
        shard = pickle.loads(row["made"])
        if isinstance(shard, SarmError):
            raise shard
        yield shard


@contextmanager
def _connected(ray: Any, actors: int) -> Iterator[None]:
    ours = not ray.is_initialized()
    if ours:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        cores = int(ray.cluster_resources().get("CPU", 0))
        if cores < actors:
            raise ConfigError(
                f"{actors} workers were asked for, the Ray cluster has {cores} CPU cores",
                hint=f"--workers {max(1, cores)}",
            )
        yield
    finally:
        # a connection that the caller made is the caller's to close
        if ours:
            ray.shutdown()
