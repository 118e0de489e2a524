"""`sarm doctor`: is what an engine will be given what it needs?"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from sarm_control.cli._help import INPUT, OUTPUT, RARE_INPUT
from sarm_control.cli._next import again, of_model, say_next
from sarm_control.cli._scoring import Device, Dtype, Model, Read, TemplateDate, load_model, model_name, or_lab
from sarm_control.errors import ConfigError, MissingExtraError
from sarm_control.extras import install

if TYPE_CHECKING:
    from sarm_control.engines import AdapterExamination, ControlledReward
    from sarm_control.reward_model import RewardModel

_SHOWN = 240
_MARKS = {True: "ok", False: "WRONG", None: "-"}


def reward(
    *,
    engine: Annotated[
        Literal["trl", "verl", "openrlhf", "slime"], Parameter(group=INPUT, help="Whose calls are made.")
    ],
    model: Model = None,
    controls: Annotated[
        Path | None,
        Parameter(group=INPUT, help="YAML with a reward section, or a run's folder. Default: none."),
    ] = None,
    human: Annotated[
        Path | None,
        Parameter(group=RARE_INPUT, help="Demonstrations for the human-KL term, in place of the file's."),
    ] = None,
    reference: Annotated[
        Path | None,
        Parameter(
            group=RARE_INPUT, help="Answers of the policy before training, the unit of SDs and quantiles."
        ),
    ] = None,
    url: Annotated[
        str | None,
        Parameter(
            group=INPUT, help="A server that runs: http://127.0.0.1:8000. Default: one is started for this."
        ),
    ] = None,
    token_file: Annotated[
        Path | None, Parameter(group=RARE_INPUT, help="File with the token of that server.")
    ] = None,
    device: Device = None,
    dtype: Dtype = None,
    template_date: TemplateDate = None,
    reading: Read = None,
    json_file: Annotated[
        Path | None, Parameter(group=OUTPUT, name="--json", help="All calls and points as JSON.")
    ] = None,
) -> int:
    """Call the reward as an engine does, and say what came in and out.

    Three built-in answers are scored: to messages, to a plain prompt, and one that was cut off. Without
    --controls 1 is taken off an answer that was cut off, so that it can be seen. With --url the
    rewards are compared with the library's only if its --controls are given, and the server is told not to
    learn from these answers. The exit code is 1 when
    something is wrong.
    """
    from sarm_control.files import check_writable

    if json_file is not None:
        check_writable(json_file)
    if engine == "trl" and url is not None:
        raise ConfigError("TRL calls a function, there is no server to ask", hint="leave --url out")
    if url is None and token_file is not None:
        raise ConfigError("--token-file is of a server that runs", hint="give its --url")
    name = or_lab(model)
    how = {"device": device, "dtype": dtype, "template_date": template_date}
    rm = load_model(name, max_length=None, reading=reading, **how)
    # what a running server has for controls is only known if its file is given here too
    known = url is None or controls is not None
    reward = _open(rm, controls, human, reference) if known else None
    if engine == "trl" and reward is not None:
        found = [_examined_trl(reward)]
    else:
        found = _examined_server(engine, rm, reward, url, token_file)
    for one in found:
        _print(one)
    _print_what_is_missing(engine)
    passed = all(one.passed for one in found)
    print("nothing wrong" if passed else "something is wrong, see above")
    if json_file is not None:
        _write(json_file, engine, model_name(name), found)
    if passed and engine != "trl" and url is None:
        given = (("--controls", controls), ("--human", human), ("--reference", reference))
        files = [word for pair in given if pair[1] is not None for word in pair]
        say_next("serve", *of_model(model, reading), *(str(word) for word in files))
    elif json_file is None:
        say_next(*again("--json", "doctor.json"))
    else:
        say_next("config", "schema")
    return 0 if passed else 1


def _open(
    rm: "RewardModel", controls: Path | None, human: Path | None, reference: Path | None
) -> "ControlledReward":
    from sarm_control.engines import ControlFiles, ControlledReward, open_reward

    if controls is None:
        # a penalty that nobody would train with, so that a cut answer is seen in the number alone
        return ControlledReward(rm, missing_end=1.0)
    return open_reward(rm, ControlFiles(controls, human, reference))


def _examined_trl(reward: "ControlledReward") -> "AdapterExamination":
    from sarm_control.engines import TrlReward, examine_trl

    return examine_trl(TrlReward(reward))


def _examined_server(
    engine: str,
    rm: "RewardModel",
    reward: "ControlledReward | None",
    url: str | None,
    token_file: Path | None,
) -> "list[AdapterExamination]":
    from sarm_control.engines import Adapter, ServerPlace, VerlManager, adapters, examine, verl_is_here

    # without known controls there is nothing to start a server with, so a URL was given
    started = contextlib.nullcontext(url) if reward is None or url is not None else _server(reward)
    with started as where:
        place = ServerPlace(str(where), None if token_file is None else str(token_file), rm.template)
        asked: list[Adapter] = adapters(engine, place)
        if engine == "verl" and verl_is_here():
            asked = [VerlManager(place), *asked]
        return [examine(adapter, reward) for adapter in asked]


def _print_what_is_missing(engine: str) -> None:
    from sarm_control.engines import MANAGER, verl_is_here

    if engine == "verl" and not verl_is_here():
        print(f"{MANAGER}\n  -      not examined: verl is not installed here")


@contextlib.contextmanager
def _server(reward: "ControlledReward") -> Iterator[str]:
    """The URL of a server on a free port of this machine, which stops with the block."""
    import threading

    try:
        import uvicorn

        from sarm_control.server import create_app
    except ImportError as error:
        raise MissingExtraError(
            f"a server needs {error.name}, which is not installed", hint=install("serve")
        ) from error
    from sarm_control.server import ServiceSettings, address, bind

    app = create_app(reward, ServiceSettings(learn=reward.learns))
    # bound here and not by uvicorn: the free port is known before the thread runs, and nobody can take it
    with bind("127.0.0.1", 0) as listening:
        config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="on", ws="none")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        try:
            yield address(listening)
        finally:
            server.should_exit = True
            thread.join()


def _print(found: "AdapterExamination") -> None:
    print(found.adapter)
    for number, call in enumerate(found.calls, start=1):
        print(f"  call {number}")
        logs = _shown("log", call.logs) if isinstance(call.got, list) else ()
        for line in (*_shown("in ", call.sent), *_shown("out", call.got), *logs):
            print(f"    {line}")
    for point in found.points:
        print(f"  {_MARKS[point.good]:5}  {point.name}: {point.found}")


def _shown(what: str, value: Any) -> list[str]:
    """A value in lines of one key each, long ones cut."""
    parts = value.items() if isinstance(value, Mapping) and what == "in " else [(None, value)]
    lines = [f"{what} {'' if name is None else f'{name} = '}{_json(part)}" for name, part in parts]
    return [line if len(line) <= _SHOWN else f"{line[:_SHOWN]} ..." for line in lines]


def _json(value: Any) -> str:
    import json

    return json.dumps(_rounded(value), ensure_ascii=False, default=str)


def _rounded(value: Any) -> Any:
    """Six digits are enough to look at."""
    if isinstance(value, float):
        # adding 0 turns -0.0 into 0.0, which nobody wonders about
        return float(f"{value:.6g}") + 0.0
    if isinstance(value, Mapping):
        return {name: _rounded(part) for name, part in value.items()}
    return [_rounded(part) for part in value] if isinstance(value, list | tuple) else value


def _write(path: Path, engine: str, model: str, found: "Sequence[AdapterExamination]") -> None:
    from dataclasses import asdict

    from sarm_control.files import write_json

    adapters = [
        {
            "adapter": one.adapter,
            "calls": [asdict(call) for call in one.calls],
            "points": [point._asdict() for point in one.points],
            "passed": one.passed,
        }
        for one in found
    ]
    passed = all(one.passed for one in found)
    write_json(path, {"engine": engine, "model": model, "passed": passed, "adapters": adapters})
