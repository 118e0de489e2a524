"""Runs chosen tests on a changed file again and again, for `mutate.py`, without starting Python again.

    python scripts/mutate_server.py FILES...

has two ways, and each run is a fork that ends with it:

- *loaded*: a process that has collected the tests of FILES once. The functions of the file get the changed
  code (`exchange`) and the chosen tests run. A function is the same in every module that has imported it, and
  a module that is not loaded yet is imported from the changed file.
- *fresh*: a process that has only loaded the slow packages. It imports and collects anew, as a change at the
  level of a module needs: its values have long been made in the other process.

A line of JSON is read for each run from the standard input: `tests`, their names in their order, `seconds`,
how long they may keep a processor busy, `file` and the texts `before` and `after` (which has been written to
the file), and `fresh`, whether the second way is needed. The answer is a line too: `status`, pytest's exit
status or null where time ran out, and `output`.
"""

import contextlib
import gc
import importlib
import json
import math
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import CodeType, FunctionType
from typing import IO, Any, NamedTuple

import pytest
from mutate_reach import MARKS

LOADED = (
    *("numpy", "torch", "torch.distributed", "scipy.stats", "scipy.special", "scipy.sparse"),
    *("sklearn.linear_model", "sklearn.metrics", "pyarrow.parquet", "safetensors.torch", "pydantic"),
    *("tokenizers", "transformers.models.llama.modeling_llama", "transformers.generation.utils"),
    *("jaxtyping", "beartype", "hypothesis.strategies", "rich.table", "yaml", "jinja2", "huggingface_hub"),
)
"""What takes seconds to import and starts no threads. Leaving one out costs time and nothing else."""
PATIENCE = 40
"""How many seconds may pass for one on a processor: others may be at work on the machine."""
MEMORY = 8 << 30
"""Bytes that a run may hold: a change can ask for all there are."""
BROKEN = 70
"""The status of a fork in which pytest did not come to an end: nothing is known about the tests then."""
NOT_BY_EXCHANGE = 71
"""The status of a loaded run whose change is not one of functions; the fresh way follows."""
NOT_NEEDED = ("schemathesis", "xdist", "anyio", "cacheprovider")
_OPTIMIZED = 0x1
"""The flag of code that is a function's; the body of a class has it not."""


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


def forked(run: Callable[[int], int], seconds: float) -> Answer:
    """Runs in a fork of its own session, with little memory and time, and without writing bytecode.

    Args:
        run: gives the status; it may write to the file of the number that it gets.
        seconds: how long it may keep a processor busy.
    """
    with tempfile.TemporaryFile() as output:
        child = os.fork()
        if child == 0:
            _in_the_fork(run, seconds, output.fileno())
        status = _waited(child, PATIENCE * seconds)
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
            code = os.waitstatus_to_exitcode(status)
            return None if code in (-signal.SIGXCPU, -signal.SIGKILL) else code
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def _in_the_fork(run: Callable[[int], int], seconds: float, output: int) -> None:
    status = BROKEN
    try:
        os.setsid()
        os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
        used = resource.getrusage(resource.RUSAGE_SELF)
        most = math.ceil(used.ru_utime + used.ru_stime + seconds)
        resource.setrlimit(resource.RLIMIT_CPU, (most, most))
        # bytecode of a changed file must not be found by the next run
        sys.dont_write_bytecode = True
        status = run(output)
    except BaseException:
        os.write(output, traceback.format_exc().encode())
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def words(files: Sequence[str]) -> list[str]:
    """Pytest's arguments."""
    from hypothesis import Phase, settings

    # shrinking an example makes it readable, and nobody reads these; remembered ones would tie runs together
    phases = (Phase.explicit, Phase.generate, Phase.target)
    settings.register_profile("mutate", deadline=None, database=None, phases=phases)
    unused = [word for name in NOT_NEEDED for word in ("-p", f"no:{name}")]
    # pytest warns that a plugin is loaded before it could rewrite the plugin's own assertions
    loaded = ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
    return [
        "-x",
        "-q",
        *unused,
        *loaded,
        "--hypothesis-seed=0",
        "--hypothesis-profile=mutate",
        "-m",
        MARKS,
        *files,
    ]


def fresh(tests: Sequence[str], _: int = 1) -> int:
    """Imports, collects and runs; pytest's exit status."""
    files = list(dict.fromkeys(test.partition("::")[0] for test in tests))
    return int(pytest.main(words(files), plugins=[Only(tests)]))


def functions(code: CodeType) -> Iterator[CodeType]:
    """The functions of a module and of its classes, without those inside functions."""
    for one in code.co_consts:
        if isinstance(one, CodeType):
            if one.co_flags & _OPTIMIZED:
                yield one
            else:
                yield from functions(one)


def _named(code: CodeType) -> str:
    name: str = code.co_qualname  # type: ignore[attr-defined]  # of Python 3.11, which the Makefile asks for
    return name


def exchange(file: str, before: str, after: str, loaded: Sequence[FunctionType]) -> bool:
    """Gives the functions of a loaded module their changed code; whether the change is in force.

    Args:
        file: the source.
        before: its text when the module was loaded.
        after: its text now.
        loaded: every function there is.
    """
    path = os.path.realpath(file)
    modules = [one for one in list(sys.modules.values()) if _path(getattr(one, "__file__", None)) == path]
    if not modules or before == after:
        return True
    # the loader's own compiler, for some add checks of types
    compiled: Any = modules[0].__spec__.loader.source_to_code  # type: ignore[union-attr]
    old, new = (list(functions(compiled(text.encode(), path))) for text in (before, after))
    if list(map(_named, old)) != list(map(_named, new)):
        return False
    changed = [(one, other) for one, other in zip(old, new, strict=True) if one != other]
    for one, other in changed:
        if not _given(one, other, path, loaded):
            return False
        # a decorator has made its functions when the module was loaded, and will not make them again
        inner, others = list(_inside(one)), list(_inside(other))
        if list(map(_named, inner)) != list(map(_named, others)):
            return False
        for own, its in zip(inner, others, strict=True):
            if own != its and _given(own, its, path, loaded) is None:
                return False
    return bool(changed)


def _given(one: CodeType, other: CodeType, path: str, loaded: Sequence[FunctionType]) -> bool | None:
    """Gives `other` to the functions with code `one`: whether there are any; None where it does not fit."""
    own = [
        function
        for function in loaded
        if function.__code__ == one and _path(function.__code__.co_filename) == path
    ]
    if own and one.co_freevars != other.co_freevars:
        return None
    for function in own:
        function.__code__ = other
    return bool(own)


def _inside(code: CodeType) -> Iterator[CodeType]:
    """All code inside a function, at any depth."""
    for one in code.co_consts:
        if isinstance(one, CodeType):
            yield one
            yield from _inside(one)


def _path(file: str | None) -> str:
    return os.path.realpath(file) if file else ""


class Loaded:
    """The plugin of pytest that answers requests where the loop of the tests would be.

    Args:
        requests: lines of JSON.
        answers: where the lines of the answers go.
    """

    def __init__(self, requests: IO[str], answers: IO[str]) -> None:
        self.requests, self.answers = requests, answers
        self.failed: list[str] = []

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Keeps what failed, as pytest's summary says it."""
        if report.failed:
            self.failed.append(f"FAILED {report.nodeid}\n{report.longreprtext[-2000:]}\n")

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: Any) -> bool:
        """Answers until the requests end."""
        # not by isinstance, which asks every object for its class: some of torch's warn then
        functions = [one for one in gc.get_objects() if type(one) is FunctionType]
        gc.freeze()
        items = {item.nodeid: item for item in session.items}
        for line in self.requests:
            request = json.loads(line)

            def run(output: int, request: dict[str, Any] = request) -> int:
                if not exchange(request["file"], request["before"], request["after"], functions):
                    return NOT_BY_EXCHANGE
                return self._run(session, [items[one] for one in request["tests"]], output)

            _said(self.answers, forked(run, request["seconds"]))
        return True

    def _run(self, session: Any, items: Sequence[Any], output: int) -> int:
        for item, following in zip(items, [*items[1:], None], strict=True):
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if session.testsfailed:
                break
        # not by print: pytest has put the stream back to where it was before the fork
        os.write(output, "".join(self.failed).encode())
        return int(session.testsfailed > 0)


def _said(answers: IO[str], answer: Answer) -> None:
    print(json.dumps(answer._asdict()), file=answers, flush=True)


def loading(files: Sequence[str]) -> tuple[IO[str], IO[str]]:
    """Starts the process that has collected the tests; where requests go and where answers come from."""
    (theirs, ours), (back, forth) = os.pipe(), os.pipe()
    if os.fork() == 0:
        os.close(ours)
        os.close(back)
        null = os.open("/dev/null", os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(null, 1)
        os._exit(int(pytest.main(words(files), plugins=[Loaded(os.fdopen(theirs), os.fdopen(forth, "w"))])))
    os.close(theirs)
    os.close(forth)
    return os.fdopen(ours, "w"), os.fdopen(back)


def main() -> None:
    """Answers until the input ends."""
    sys.path.insert(0, str(Path.cwd() / "src"))
    for name in LOADED:
        importlib.import_module(name)
    answers = os.fdopen(os.dup(1), "w")
    asks, told = loading(sys.argv[1:])
    for line in sys.stdin:
        request = json.loads(line)
        if not request["fresh"]:
            print(line.strip(), file=asks, flush=True)
            said = told.readline()
            if not said:
                raise SystemExit("the process with the loaded tests ended: pytest -x says why")
            answer = Answer(**json.loads(said))
            if answer.status != NOT_BY_EXCHANGE:
                _said(answers, answer)
                continue
        _said(answers, forked(partial(fresh, request["tests"]), request["seconds"]))


if __name__ == "__main__":
    main()
