"""The sandbox that chat templates run in: transformers' own dialect of Jinja, with an end to everything.

A chat template is a program from whoever made a checkpoint. Jinja's sandbox keeps it away from files and
from Python; it does not keep it from running for hours or filling the memory. Here every turn of a loop, call
and operation is counted against a budget, and nothing may grow longer than the budget says.

The dialect is that of `apply_chat_template` in transformers 5: the same sandbox, extensions, filters and
globals. `strftime_now` is not the clock of the machine; see `sarm_control.conversation.dates`.
"""

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

MOST_SECONDS = 5.0
"""How long one rendering may take."""
MOST_STEPS = 5_000_000
"""Loop turns, calls and operations of one rendering."""
_LONGER_THAN_INPUT = 1_000_000
_TIMES_INPUT = 16
_STEPS_BETWEEN_CLOCKS = 64
_MOST_BITS = 100_000
_CONTEXTS = (jinja2.Environment, nodes.EvalContext, jinja2.runtime.Context)
_WIDTH = re.compile(r"\d{6,}|\*")


class LimitError(Exception):
    """A template that takes too long or writes too much; its text says which, for the end of a sentence."""


@dataclass
class _Budget:
    """What is left to one rendering: steps, seconds and characters."""

    characters: int
    until: float
    seconds: float = MOST_SECONDS
    steps: int = 0
    written: int = 0

    def write(self, size: int) -> None:
        self.written += size
        self.hold(self.written)

    def step(self) -> None:
        self.steps += 1
        if self.steps % _STEPS_BETWEEN_CLOCKS:
            return
        if self.steps > MOST_STEPS:
            raise LimitError(f"it was stopped after {MOST_STEPS:,} steps")
        if time.monotonic() > self.until:
            raise LimitError(f"it was stopped after {self.seconds:g} seconds")

    def hold(self, size: int) -> None:
        if size > self.characters:
            raise LimitError(f"it writes more than {self.characters:,} characters")


_BUDGET: ContextVar[_Budget | None] = ContextVar("template_budget", default=None)


@contextmanager
def limited(characters: int, seconds: float = MOST_SECONDS) -> Iterator[None]:
    """Within it templates have a budget, made for an input of so many characters.

    Raises:
        LimitError: inside, where the budget is used up.
    """
    most = _LONGER_THAN_INPUT + _TIMES_INPUT * characters
    token = _BUDGET.set(_Budget(most, time.monotonic() + seconds, seconds))
    try:
        yield
    finally:
        _BUDGET.reset(token)


def rendered(
    source: str, characters: int, variables: Mapping[str, Any], *, seconds: float = MOST_SECONDS
) -> str:
    """What a template writes.

    Args:
        source: the template.
        characters: of the conversation; what may be written grows with it.
        variables: what it can name.
        seconds: how long it may take.

    Raises:
        LimitError: it takes too long or writes too much.
        Exception: whatever the template runs into.
    """
    with limited(characters, seconds):
        return compiled(source).render(**variables)


@lru_cache(maxsize=64)
def compiled(source: str) -> jinja2.Template:
    """A template, compiled once.

    Raises:
        jinja2.TemplateError: it is not in Jinja's grammar; other errors come from Jinja's own faults.
    """
    with limited(len(source)):
        return _Sandbox().from_string(source)


class _Generation(Extension):
    """`{% generation %}` marks what the assistant says; the text is the same with and without it."""

    tags = {"generation"}  # noqa: RUF012 - Jinja's own interface

    def parse(self, parser: Any) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_written"), [], [], body).set_lineno(line)

    @staticmethod
    def _written(caller: Callable[[], str]) -> str:
        return caller()


class _Namespace(jinja2.utils.Namespace):
    """A namespace without names that begin with an underscore, as in transformers."""

    def __setitem__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            raise jinja2.exceptions.SecurityError(f"a namespace cannot hold {name!r}")
        super().__setitem__(name, value)


class _Sandbox(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        extensions = [_Generation, loopcontrols]
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=extensions, finalize=_written_out)
        own = {**self.filters, "tojson": _tojson, "held": _held}
        self.filters = {name: _guarded(name, function) for name, function in own.items()}
        self.globals |= {"raise_exception": _raise_exception, "namespace": _Namespace, "dict": _new_dict}

    def _generate(self, source: nodes.Template, *args: Any, **kwargs: Any) -> str:
        return super()._generate(_counted(source), *args, **kwargs)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        _step()
        _refuse_growth(operator, left, right)
        return _held(super().call_binop(context, operator, left, right))

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        _step()
        # Jinja puts a function of its own around a string's format
        method = getattr(__obj, "__wrapped__", __obj)
        own = getattr(method, "__self__", None)
        if isinstance(own, str):
            for one in (*args, *kwargs.values()):
                _hold_written(one)
            _refuse_long(method.__name__, (own, *args, *kwargs.values()))
        return _held(super().call(__context, __obj, *args, **kwargs))

    def concatenated(self, *parts: Any) -> str:
        """Jinja's `~`."""
        _step()
        for part in parts:
            _hold_written(part)
        return str(_held("".join(map(str, parts))))

    def tick(self, written: int) -> str:
        """One turn of a loop, or one call of a macro, with so many characters of plain text in it."""
        _step()
        _write(written)
        return ""


def _counted(source: nodes.Template) -> nodes.Template:
    """The template with a step in every loop and macro, and `~` and blocks that are kept in check."""
    for node in [*source.find_all((nodes.For, nodes.Macro, nodes.CallBlock))]:
        plain = sum(len(text.data) for text in node.find_all(nodes.TemplateData))
        tick = nodes.Call(nodes.EnvironmentAttribute("tick"), [nodes.Const(plain)], [], None, None)
        node.body.insert(0, nodes.ExprStmt(tick).set_lineno(node.lineno))  # type: ignore[attr-defined]
    for block in [*source.find_all(nodes.AssignBlock)]:
        kept = nodes.Filter(block.filter, "held", [], [], None, None)
        kept.set_lineno(block.lineno)
        block.filter = kept
    for parent in [source, *source.find_all(nodes.Node)]:
        for name, value in parent.iter_fields():
            if isinstance(value, list):
                setattr(parent, name, [_plain_call(one) for one in value])
            else:
                setattr(parent, name, _plain_call(value))
    return source


def _plain_call(node: Any) -> Any:
    if not isinstance(node, nodes.Concat):
        return node
    call = nodes.Call(nodes.EnvironmentAttribute("concatenated"), node.nodes, [], None, None)
    return call.set_lineno(node.lineno)


def _step() -> None:
    budget = _BUDGET.get()
    if budget is not None:
        budget.step()


def _write(size: int) -> None:
    budget = _BUDGET.get()
    if budget is not None:
        budget.write(size)


def _held(value: Any) -> Any:
    """A value as it is, unless it is too long."""
    budget = _BUDGET.get()
    if budget is not None and isinstance(value, str | list | tuple | dict):
        budget.hold(len(value))
    return value


def _most() -> int:
    budget = _BUDGET.get()
    return _LONGER_THAN_INPUT if budget is None else budget.characters


def _hold(size: int) -> None:
    (_BUDGET.get() or _Budget(_LONGER_THAN_INPUT, 0.0)).hold(size)


def _written_out(value: Any) -> Any:
    """What an expression writes, not yet as text."""
    _hold_written(value)
    if isinstance(value, str):
        _write(len(value))
    return value


def _refuse_growth(operator: str, left: Any, right: Any) -> None:
    """Refuses what would be huge before it is made."""
    whole = isinstance(left, int) and isinstance(right, int)
    if operator == "*" and whole:
        _refuse_digits(left.bit_length() + right.bit_length())
    elif operator == "*":
        for sequence, count in ((left, right), (right, left)):
            if isinstance(sequence, str | list | tuple) and isinstance(count, int):
                _hold(len(sequence) * max(count, 0))
    elif operator == "**" and whole:
        _refuse_digits(left.bit_length() * max(right, 0))
    elif operator == "%" and isinstance(left, str):
        _hold_written(right)
        _refuse_long("format", (left, *(right if isinstance(right, tuple) else (right,))))


def _refuse_digits(bits: int) -> None:
    if bits > _MOST_BITS:
        raise LimitError("it reckons with numbers of too many digits")


def _refuse_long(name: str, values: tuple[Any, ...]) -> None:
    """Refuses a call of a string's method, or a filter, whose result would be huge.

    Args:
        name: of the method or filter.
        values: the string, and the arguments.
    """
    text, rest = values[0] if isinstance(values[0], str) else "", values[1:]
    for value in rest:
        if isinstance(value, int) and not isinstance(value, bool):
            _hold(value)
    if name in {"format", "format_map", "__mod__"} and _WIDTH.search(text):
        raise LimitError("it writes fields of too many characters")
    if name == "replace" and len(rest) >= 2 and all(isinstance(value, str) for value in rest[:2]):
        _hold(len(text) + (text.count(rest[0])) * len(rest[1]))
    if name == "join" and rest and isinstance(rest[0], list | tuple):
        _hold(len(text) * len(rest[0]) + sum(len(one) for one in rest[0] if isinstance(one, str)))
    if name == "translate" and rest and isinstance(rest[0], dict):
        longest = max((len(one) for one in rest[0].values() if isinstance(one, str)), default=1)
        _hold(len(text) * longest)
    if name in {"expandtabs", "indent", "wordwrap"}:
        wide = max(
            (one if isinstance(one, int) else len(one) for one in rest if isinstance(one, int | str)),
            default=8,
        )
        _hold(len(text) + (text.count("\t") + text.count("\n")) * wide)


def _guarded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter of Jinja's that refuses to make something huge."""

    def guarded(*args: Any, **kwargs: Any) -> Any:
        _step()
        context = [value for value in args[:1] if isinstance(value, _CONTEXTS)]
        given: list[Any] = list(args[len(context) :])
        value, rest = given[0], given[1:]
        if name in {"join", "sum"} and not isinstance(value, str):
            value = list(value)
        for one in (value, *rest, *kwargs.values()):
            _hold_written(one)
        parts = (value, *rest, *kwargs.values())
        _refuse_long(name, (rest[0], value) if name == "join" and rest else parts)
        return _held(function(*context, value, *rest, **kwargs))

    for mark in ("jinja_pass_arg", "jinja_async_variant"):
        if hasattr(function, mark):
            setattr(guarded, mark, getattr(function, mark))
    return guarded


def _hold_written(value: Any) -> None:
    """Refuses a list of lists that is small in memory and huge when it is written out."""
    if isinstance(value, str | int | float | None):
        return
    most, size, left = _most(), 0, [value]
    while left:
        one = left.pop()
        size += len(one) if isinstance(one, str) else 1
        if isinstance(one, list | tuple):
            left.extend(one)
        elif isinstance(one, dict):
            left.extend(one.keys())
            left.extend(one.values())
        if size + len(left) > most:
            raise LimitError(f"it writes more than {most:,} characters")


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: Any = None,
    separators: Any = None,
    sort_keys: bool = False,
) -> str:
    """JSON without the escapes that Jinja adds for web pages, as in transformers."""
    _refuse_long("tojson", ("", indent if indent is not None else 0))
    text = json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
    return str(_held(text))


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _new_dict(*args: Any, **kwargs: Any) -> dict[Any, Any]:
    return dict(*args, **kwargs)
