"""What latents are about, in a few words, from everything that was given."""

from collections.abc import Mapping, Sequence

from sarm_control.report.sources import Sources


def latent_names(sources: Sources) -> dict[int, str]:
    """Latent -> words: of labels where a discovery has them, else of what audits saw them fire on."""
    names: dict[int, str] = {}
    for audit in sources.audits.values():
        names.update({int(one): str(words) for one, words in audit.get("latent_words", {}).items()})
    # after the audits, so that a label replaces words that were only counted
    for discovery in sources.discoveries.values():
        for feature in (one for listed in discovery["lists"].values() for one in listed):
            words = _words(feature.get("label"))
            if words:
                names[int(feature["latent"])] = words
    return names


def named(latent: int | str, names: Mapping[int, str]) -> str:
    """`8 - reach` where words are known, else `latent 8`."""
    words = names.get(int(latent)) if str(latent).isdigit() else None
    return f"{latent} \u2013 {words}" if words else f"latent {latent}"


def edits_in_words(edits: Sequence[str], names: Mapping[int, str]) -> str:
    """`latent 15: set=0.0; ...` of `15:set=0.0` and others, as files have them."""
    parts = (text.partition(":") for text in edits)
    return "; ".join(f"{named(latent, names)}: {rest}" for latent, _, rest in parts)


def _words(label: object) -> str:
    if isinstance(label, Mapping):
        return str(label.get("text") or label.get("label") or "")
    return str(label or "")
