"""`sarm verify`: does this reward model give the rewards that were recorded?"""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter, validators

from sarm_control.cli._help import COMPUTE, INPUT, OUTPUT, RARE_COMPUTE
from sarm_control.cli._next import made_of, of_model, say_next
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
from sarm_control.console import progress
from sarm_control.errors import ConfigError

if TYPE_CHECKING:
    from sarm_control.evaluation import RewardCheck, Verification

_ROWS_SHOWN = 5


def verify(
    recorded: Annotated[Path, Parameter(group=INPUT, help='Rows {"prompt", "response", "reward"}.')],
    /,
    *,
    model: Model = None,
    steps: Annotated[
        float,
        Parameter(group=COMPUTE, validator=validators.Number(gte=0), help="Tolerance in bfloat16 steps."),
    ] = 2.0,
    share: Annotated[
        float,
        Parameter(
            group=COMPUTE,
            validator=validators.Number(gte=0, lte=1),
            help="Share of rows that has to be within it, 0 to 1.",
        ),
    ] = 1.0,
    steered_latents: Annotated[
        str | None,
        Parameter(
            group=RARE_COMPUTE,
            help="Latents whose removal reward_steered records, such as 48659,28879. "
            "Default: the five of the published run.",
        ),
    ] = None,
    batch_tokens: BatchTokens = None,
    device: Device = None,
    dtype: Dtype = None,
    max_length: MaxLength = None,
    template_date: TemplateDate = None,
    reading: Read = None,
    json_file: Annotated[
        Path | None, Parameter(group=OUTPUT, name="--json", help="The comparison as JSON.")
    ] = None,
) -> int:
    """Check a reward model against recorded rewards.

    Rows may also carry reward_steered and active_steered_latents, the reward with the steered
    latents multiplied by 0 and which of them were active. One step at r is 2^(floor(log2 |r|) - 7).
    The exit code is 1 when fewer rows than --share are within the tolerance.
    """
    from sarm_control.control import check_exists
    from sarm_control.evaluation import read_recorded
    from sarm_control.evaluation import verify as compare
    from sarm_control.files import check_writable
    from sarm_control.latents import score_rows

    if json_file is not None:
        # before the model is loaded and the rows are scored
        check_writable(json_file)
    latents = _latents(steered_latents)
    records = read_recorded(recorded)
    name = or_lab(model)
    rm = load_model(
        name,
        device=device,
        dtype=dtype,
        max_length=max_length,
        template_date=template_date,
        reading=reading,
    )
    # only then they are used: the default names latents of the published model, which others lack
    if records.has_steering:
        for latent in latents:
            check_exists(latent, rm.config.latents)
    scored = score_rows(rm, records.rows, batch_tokens=batch_tokens, progress=progress)
    result = compare(records, scored, steered_latents=latents, steps=steps, share=share)
    _print(result, steps)
    if json_file is not None:
        _write(json_file, result, model=model_name(name), steps=steps)
    named = of_model(model, reading)
    if result.passed and rm.dictionary is None:
        say_next("score", recorded, *named, "-o", made_of(recorded, ".scores.jsonl"))
    elif result.passed:
        say_next("latents", recorded, *of_model(model), "-o", made_of(recorded, ".latents"))
    else:
        # half precision rounds differently from machine to machine: what is left in float32 is no rounding
        say_next("verify", recorded, *named, "--dtype", "float32")
    return 0 if result.passed else 1


def _latents(text: str | None) -> tuple[int, ...]:
    from sarm_control.evaluation import PUBLISHED_STEERED_LATENTS

    if text is None:
        return PUBLISHED_STEERED_LATENTS
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts) or len(set(parts)) < len(parts):
        raise ConfigError(
            f"--steered-latents: {text!r} is not a list of distinct latent numbers",
            hint="write it like 48659,28879",
        )
    return tuple(int(part) for part in parts)


def _print(result: "Verification", steps: float) -> None:
    for check in result.rewards:
        _print_check(check, steps)
    if result.active is not None:
        n, equal = result.active
        print(f"active steered latents: equal in {equal} of {n} rows")
    print("verified" if result.passed else "not verified")


def _print_check(check: "RewardCheck", steps: float) -> None:
    print(
        f"{check.name}: n = {check.n}, largest difference {check.largest:.3g} steps "
        f"({check.largest_absolute:.3g}), {100 * check.share_within:.2f} % within {steps:g} steps"
    )
    for row in check.outside[:_ROWS_SHOWN]:
        print(f"  {row.where}: recorded {row.recorded:.6g}, found {row.found:.6g}, {row.steps:.3g} steps")
    if len(check.outside) > _ROWS_SHOWN:
        print(f"  and {len(check.outside) - _ROWS_SHOWN} more rows")


def _write(path: Path, result: "Verification", *, model: str, steps: float) -> None:
    from sarm_control.files import write_json

    checks = [
        {
            **asdict(check),
            "share_within": check.share_within,
            "outside": [row._asdict() for row in check.outside],
        }
        for check in result.rewards
    ]
    active = None if result.active is None else result.active._asdict()
    write_json(
        path, {"model": model, "steps": steps, "passed": result.passed, "rewards": checks, "active": active}
    )
