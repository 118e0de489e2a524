"""Runs chosen tests again and again, for `mutate.py`: a process that has loaded the slow packages, and forks.

    python scripts/mutate_server.py

reads a line of JSON for each run from the standard input: `tests`, their names in their order, and `seconds`,
how long they may take. It answers with a line: `status`, pytest's exit status or null where time ran out, and
`output`. The package under test is loaded in the fork only, from the files as they are at that time.
"""

import contextlib
import importlib
import json
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

LOADED = (
    *("numpy", "torch", "torch.distributed", "scipy.stats", "scipy.special", "scipy.sparse"),
    *("sklearn.linear_model", "sklearn.metrics", "pyarrow.parquet", "safetensors.torch", "pydantic"),
    *("tokenizers", "transformers.models.llama.modeling_llama", "transformers.generation.utils"),
    *("jaxtyping", "beartype", "hypothesis.strategies", "rich.table", "yaml", "jinja2", "huggingface_hub"),
)
"""What takes seconds to import and starts no threads. Leaving one out costs time and nothing else."""
MEMORY = 8 << 30
"""Bytes that a run may hold: a change can ask for all there are."""
NOT_NEEDED = ("schemathesis", "xdist", "anyio", "cacheprovider")


class Only:
    """The plugin of pytest that keeps some tests, in the order of their names.

    A change of the source can change the names of parametrized tests. All of a function whose test is not
    found are kept then.
    """

    def __init__(self, tests: Sequence[str]) -> None:
        self.rank = {test: number for number, test in enumerate(tests)}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        """Drops what was not asked for."""
        lost = {test.partition("[")[0] for test in self.rank.keys() - {item.nodeid for item in items}}
        kept = [item for item in items if item.nodeid in self.rank or item.nodeid.partition("[")[0] in lost]
        items[:] = sorted(kept, key=lambda item: self.rank.get(item.nodeid, len(self.rank)))


class Answer(NamedTuple):
    """How a run ended.

    Args:
        status: pytest's exit status; null where time ran out.
        output: the end of what it printed.
    """

    status: int | None
    output: str


def run(tests: Sequence[str], seconds: float) -> Answer:
    """Forks, runs some tests there until one fails, and waits for them."""
    with tempfile.TemporaryFile() as output:
        child = os.fork()
        if child == 0:
            _in_the_fork(tests, output.fileno())
        status = _waited(child, seconds)
        # what the tests started and left behind
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        output.seek(0)
        return Answer(status, output.read().decode(errors="replace")[-4000:])


def _waited(child: int, seconds: float) -> int | None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def _in_the_fork(tests: Sequence[str], output: int) -> None:
    status = 1
    try:
        os.setsid()
        for stream, number in (("/dev/null", 0), (None, 1), (None, 2)):
            os.dup2(os.open(stream, os.O_RDONLY) if stream else output, number)
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
        # bytecode of a changed file must not be found by the next run
        sys.dont_write_bytecode = True
        status = int(pytest.main(_words(tests), plugins=[Only(tests)]))
    finally:
        sys.stdout.flush()
        os._exit(status)


def _words(tests: Sequence[str]) -> list[str]:
    from hypothesis import Phase, settings

    # shrinking an example makes it readable, and nobody reads these; remembered ones would tie runs together
    phases = (Phase.explicit, Phase.generate, Phase.target)
    settings.register_profile("mutate", deadline=None, database=None, phases=phases)
    files = dict.fromkeys(test.partition("::")[0] for test in tests)
    unused = [word for name in NOT_NEEDED for word in ("-p", f"no:{name}")]
    return ["-x", "-q", *unused, "--hypothesis-seed=0", "--hypothesis-profile=mutate", *files]


def main() -> None:
    """Answers until the input ends."""
    for name in LOADED:
        importlib.import_module(name)
    answers = os.fdopen(os.dup(1), "w")
    sys.path.insert(0, str(Path.cwd() / "src"))
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(run(request["tests"], request["seconds"])._asdict()), file=answers, flush=True)


if __name__ == "__main__":
    main()
