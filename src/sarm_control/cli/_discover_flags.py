"""The options of `sarm discover`, by what they decide."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter, validators

from sarm_control.cli._help import COMPUTE, OUTPUT, RARE_COMPUTE, RARE_INPUT, RARE_OUTPUT
from sarm_control.discovery import CLOSING

if TYPE_CHECKING:
    from sarm_control.discovery import DiscoverySettings


@Parameter(name="*")
@dataclass(frozen=True)
class SearchFlags:
    """What is looked for, and how strictly."""

    target: Annotated[
        str | None,
        Parameter(
            group=COMPUTE,
            help="An attribute of an answer in place of the preference: length, column:NAME, "
            "column:NAME=VALUE or regex:PATTERN. Rows then need answers, not pairs.",
        ),
    ] = None
    less: Annotated[
        bool,
        Parameter(
            group=RARE_COMPUTE,
            negative="",
            help="With --target: the goal is less of it, so what pays for it harms.",
        ),
    ] = False
    by: Annotated[
        str | None,
        Parameter(
            group=COMPUTE, help="Column of the data: margins and called latents for each of its values."
        ),
    ] = None
    goal: Annotated[
        str | None, Parameter(group=RARE_OUTPUT, help="What chosen is better in, for the record.")
    ] = None
    alpha: Annotated[
        float,
        Parameter(
            group=RARE_COMPUTE,
            validator=validators.Number(gt=0, lt=1),
            help="False discovery rate of each step.",
        ),
    ] = 0.05
    min_prompts: Annotated[
        int,
        Parameter(
            group=RARE_COMPUTE,
            validator=validators.Number(gte=1),
            help="Test latents active in this many prompts.",
        ),
    ] = 10
    random_sets: Annotated[
        int,
        Parameter(
            group=RARE_COMPUTE,
            validator=validators.Number(gte=1),
            help="Matched random sets that selections are held against.",
        ),
    ] = 1000
    seed: Annotated[
        int, Parameter(group=RARE_COMPUTE, help="Of the halves, the redraws of labels and the sets.")
    ] = 0

    def settings(self) -> "DiscoverySettings":
        """These as the library takes them.

        Raises:
            ConfigError: a target nobody can read, or `--less` without one.
        """
        from sarm_control.discovery import DiscoverySettings, parse_target
        from sarm_control.errors import ConfigError

        if self.less and self.target is None:
            raise ConfigError(
                "--less wants a --target", hint="a preference is turned by exchanging its sides"
            )
        return DiscoverySettings(
            alpha=self.alpha,
            min_prompts=self.min_prompts,
            seed=self.seed,
            by=self.by,
            sets=self.random_sets,
            target=None if self.target is None else parse_target(self.target, less=self.less),
        )

    @property
    def recorded(self) -> dict[str, Any]:
        """These for manifests."""
        return {name: getattr(self, name) for name in ("alpha", "min_prompts", "by", "target", "less")}


@Parameter(name="*")
@dataclass(frozen=True)
class EvidenceFlags:
    """How deep the evidence goes."""

    levels: Annotated[
        int,
        Parameter(
            group=COMPUTE,
            validator=validators.Number(gte=1, lte=4),
            help="1 exact algebra; 2 before TopK; 3 in the state; 4 in the text, with a closing sentence.",
        ),
    ] = 1
    counterfactuals: Annotated[
        Path | None,
        Parameter(
            group=RARE_INPUT,
            help="Pairs of texts that differ in the goal alone; level 4 for the called latents.",
        ),
    ] = None
    closing: Annotated[
        str, Parameter(group=RARE_COMPUTE, help="The sentence that level 4 adds to answers.")
    ] = CLOSING


@Parameter(name="*")
@dataclass(frozen=True)
class ControlFlags:
    """The controls that are suggested."""

    write_controls: Annotated[
        Path | None, Parameter(group=OUTPUT, help="Also write the suggested controls to this YAML file.")
    ] = None
    material: Annotated[
        float,
        Parameter(
            group=RARE_COMPUTE,
            validator=validators.Number(gte=0),
            help="No control for a latent whose effect is a smaller share of the mean margin.",
        ),
    ] = 0.01
    material_sd: Annotated[
        float,
        Parameter(
            group=RARE_COMPUTE,
            validator=validators.Number(gte=0),
            help="Nor for one whose effect is smaller than this many SDs of the reward over answers.",
        ),
    ] = 0.0
