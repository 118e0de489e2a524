"""`sarm serve`: the reward as an HTTP service."""

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter, validators

from sarm_control.cli._help import COMPUTE, INPUT, MODEL, OUTPUT, RARE_COMPUTE, RARE_OUTPUT
from sarm_control.cli._next import of_model, say_next
from sarm_control.cli._scoring import (
    BatchTokens,
    Device,
    Dtype,
    MaxLength,
    Model,
    Read,
    TemplateDate,
    load_model,
    model_name,
    or_lab,
)
from sarm_control.console import say
from sarm_control.errors import ConfigError, MissingExtraError
from sarm_control.extras import install

if TYPE_CHECKING:
    from sarm_control.reward_model import RewardModel
    from sarm_control.server import ServiceSettings

Count = Annotated[int, Parameter(validator=validators.Number(gte=1))]
Controls = Annotated[
    Path | None,
    Parameter(
        group=INPUT,
        help="YAML with a reward section, as run files have, edits that --save-edits wrote (.json), "
        "or a run's folder. Default: none.",
    ),
]
Human = Annotated[
    Path | None, Parameter(group=INPUT, help="Demonstrations for the human-KL term, in place of the file's.")
]
Reference = Annotated[
    Path | None,
    Parameter(group=INPUT, help="Answers of the policy before training, the unit of SDs and quantiles."),
]
Port = Annotated[
    int,
    Parameter(group=OUTPUT, validator=validators.Number(gte=0, lte=65535), help="Port; 0 takes a free one."),
]
Connections = Annotated[
    Count,
    Parameter(group=RARE_OUTPUT, help="Connections open at a time; further ones are told to come back."),
]
HeaderTimeout = Annotated[
    float,
    Parameter(
        group=RARE_OUTPUT, validator=validators.Number(gt=0), help="Seconds until headers have to be whole."
    ),
]
StateFile = Annotated[
    Path | None,
    Parameter(group=RARE_OUTPUT, help="File that keeps what they learnt, for the next start. Default: none."),
]
Timeout = Annotated[
    float,
    Parameter(
        group=RARE_OUTPUT, validator=validators.Number(gt=0), help="Seconds until a request is given up."
    ),
]


LearnKl = Annotated[
    bool,
    Parameter(
        group=COMPUTE,
        negative="",
        help="Let the human-KL term and target rates learn from what is answered.",
    ),
]

CacheMb = Annotated[
    int,
    Parameter(
        group=RARE_COMPUTE,
        validator=validators.Number(gte=0),
        help="MiB for latents of texts scored before.",
    ),
]

LogText = Annotated[
    bool,
    Parameter(
        group=RARE_OUTPUT,
        negative="",
        help="Log conversations and their rewards; else no text is logged.",
    ),
]

LearnEvery = Annotated[
    int,
    Parameter(
        group=RARE_COMPUTE, validator=validators.Number(gte=2), help="Answers they learn from at a time."
    ),
]

Standardize = Annotated[
    bool,
    Parameter(
        group=COMPUTE, negative="", help="Scores in SDs of the reference from its mean, not reward units."
    ),
]

WorkersOn = Annotated[
    str | None,
    Parameter(group=MODEL, help="Devices, a copy of the model and a thread each: cuda:0,cuda:1."),
]


def serve(
    *,
    model: Model = None,
    controls: Controls = None,
    human: Human = None,
    reference: Reference = None,
    host: Annotated[
        str, Parameter(group=OUTPUT, help="Address to bind; a public one wants a token.")
    ] = "127.0.0.1",
    port: Port = 8000,
    token_file: Annotated[
        Path | None, Parameter(group=OUTPUT, help="File with the token that callers have to give.")
    ] = None,
    workers_on: WorkersOn = None,
    learn_kl: LearnKl = False,
    learn_every: LearnEvery = 256,
    state_file: StateFile = None,
    standardize: Standardize = False,
    batch_tokens: BatchTokens = None,
    batch_answers: Annotated[
        Count, Parameter(group=RARE_COMPUTE, help="Answers taken from the queue at a time.")
    ] = 256,
    queue: Annotated[
        Count, Parameter(group=RARE_COMPUTE, help="Answers that may wait; more are told to come back.")
    ] = 4096,
    timeout: Timeout = 60.0,
    cache_mb: CacheMb = 64,
    connections: Connections = 4096,
    header_timeout: HeaderTimeout = 10.0,
    max_body_mb: Annotated[Count, Parameter(group=RARE_OUTPUT, help="MiB of a request at most.")] = 8,
    log_text: LogText = False,
    device: Device = None,
    dtype: Dtype = None,
    max_length: MaxLength = None,
    template_date: TemplateDate = None,
    reading: Read = None,
) -> None:
    """Serve rewards over HTTP, for engines and scripts.

    Answers POST /v1/score, and the requests of OpenRLHF (/get_reward), verl by vLLM's or SGLang's form
    (/classify, /v1/embeddings) and slime (/rm). Ctrl-C answers what was taken and stops.
    """
    settings = _settings(
        model,
        host,
        token_file,
        learn_kl=learn_kl,
        learn_every=learn_every,
        state_file=state_file,
        batch_tokens=batch_tokens,
        most_at_once=batch_answers,
        queue=queue,
        timeout=timeout,
        cache_bytes=cache_mb << 20,
        connections=connections,
        header_seconds=header_timeout,
        body_bytes=max_body_mb << 20,
        log_text=log_text,
    )
    from sarm_control.engines import ControlFiles, open_reward
    from sarm_control.server import address, bind, create_app
    from sarm_control.server import serve as run

    # A tokenizer's own threads wait for each other where workers and other processes want the cores.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    how = {"dtype": dtype, "max_length": max_length, "template_date": template_date, "reading": reading}
    with contextlib.closing(bind(host, port)) as listening:
        # after the port is bound: that it is in use is told in a second, and a model may take minutes
        first, *others = _load(or_lab(model), workers_on, device, how)
        files = ControlFiles(controls, human, reference)
        app = create_app(open_reward(first, files, standardize=standardize), settings, replicas=others)
        where = address(listening)
        token = () if token_file is None else ("--token-file", token_file)

        def ready() -> None:
            say(f"serving on {where}; Ctrl-C stops")
            named = of_model(model, reading)
            say_next("doctor", "reward", "--engine", "openrlhf", *named, "--url", where, *token)

        run(app, listening, settings=settings, ready=ready)


def _settings(
    model: str | None, host: str, token_file: Path | None, *, learn_kl: bool, log_text: bool, **limits: object
) -> "ServiceSettings":
    import logging

    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            f"sarm serve needs {error.name}, which is not installed", hint=install("serve")
        ) from error
    from sarm_control.server import ServiceSettings, check_bind, read_token

    token = None if token_file is None else read_token(token_file)
    hosts = check_bind(host, token)
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.WARNING)
    # conversations are logged at INFO, so no other level may let them through
    logging.getLogger("sarm_control.server").setLevel(logging.INFO if log_text else logging.ERROR)
    return ServiceSettings(
        model_name=model_name(model or "lab"),
        token=token,
        hosts=hosts,
        learn=learn_kl,
        log_text=log_text,
        **limits,  # type: ignore[arg-type]
    )


def _load(model: str, workers_on: str | None, device: str | None, how: dict[str, Any]) -> "list[RewardModel]":
    if workers_on is None:
        return [load_model(model, device=device, **how)]
    if device is not None:
        raise ConfigError("--workers-on and --device do not go together", hint="leave --device out")
    devices = [name.strip() for name in workers_on.split(",")]
    if not all(devices) or "auto" in devices:
        raise ConfigError(f"--workers-on {workers_on}: no list of devices", hint="--workers-on cuda:0,cuda:1")
    return [load_model(model, device=one, **how) for one in devices]
