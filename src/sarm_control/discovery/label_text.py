"""Labels of latents as text for people."""

from collections.abc import Iterator, Sequence

from sarm_control.discovery.labels import Label

_LONGEST = 100


def labels_text(labels: Sequence[Label], *, examples: int = 1) -> str:
    """Each latent in a few lines: how often it fires, its words, its name, and an answer or two.

    Args:
        labels: of the latents.
        examples: answers shown of each.
    """
    return "\n\n".join("\n".join(_lines(label, examples)) for label in labels) + "\n"


def _lines(label: Label, examples: int) -> Iterator[str]:
    yield f"{label.latent}  {label.kind}, active in {100 * label.rate:.1f} % of the answers"
    if label.name is not None:
        name = label.name
        unread = f", {name.unread} replies neither yes nor no" if name.unread else ""
        skill = f"balanced accuracy {name.balanced_accuracy:.2f}, chance 0.5"
        yield f"  name   {name.text} ({skill}, on {name.active} + {name.matched} answers{unread})"
    words = ", ".join(
        f'"{one.text}" {100 * one.active:.0f} % against {100 * one.inactive:.0f} %' for one in label.words[:4]
    )
    yield f"  words  {words or 'none sets its answers apart from matched ones'}"
    for one in label.top[:examples]:
        yield f"  top    z = {one.z:.3g}: {_shortened(one.answer)}"


def _shortened(text: str) -> str:
    plain = " ".join(text.split())
    return plain if len(plain) <= _LONGEST else f"... {plain[-_LONGEST:]}"
