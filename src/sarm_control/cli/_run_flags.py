"""The flags that make a training configuration, alone or laid over a YAML file."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from sarm_control.cli._help import COMPUTE, INPUT, MODEL, RARE_COMPUTE, RARE_INPUT, RARE_OUTPUT
from sarm_control.cli._scoring import say_stand_in
from sarm_control.console import say
from sarm_control.errors import ConfigError

if TYPE_CHECKING:
    from sarm_control.training import Document, RunConfig


@Parameter(name="*")
@dataclass(frozen=True)
class RunFlags:
    """Settings given on the command line; each wins over the file, and a list replaces the file's list."""

    policy: Annotated[
        str | None,
        Parameter(
            group=MODEL,
            help="Hub id or folder of the model or LoRA adapter to train (policy.model). Default: lab.",
        ),
    ] = None
    model: Annotated[
        str | None,
        Parameter(
            group=MODEL,
            name=["--model", "-m"],
            help="Hub id or folder of the SARM (reward.model). Default: lab.",
        ),
    ] = None
    prompts: Annotated[
        Path | None,
        Parameter(
            group=INPUT,
            help="Data file of prompts (data.prompts). Default for the lab policy: lab:train_prompts.",
        ),
    ] = None
    rows: Annotated[
        int | None,
        Parameter(
            group=RARE_INPUT,
            help="Read the first rows of the prompts alone; of a data set on the hub no more are downloaded "
            "(data.rows).",
        ),
    ] = None
    exclude: Annotated[
        list[Path] | None,
        Parameter(
            group=RARE_INPUT,
            help="Files whose prompts are not trained on; may be repeated (data.exclude).",
        ),
    ] = None
    columns: Annotated[
        str | None,
        Parameter(
            group=RARE_INPUT, help="Fields that have other names in the data: prompt=question (data.columns)."
        ),
    ] = None
    edit: Annotated[
        list[str] | None,
        Parameter(
            group=COMPUTE,
            help="Edit of a latent, may be repeated: 12345=0, 12345:max=2. "
            "For latents of a discovery: @features.json#harms[:3]=0.",
        ),
    ] = None
    edits_file: Annotated[
        Path | None,
        Parameter(
            group=RARE_COMPUTE, help="File of edits that sarm probe --save-edits wrote (reward.edits)."
        ),
    ] = None
    penalize: Annotated[
        list[str] | None,
        Parameter(
            group=COMPUTE,
            help="Penalty on a latent, may be repeated: 48659:tau=3,alpha=0.1, tau=q0.9,alpha=0.5sd, "
            "tau=q0.9,target_rate=0.1; or on the residual: residual:tau=q0.95,alpha=0.5sd,form=hinge.",
        ),
    ] = None
    human: Annotated[
        Path | None,
        Parameter(
            group=RARE_COMPUTE,
            help="Human demonstrations for --beta (data.human): a data file, or what sarm latents made.",
        ),
    ] = None
    beta: Annotated[
        str | None,
        Parameter(
            group=RARE_COMPUTE, help="Weight of the human-KL term: 0.05 or 0.1sd (reward.human_kl.beta)."
        ),
    ] = None
    controls: Annotated[
        Path | None,
        Parameter(
            group=COMPUTE, help="YAML file of edits, penalties and human_kl, as sarm discover writes it."
        ),
    ] = None
    steps: Annotated[int | None, Parameter(group=COMPUTE, help="PPO steps (training.steps).")] = None
    seed: Annotated[
        int | None, Parameter(group=RARE_COMPUTE, help="Seed of everything random (training.seed).")
    ] = None
    stop_on: Annotated[
        str | None,
        Parameter(
            group=RARE_COMPUTE,
            help="Monitors that stop the run when they begin to fire, such as dead-penalty,saturated "
            "(evaluation.stop_on).",
        ),
    ] = None
    track: Annotated[
        list[str] | None,
        Parameter(
            group=RARE_OUTPUT,
            help="Tracker that gets every step, may be repeated: tensorboard, wandb (offline without a key), "
            "trackio, mlflow (logging.trackers).",
        ),
    ] = None
    set: Annotated[
        list[str] | None,
        Parameter(group=COMPUTE, help="Any setting, may be repeated: training.learning_rate=1e-4."),
    ] = None

    def documents(self) -> "Iterator[Document]":
        """The settings in the order they win: --controls, the named flags, --set."""
        from sarm_control.training import parse_setting, read_document

        if self.controls is not None:
            found = read_document(self.controls)
            # a file may be a piece of a run file, or only what stands below its `reward`
            yield found if "reward" in found.values else found.under(("reward",))
        yield from self._named()
        for text in self.set or ():
            yield parse_setting(text)

    def _named(self) -> "Iterator[Document]":
        from sarm_control.training import items, plain_scalar, setting

        single = {
            "policy": (("policy", "model"), self.policy),
            "model": (("reward", "model"), self.model),
            "prompts": (("data", "prompts"), self.prompts),
            "columns": (("data", "columns"), self.columns),
            "rows": (("data", "rows"), self.rows),
            "human": (("data", "human"), self.human),
            # typed as YAML reads it: 0.05 is a number and 0.1sd a text
            "beta": (("reward", "human_kl", "beta"), None if self.beta is None else plain_scalar(self.beta)),
            "steps": (("training", "steps"), self.steps),
            "seed": (("training", "seed"), self.seed),
        }
        for flag, (path, value) in single.items():
            if value is not None:
                plain = str(value) if isinstance(value, Path) else value
                yield setting(path, plain, f"--{flag} {value}")
        if self.edits_file is not None:
            yield from self._from_edits_file(self.edits_file)
        several = {
            "exclude": (("data", "exclude"), self.exclude),
            # a list replaces an earlier list: with a file of edits both come as one, from
            # `_from_edits_file`
            "edit": (("reward", "edits"), None if self.edits_file else self.edit),
            "penalize": (("reward", "penalties"), self.penalize),
            "track": (("logging", "trackers"), self.track),
            "stop-on": (("evaluation", "stop_on"), self.stop_on.split(",") if self.stop_on else None),
        }
        for flag, (path, values) in several.items():
            if values is not None:
                yield items(path, [str(value) for value in values], f"--{flag}")

    def _from_edits_file(self, path: Path) -> "Iterator[Document]":
        """The edits of the file and of --edit together, and the head that the file is meant for."""
        from sarm_control.control import read_edit_file
        from sarm_control.training import items, setting

        found = read_edit_file(path)
        if found.left_out:
            say(f"{path}: only its edits are used; pass {' and '.join(found.left_out)} with --controls")
        yield items(
            ("reward", "edits"), [*map(str, found.edits), *(self.edit or [])], "--edits-file or --edit"
        )
        if found.head is not None:
            yield setting(("reward", "fingerprint"), found.head, f"--edits-file {path}")

    def config(self, file: Path | None) -> "RunConfig":
        """The configuration of `file` and these flags; says what the embedded world stands in for.

        Raises:
            ConfigError: one line for each mistake, naming the file and line or the flag.
        """
        from sarm_control.training import load_config

        config = load_config(file, list(self.documents()))
        # refused, for the run would be one without the term that somebody meant to have
        if self.human is not None and config.reward.human_kl is None:
            raise ConfigError(
                f"--human {self.human}: nothing uses the demonstrations", hint="add --beta 0.1sd"
            )
        say_stand_in(_unset(config))
        return config


def _unset(config: "RunConfig") -> list[str]:
    """The flags of the models and data that neither a file nor a flag named."""
    keys = {
        "--policy": (config.policy, "model"),
        "--model": (config.reward, "model"),
        "--prompts": (config.data, "prompts"),
    }
    # what was set, be it to the default: who types `--policy lab` is told of no stand-in
    return [flag for flag, (section, key) in keys.items() if key not in section.model_fields_set]
