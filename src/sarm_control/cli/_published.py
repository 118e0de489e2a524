"""`sarm eval --reproduce-published-steering`."""

import sys
from collections.abc import Sequence
from pathlib import Path

from sarm_control.cli._sources import ModelFlags
from sarm_control.console import progress
from sarm_control.errors import ConfigError


def reproduce(data: Sequence[str], flags: ModelFlags, json_file: Path | None) -> None:
    """Prints the published table, beside it what the recorded rewards and a model at hand say.

    Raises:
        ConfigError: several files, or a model without rows or without the published latents.
    """
    from sarm_control.evaluation.published_steering import PUBLISHED, from_model, from_records
    from sarm_control.evaluation.published_steering_text import published_text
    from sarm_control.evaluation.verification import PUBLISHED_STEERED_LATENTS, read_recorded
    from sarm_control.files import write_json

    if len(data) > 1 or (flags.model is not None and not data):
        raise ConfigError(
            "--reproduce-published-steering takes the one file of recorded scores",
            hint="sarm eval --reproduce-published-steering --data llama_sarm_4b_scores.jsonl",
        )
    recorded = read_recorded(Path(data[0])) if data else None
    from_file = None if recorded is None else from_records(recorded)
    exact = None
    if recorded is not None and flags.model is not None:
        from sarm_control.control.specs import check_exists
        from sarm_control.latents.rows import score_rows

        rm = flags.load()
        for latent in PUBLISHED_STEERED_LATENTS:
            check_exists(latent, rm.config.latents)
        scored = score_rows(rm, recorded.rows, batch_tokens=flags.batch_tokens, progress=progress)
        exact = from_model(recorded, scored)
    sys.stdout.write(published_text(from_file, exact))
    if json_file is not None:
        found = {"recorded": from_file, "exact": exact}
        results = {name: None if one is None else one.as_json() for name, one in found.items()}
        write_json(json_file, {"published": [one._asdict() for one in PUBLISHED], **results})
