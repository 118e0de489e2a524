"""The study file: one base run file, and what differs from world to world and from arm to arm.

Paths are relative to the current folder, as in a run file. Importing this module loads no torch.
"""

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    model_validator,
)

from sarm_control.errors import ConfigError
from sarm_control.training import Document, Role, read_document

PathText = Annotated[Path, PlainSerializer(os.fspath, return_type=str)]


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"{text!r} is no regular expression: {error}") from None
    return text


Pattern = Annotated[str, AfterValidator(_pattern)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Discovered(_Part):
    """Controls from a discovery on pairs, made once a world, or once a seed where chance has a part."""

    audit: str | None = None
    """The name of one of the world's `audits`; its `audit` where none is named."""

    labels: Literal["given", "shuffled"] = "given"
    """`shuffled` is the placebo: for each pair chance decides which answer counts as chosen, anew for each
    seed. As many latents are controlled as the given labels give, those that harm most by the shuffled ones;
    sizes are chosen on the shuffled pairs."""

    latents: Literal["found", "random"] = "found"
    """`random`: the same controls on latents of like sign, rate and weight, drawn anew for each seed."""

    keep: Literal["all", "edits", "penalties"] = "all"
    """Which of the controls are used."""

    target_rate: float | None = Field(default=None, gt=0, lt=1)
    """Penalties hold the rate of their latents here, in place of a fixed amount."""

    as_gentle: bool = False
    """For a placebo: all sizes are scaled down by one factor, until its reward of good answers correlates
    with the unedited one as well as the reward under the controls of the given labels does."""

    material: float = Field(default=0.01, ge=0)
    """Smallest effect of a latent that gets a control, a share of the mean margin as in `sarm discover`."""

    @property
    def by_chance(self) -> bool:
        """Whether every seed has controls of its own."""
        # one draw of a placebo may hit a harmful latent; drawn anew for each
        # seed, that is part of the interval
        return self.labels == "shuffled" or self.latents == "random"

    @model_validator(mode="after")
    def _one_placebo(self) -> "Discovered":
        if self.labels == "shuffled" and self.latents == "random":
            raise ValueError("labels: shuffled and latents: random are two placebos; make an arm of each")
        if self.as_gentle and not self.by_chance:
            raise ValueError("as_gentle is for placebos: set labels: shuffled or latents: random")
        if self.as_gentle and self.target_rate is not None:
            raise ValueError("as_gentle scales sizes, and target_rate has none: drop one of them")
        return self


class Arm(_Part):
    """A way to train."""

    set: dict[str, Any] = {}
    """Keys of the run file that this arm changes."""

    controls: PathText | None = None
    """A file of controls, as `sarm discover` writes it."""

    discover: Discovered | None = None
    """Controls from a discovery."""

    rule_penalty: float | str | None = None
    """What an answer loses in which the world's `rule` is found: reward units, or SDs such as `1sd`. It is
    the arm of somebody who knows the shortcut, and shows what could be reached."""

    stop_at_kl_of: str | None = None
    """The run of `baseline` with the same seed, stopped at the step at which its KL first reaches the one
    that this arm ends with."""

    hold_kl_of: str | None = None
    """`training.kl_target` is the KL that this arm ends with."""

    role: Role | None = None
    """What its runs are in comparisons, where neither their controls nor `discover` say it: `placebo` for the
    controls of a file that know nothing of what harms."""

    seeds: tuple[int, ...] | None = None
    """Seeds of this arm, where they are not the study's."""

    @property
    def follows(self) -> str | None:
        """The arm whose KL this one matches."""
        return self.stop_at_kl_of or self.hold_kl_of

    @model_validator(mode="after")
    def _one_source(self) -> "Arm":
        if self.controls is not None and self.discover is not None:
            raise ValueError("controls and discover exclude each other: an arm has one source of controls")
        if self.stop_at_kl_of is not None and self.hold_kl_of is not None:
            raise ValueError("stop_at_kl_of and hold_kl_of exclude each other; make an arm of each")
        # its steps are read off the baseline's own curve, which is no longer its curve with another setting
        if self.stop_at_kl_of is not None and (
            self.set or self.controls or self.discover or self.rule_penalty is not None
        ):
            raise ValueError(
                "an arm with stop_at_kl_of is the baseline stopped early: it changes nothing else"
            )
        return self


class WorldSpec(_Part):
    """A reward model with its data; what is measured of the answers."""

    lab: str | None = None
    """A folder of `sarm lab build`, or `lab`: names its policy, SARM, data and gold reward all at once."""

    set: dict[str, Any] = {}
    """Keys of the run file that are this world's, such as `reward: {model: FOLDER}`."""

    audit: tuple[PathText, ...] = ()
    """Files of pairs that discovery reads."""

    audits: dict[str, tuple[PathText, ...]] = {}
    """Further sets of such files by name, for arms whose discovery reads others."""

    prompts: PathText | None = None
    """Held-out prompts that every policy answers; the study's `prompts` where none is named."""

    judge: str | None = None
    """Another reward model, never trained on. It scores answers after `strip`."""

    rule: Pattern | None = None
    """A regular expression: the share of answers in which it is found is the measure `rate`."""

    strip: tuple[tuple[Pattern, str], ...] = ()
    """Replacements `[pattern, text]` that take the shortcut out of an answer; the reward model's reward and
    the judge's of what is left are measured."""

    @model_validator(mode="after")
    def _lab_names_all(self) -> "WorldSpec":
        if self.lab is not None and (self.audit or self.prompts):
            raise ValueError(
                "lab names the audit pairs and prompts of its world; leave audit and prompts out"
            )
        return self


class StudyConfig(_Part):
    """A whole study."""

    base: PathText | None = None
    """A run file of `sarm train` that all cells share."""

    set: dict[str, Any] = {}
    """Keys of the run file that are changed for all cells."""

    seeds: tuple[int, ...] = (0, 1, 2)
    """`training.seed` of the runs, and of their answers to the held-out prompts."""

    arms: dict[str, Arm] = Field(min_length=1)
    """By name, in the order in which they are run."""

    worlds: dict[str, WorldSpec] = Field(min_length=1)
    """By name. Every arm is trained in every world."""

    baseline: str = "none"
    """The arm with which all others are compared."""

    compare: tuple[tuple[str, str], ...] = ()
    """Further comparisons `[arm, arm]`: the first minus the second."""

    pool_worlds: bool = False
    """Whether the worlds are draws of one kind, so that a mean over them means something. Its interval is
    over worlds. Different shortcuts are no such draws."""

    prompts: PathText | None = None
    """Held-out prompts, for worlds that name none."""

    answers_per_prompt: int = Field(default=1, ge=1, le=64)
    """Answers to each held-out prompt."""

    measure_every: int | None = Field(default=None, ge=1)
    """Steps after which a policy answers the held-out prompts again; without it only at the end."""

    kl_levels: tuple[Annotated[float, Field(gt=0)], ...] = ()
    """Nats an answer at which arms are compared too, between their measurements. A run ends at the first
    measurement beyond the largest level. Needs `measure_every`."""

    @model_validator(mode="after")
    def _levels_are_measured(self) -> "StudyConfig":
        if self.kl_levels and self.measure_every is None:
            raise ValueError("kl_levels need measurements on the way: set measure_every, such as 4")
        # a run ends at the last of them, which has to be the largest
        if list(self.kl_levels) != sorted(set(self.kl_levels)):
            raise ValueError("kl_levels must ascend")
        return self

    @model_validator(mode="after")
    def _names_agree(self) -> "StudyConfig":
        for name in (self.baseline, *(one for pair in self.compare for one in pair)):
            if name not in self.arms:
                raise ValueError(f"there is no arm {name!r}; the arms are {', '.join(self.arms)}")
        for name, arm in self.arms.items():
            if arm.follows is None:
                continue
            # chains are refused: the run that is followed must have a KL of its own,
            # not one that was set to a third's
            if arm.follows not in self.arms or self.arms[arm.follows].follows is not None:
                raise ValueError(
                    f"{name} matches the KL of {arm.follows!r}, which is no arm that runs by itself"
                )
        for kind, names in (("arms", self.arms), ("worlds", self.worlds)):
            # names become folders, and two that become one would write over each other
            short = [folder_name(name) for name in names]
            if not all(short) or len(set(short)) < len(short):
                raise ValueError(f"names of {kind} must differ in letters and digits: {', '.join(names)}")
        for name, world in self.worlds.items():
            if world.lab is None and world.prompts is None and self.prompts is None:
                raise ValueError(f"world {name} has no held-out prompts: set prompts")
            for arm_name, arm in self.arms.items():
                found = arm.discover
                if arm.rule_penalty is not None and world.rule is None:
                    raise ValueError(
                        f"arm {arm_name} penalises the rule, and world {name} has none: set rule"
                    )
                if found is not None and found.audit is not None and not world.audits.get(found.audit):
                    raise ValueError(
                        f"arm {arm_name} discovers in {found.audit!r}, which is none of the audits of {name}"
                    )
                if found is not None and not (found.audit or world.audit or world.lab):
                    raise ValueError(
                        f"arm {arm_name} discovers, and world {name} has no audit pairs: set audit"
                    )
        return self

    def seeds_of(self, arm: str) -> tuple[int, ...]:
        """The seeds of an arm."""
        own = self.arms[arm].seeds
        return self.seeds if own is None else own

    def measured_steps(self, steps: int) -> tuple[int, ...]:
        """The steps of a run after which its policy is measured, the last one always."""
        every = self.measure_every or steps
        return (*range(every, steps, every), steps) if steps else (0,)

    def pairs_of(self, world: str, found: Discovered) -> tuple[Path, ...]:
        """The files of pairs that a discovery in this world reads."""
        spec = self.worlds[world]
        if found.audit is not None:
            return spec.audits[found.audit]
        return spec.audit or (_lab_file(spec.lab, "audit"),)

    def prompts_of(self, world: str) -> Path:
        """The held-out prompts of a world."""
        spec = self.worlds[world]
        found = _lab_file(spec.lab, "held_out_prompts") if spec.lab else spec.prompts or self.prompts
        assert found is not None  # see _names_agree
        return found


def folder_name(name: str) -> str:
    """A name as a folder: letters, digits and single hyphens."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-.")


def _lab_file(lab: str | None, name: str) -> Path:
    return Path(f"lab:{name}") if lab in (None, "lab") else Path(lab) / f"{name}.jsonl"


def load_study(path: Path) -> StudyConfig:
    """Reads and checks a study file.

    Raises:
        ConfigError: one line for each mistake, with the file and line.
    """
    document = read_document(path)
    try:
        return StudyConfig.model_validate(document.values)
    except ValidationError as error:
        lines = [_line(document, item) for item in error.errors(include_url=False)]
        raise ConfigError(
            "\n".join(dict.fromkeys(lines)), hint="docs/studies.md describes every key"
        ) from error


def _line(document: Document, item: Mapping[str, Any]) -> str:
    place = tuple(part for part in item["loc"])
    where, key = document.origin(place), ".".join(map(str, place))
    if item["type"] == "extra_forbidden":
        known = _keys(place[:-1])
        near = difflib.get_close_matches(str(place[-1]), known, n=1, cutoff=0.5)
        meant = f"; did you mean '{near[0]}'?" if near else f"; the keys are {', '.join(known)}"
        return f"{where}: unknown key '{key}'{meant}"
    if item["type"] == "missing":
        return f"{document.source}: missing key '{key}'"
    text = item["msg"].removeprefix("Value error, ")
    return f"{where}: {key}: {text}" if key else f"{where}: {text}"


def _keys(place: tuple[Any, ...]) -> list[str]:
    """The keys of the section at a place."""
    section: type[_Part] = StudyConfig
    if place[:1] == ("arms",) and len(place) > 1:
        section = Discovered if place[2:3] == ("discover",) else Arm
    elif place[:1] == ("worlds",) and len(place) > 1:
        section = WorldSpec
    return list(section.model_fields)
