"""The options of `sarm audit`, by what they decide."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from cyclopts import Parameter, validators

from sarm_control.cli._help import COMPUTE, INPUT, MODEL, RARE_COMPUTE, RARE_INPUT, RARE_MODEL
from sarm_control.cli._scoring import model_name
from sarm_control.console import say
from sarm_control.errors import ConfigError, DataError

if TYPE_CHECKING:
    from sarm_control.auditing import Audit, Judge, PriceChanges, Verdict

# the unit is part of a limit: a bare number could as well be meant in reward units
_LIMIT = re.compile(r"\s*(change:)?\s*([a-z][a-z0-9_]*)\s*([<>])\s*([-+]?\d+(?:\.\d*)?|[-+]?\.\d+)\s*sd\s*")
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
            group=RARE_COMPUTE,
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
        # no default for the model: answers go to another machine, and what is asked there costs
        if (self.judge is None) != (self.judge_model is None):
            raise ConfigError("--judge and --judge-model go together", hint="give both, or neither")
        if self.judge is None or self.judge_model is None:
            return None
        if self.against is None:
            raise ConfigError("--judge has no questions", hint="name a file of attributes with --against")
        from sarm_control.auditing import Judge
        from sarm_control.discovery import ChatEndpoint, Replies

        endpoint = ChatEndpoint(self.judge, self.judge_model, timeout=self.timeout)
        # beside the folder and not in it: replies outlive a run that was cut, and the folder that
        # replaces it
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
            group=RARE_INPUT,
            help="Other pairs for the guard, such as a benchmark's. Default: the audited ones.",
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


@Parameter(name="*")
@dataclass(frozen=True)
class BesideFlags:
    """What the audit is held against: an earlier reward model, a training run, a policy that samples."""

    before: Annotated[
        str | None,
        Parameter(
            group=MODEL,
            help="An earlier reward model, audited on the same rows: which prices changed. Limits of "
            'changes are written --fail-if "change:closing>0.1sd".',
        ),
    ] = None
    run: Annotated[
        Path | None,
        Parameter(
            group=INPUT,
            help="Run folder of sarm train: its samples are audited by its reward model, and those of its "
            "first steps compared with those of its last.",
        ),
    ] = None
    certified: Annotated[
        Path | None,
        Parameter(
            group=RARE_INPUT,
            help="With --run: folder of an earlier audit with a mend, whose certificate is held against "
            "what the run did.",
        ),
    ] = None
    policy: Annotated[
        str | None,
        Parameter(
            group=RARE_MODEL,
            help="Policy (hub id, folder, adapter, or lab) that samples the candidates for best-of-N.",
        ),
    ] = None
    n: Annotated[
        int,
        Parameter(
            group=RARE_COMPUTE,
            validator=validators.Number(gte=2),
            help="Candidates that --policy samples for each prompt.",
        ),
    ] = 16
    policy_prompts: Annotated[
        int,
        Parameter(
            group=RARE_COMPUTE, validator=validators.Number(gte=10), help="Prompts that --policy answers."
        ),
    ] = 100
    max_new_tokens: Annotated[
        int,
        Parameter(group=RARE_COMPUTE, validator=validators.Number(gte=1), help="Longest answer of --policy."),
    ] = 64

    def check(self, candidates: Path | None) -> None:
        """Refuses options that exclude each other.

        Raises:
            ConfigError: two sources of candidates, or a certificate without a run.
            DataError: see `verdicts`.
        """
        if self.policy is not None and candidates is not None:
            raise ConfigError("--policy and --candidates both give candidates", hint="leave one of them out")
        if self.certified is not None and self.run is None:
            raise ConfigError("--certified has no run to be held against", hint="name it: --run runs/NAME")
        # read for its error alone, before anything is scored
        self.verdicts()

    @property
    def recorded(self) -> dict[str, Any]:
        """These for manifests; empty where nothing was asked for."""
        if self.policy is None:
            return {}
        return {
            "policy": model_name(self.policy),
            "n": self.n,
            "policy_prompts": self.policy_prompts,
            "max_new_tokens": self.max_new_tokens,
        }

    @property
    def samples(self) -> Path | None:
        """The file of the run's samples."""
        return None if self.run is None else self.run / "samples.jsonl"

    def verdicts(self) -> "dict[str, Verdict] | None":
        """What the certificate of `--certified` says of each attribute, at its largest set of answers.

        Raises:
            DataError: the folder holds no audit, or one without a certificate.
        """
        if self.certified is None:
            return None
        from sarm_control.bounded_json import read_json_object

        found = read_json_object(self.certified / "audit.json").get("certificate")
        rows = [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
        if not rows:
            raise DataError(
                f"{self.certified}: an audit without a certificate",
                hint="make one before the run: sarm audit ... --mend auto --candidates FILE",
            )
        # ascending, because the last verdict of a name stays
        return {one["name"]: one["verdict"] for one in sorted(rows, key=lambda one: one["n"])}


class Limit(NamedTuple):
    """A price, or a change of one, that makes the command fail.

    Args:
        name: of the attribute.
        above: whether values above `sd` fail, or those below.
        sd: reward SDs.
        change: whether it is about the change since `--before`.
    """

    name: str
    above: bool
    sd: float
    change: bool = False

    def broken(self, found: "Audit", changes: "PriceChanges | None" = None) -> bool:
        """Whether the price to believe, or its change, is beyond it.

        Raises:
            DataError: the attribute has no price.
        """
        if self.change:
            moved = None if changes is None else changes.of(self.name)
            if moved is None:
                raise DataError(
                    f"--fail-if: {self.name} has no price by both reward models on these data",
                    hint="no edit of the text changes it, or it hardly differs between answers to a prompt",
                )
            # the change itself and not its interval: a limit says what is allowed, and not what is sure
            return moved.change > self.sd if self.above else moved.change < self.sd
        one = next(one for one in found.findings if one.attribute.name == self.name)
        # NaN: compared with a limit it would pass, and the check would never fail
        if one.price != one.price:
            raise DataError(
                f"--fail-if: {self.name} has no price on these data",
                hint="no edit of the text changes it, and it hardly differs between answers to a prompt",
            )
        return one.price > self.sd if self.above else one.price < self.sd

    def __str__(self) -> str:
        return f"{'change:' if self.change else ''}{self.name}{'>' if self.above else '<'}{self.sd:g}sd"


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
        limits.append(Limit(found[2], found[3] == ">", float(found[4]), found[1] is not None))
    return limits


def check_changes(limits: Sequence[Limit], beside: BesideFlags) -> None:
    """Refuses limits of changes where there is nothing to have changed from.

    Raises:
        ConfigError: naming the limit.
    """
    for one in limits:
        if one.change and beside.before is None:
            raise ConfigError(f"--fail-if {one}: no earlier reward model", hint="name it with --before MODEL")


def check_names(names: Sequence[str], known: Sequence[str], option: str) -> None:
    """Refuses a name that no attribute has.

    Raises:
        ConfigError: naming the option.
    """
    for name in names:
        if name not in known:
            raise ConfigError(f"{option}: no attribute {name!r}", hint=f"there are {', '.join(known)}")
