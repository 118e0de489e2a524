"""The sandbox in which chat templates run: the Jinja dialect of transformers, with limits on time and size.

A chat template is a program by the author of a checkpoint. Jinja's sandbox denies it files and Python
internals, but does not stop it from running for hours or filling the memory. Here every loop iteration, call
and operation is counted against a budget, and no value may become longer than the budget allows.

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
"""The time limit of one rendering."""
MOST_STEPS = 5_000_000
"""The limit on loop iterations, calls and operations of one rendering."""
_LONGER_THAN_INPUT = 1_000_000
_TIMES_INPUT = 16
_STEPS_BETWEEN_CLOCKS = 64
_MOST_BITS = 100_000
_CONTEXTS = (jinja2.Environment, nodes.EvalContext, jinja2.runtime.Context)
_WIDTH = re.compile(r"\d{6,}|\*")


class LimitError(Exception):
    """A template takes too long or writes too much; the message is a clause that begins with "it"."""


@dataclass
class _Budget:
    """The limits of one rendering, and what it has used of them: characters, seconds and steps."""

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
        # the clock is not read at every step, because that is slow
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
    """A context in which templates have a budget; it grows with the number of input characters.

    Raises:
        LimitError: inside the context, when the budget is used up.
    """
    # with the input, since a template may write a long conversation several times, and a
    # constant for what it writes by itself
    most = _LONGER_THAN_INPUT + _TIMES_INPUT * characters
    token = _BUDGET.set(_Budget(most, time.monotonic() + seconds, seconds))
    try:
        yield
    finally:
        _BUDGET.reset(token)


def rendered(
    source: str, characters: int, variables: Mapping[str, Any], *, seconds: float = MOST_SECONDS
) -> str:
    """The text that a template writes.

    Args:
        source: the template.
        characters: the length of the conversation; the limit on the text grows with it.
        variables: the variables of the template.
        seconds: the time limit.

    Raises:
        LimitError: the template takes too long or writes too much.
        Exception: any error of the template itself.
    """
    with limited(characters, seconds):
        return compiled(source).render(**variables)


@lru_cache(maxsize=64)
def compiled(source: str) -> jinja2.Template:
    """The compiled template; the last 64 are kept.

    Raises:
        jinja2.TemplateError: it is not valid Jinja; other exceptions come from bugs of Jinja.
    """
    # Jinja computes filters of constants, such as `"a"|center(9)`, while it compiles: they count too
    with limited(len(source)):
        return _Sandbox().from_string(source)


class _Generation(Extension):
    """The tag `{% generation %}`, which marks the assistant's text and does not change it."""

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

    # names that no template uses for keyword arguments of its own, as in Jinja
    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        _step()
        # Jinja wraps str.format in a function of its own
        method = getattr(__obj, "__wrapped__", __obj)
        own = getattr(method, "__self__", None)
        if isinstance(own, str):
            for argument in (*args, *kwargs.values()):
                _hold_written(argument)
            _refuse_long(method.__name__, (own, *args, *kwargs.values()))
        return _held(super().call(__context, __obj, *args, **kwargs))

    def concatenated(self, *parts: Any) -> str:
        """The operator `~` of Jinja, which the compiled template calls here."""
        _step()
        for part in parts:
            _hold_written(part)
        return str(_held("".join(map(str, parts))))

    def tick(self, written: int) -> str:
        """Counts one loop iteration or macro call, and the characters of plain text that it writes."""
        _step()
        _write(written)
        return ""


def _counted(source: nodes.Template) -> nodes.Template:
    """The template with a `tick` in every loop and macro, and with `~` and set blocks under the budget.

    Jinja compiles loops, plain text and `~` to Python without a hook, so the syntax tree is changed instead.
    """
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
                setattr(parent, name, [_plain_call(child) for child in value])
            else:
                setattr(parent, name, _plain_call(value))
    return source


def _plain_call(node: Any) -> Any:
    """A `~` node as a call of `concatenated`; any other node as it is."""
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
    """The value itself; refuses one that is too long."""
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
    """The value of an expression that is about to be written; counts its characters."""
    _hold_written(value)
    if isinstance(value, str):
        _write(len(value))
    return value


def _refuse_growth(operator: str, left: Any, right: Any) -> None:
    """Refuses an operation with a huge result before the result is computed."""
    whole = isinstance(left, int) and isinstance(right, int)
    # a product has at most the bits of both factors together, a power those of its base times the exponent
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
        raise LimitError("it computes with numbers of too many digits")


def _refuse_long(name: str, values: tuple[Any, ...]) -> None:
    """Refuses a call of a string method or filter with a huge result, before the call.

    Args:
        name: of the method or filter.
        values: the string, then the arguments.
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
        _hold(len(text) * len(rest[0]) + sum(len(part) for part in rest[0] if isinstance(part, str)))
    if name == "translate" and rest and isinstance(rest[0], dict):
        longest = max((len(new) for new in rest[0].values() if isinstance(new, str)), default=1)
        _hold(len(text) * longest)
    if name in {"expandtabs", "indent", "wordwrap"}:
        # 8 is what expandtabs takes without an argument
        wide = max(
            (arg if isinstance(arg, int) else len(arg) for arg in rest if isinstance(arg, int | str)),
            default=8,
        )
        _hold(len(text) + (text.count("\t") + text.count("\n")) * wide)


def _guarded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter of Jinja that refuses huge results."""

    def guarded(*args: Any, **kwargs: Any) -> Any:
        _step()
        context = [value for value in args[:1] if isinstance(value, _CONTEXTS)]
        given: list[Any] = list(args[len(context) :])
        value, rest = given[0], given[1:]
        # a generator is listed here so that its length can be checked; the filter would consume it
        if name in {"join", "sum"} and not isinstance(value, str):
            value = list(value)
        for argument in (value, *rest, *kwargs.values()):
            _hold_written(argument)
        parts = (value, *rest, *kwargs.values())
        _refuse_long(name, (rest[0], value) if name == "join" and rest else parts)
        return _held(function(*context, value, *rest, **kwargs))

    # by these marks Jinja knows how a filter is to be called
    for mark in ("jinja_pass_arg", "jinja_async_variant"):
        if hasattr(function, mark):
            setattr(guarded, mark, getattr(function, mark))
    return guarded


def _hold_written(value: Any) -> None:
    """Refuses a nested value that shares its parts: it is small in memory and huge when it is written out."""
    if isinstance(value, str | int | float | None):
        return
    most, size, left = _most(), 0, [value]
    while left:
        part = left.pop()
        size += len(part) if isinstance(part, str) else 1
        if isinstance(part, list | tuple):
            left.extend(part)
        elif isinstance(part, dict):
            left.extend(part.keys())
            left.extend(part.values())
        if size + len(left) > most:
            raise LimitError(f"it writes more than {most:,} characters")


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: Any = None,
    separators: Any = None,
    sort_keys: bool = False,
) -> str:
    """JSON without the HTML escapes that Jinja adds, as in transformers."""
    _refuse_long("tojson", ("", indent if indent is not None else 0))
    text = json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
    return str(_held(text))


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _new_dict(*args: Any, **kwargs: Any) -> dict[Any, Any]:
    return dict(*args, **kwargs)
