"""The options of `sarm audit`, by what they decide."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

from cyclopts import Parameter, validators

from sarm_control.cli._help import COMPUTE, INPUT, RARE_COMPUTE
from sarm_control.console import say
from sarm_control.errors import ConfigError, DataError

if TYPE_CHECKING:
    from sarm_control.auditing import Audit, Judge

_LIMIT = re.compile(r"\s*([a-z][a-z0-9_]*)\s*([<>])\s*([-+]?\d+(?:\.\d*)?|[-+]?\.\d+)\s*sd\s*")
_LIMIT_EXAMPLE = 'write it like --fail-if "closing>0.3sd"'
Price = Annotated[float, Parameter(validator=validators.Number(gte=0))]


@Parameter(name="*")
@dataclass(frozen=True)
class AttributeFlags:
    """What is asked of the answers beside the attributes that every audit has."""

    against: Annotated[
        Path | None,
        Parameter(
            group=INPUT,
            help="YAML file of attributes of your own: a pattern, a column, a Python function, or a question "
            "for --judge. Functions in it are run.",
        ),
    ] = None
    judge: Annotated[
        str | None,
        Parameter(
            group=COMPUTE,
            help="OpenAI-compatible URL up to /v1, which replies to questions of --against. The key comes "
            "from SARM_LABEL_API_KEY or OPENAI_API_KEY. All answers leave this machine.",
        ),
    ] = None
    judge_model: Annotated[
        str | None, Parameter(group=RARE_COMPUTE, help="The model that the endpoint serves.")
    ] = None
    timeout: Annotated[
        float,
        Parameter(
            group=RARE_COMPUTE, validator=validators.Number(gt=0), help="Seconds to wait for one reply."
        ),
    ] = 120.0
    price_in: Annotated[
        Price, Parameter(group=RARE_COMPUTE, help="Price of a million prompt tokens, to count the cost.")
    ] = 0.0
    price_out: Annotated[
        Price, Parameter(group=RARE_COMPUTE, help="Price of a million completion tokens.")
    ] = 0.0

    def asked(self, out: Path) -> "Judge | None":
        """Who replies to questions; replies are kept beside `out`.

        Raises:
            ConfigError: an endpoint without a model, a model without an endpoint, or nothing to ask.
        """
        if (self.judge is None) != (self.judge_model is None):
            raise ConfigError("--judge and --judge-model go together", hint="give both, or neither")
        if self.judge is None or self.judge_model is None:
            return None
        if self.against is None:
            raise ConfigError("--judge has no questions", hint="name a file of attributes with --against")
        from sarm_control.auditing import Judge
        from sarm_control.discovery import ChatEndpoint, Replies

        endpoint = ChatEndpoint(self.judge, self.judge_model, timeout=self.timeout)
        return Judge(Replies(endpoint, out.with_name(f"{out.name}.replies.jsonl")))

    def say_cost(self, judge: "Judge | None") -> None:
        """What the questions took."""
        if judge is None:
            return
        usage = judge.replies.usage
        price = usage.cost(self.price_in, self.price_out)
        say(
            f"{usage.requests} questions, {usage.prompt_tokens} + {usage.completion_tokens} tokens"
            + (f", cost {price:.4g}" if self.price_in or self.price_out else "")
            + (f"; {judge.unread} replies were neither yes nor no and count as no" if judge.unread else "")
        )


@Parameter(name="*")
@dataclass(frozen=True)
class MendFlags:
    """What is mended, and at what cost."""

    mend: Annotated[
        str | None,
        Parameter(
            group=COMPUTE,
            help="Attributes whose price is to go, separated by commas, or auto: those that are unwanted.",
        ),
    ] = None
    guard: Annotated[
        float,
        Parameter(
            group=COMPUTE,
            validator=validators.Number(gte=0),
            help="Points of accuracy on pairs that a mend may cost.",
        ),
    ] = 1.0

    guard_pairs: Annotated[
        Path | None,
        Parameter(
            group=INPUT, help="Other pairs for the guard, such as a benchmark's. Default: the audited ones."
        ),
    ] = None

    @property
    def names(self) -> tuple[str, ...]:
        """The attributes that were named; none for auto."""
        given = () if self.mend in (None, "auto") else (self.mend or "").split(",")
        return tuple(part.strip() for part in given)

    def targets(self, found: "Audit") -> tuple[str, ...]:
        """What to mend; none where nothing was asked for, or auto finds nothing."""
        if self.mend != "auto":
            return self.names
        from sarm_control.auditing import mend_hint, unwanted

        names = unwanted(found)
        if not names:
            say(f"--mend auto: {mend_hint(found)}")
        return names


class Limit(NamedTuple):
    """A price that makes the command fail.

    Args:
        name: of the attribute.
        above: whether prices above `sd` fail, or those below.
        sd: reward SDs.
    """

    name: str
    above: bool
    sd: float

    def broken(self, found: "Audit") -> bool:
        """Whether the price to believe is beyond it.

        Raises:
            DataError: the attribute has no price.
        """
        one = next(one for one in found.findings if one.attribute.name == self.name)
        if one.price != one.price:
            raise DataError(
                f"--fail-if: {self.name} has no price on these data",
                hint="no edit of the text changes it, and it hardly differs between answers to a prompt",
            )
        return one.price > self.sd if self.above else one.price < self.sd

    def __str__(self) -> str:
        return f"{self.name}{'>' if self.above else '<'}{self.sd:g}sd"


def read_limits(texts: Sequence[str]) -> list[Limit]:
    """The limits of `--fail-if`.

    Raises:
        ConfigError: a text that is none.
    """
    limits = []
    for text in texts:
        found = _LIMIT.fullmatch(text)
        if found is None:
            raise ConfigError(f"--fail-if: {text!r} is no limit of a price", hint=_LIMIT_EXAMPLE)
        limits.append(Limit(found[1], found[2] == ">", float(found[3])))
    return limits


def check_names(names: Sequence[str], known: Sequence[str], option: str) -> None:
    """Refuses a name that no attribute has.

    Raises:
        ConfigError: naming the option.
    """
    for name in names:
        if name not in known:
            raise ConfigError(f"{option}: no attribute {name!r}", hint=f"there are {', '.join(known)}")
