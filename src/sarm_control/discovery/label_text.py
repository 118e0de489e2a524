"""Labels of latents as text for people."""

from collections.abc import Iterator, Sequence

from sarm_control.discovery.labels import Label

_LONGEST = 100


def labels_text(labels: Sequence[Label], *, examples: int = 1, asked: bool = False) -> str:
    """Each latent in a few lines: how often it fires, its words, its name, and an answer or two.

    Args:
        labels: of the latents.
        examples: answers shown of each.
        asked: whether a language model was to give names.
    """
    return "\n\n".join("\n".join(_lines(label, examples, asked)) for label in labels) + "\n"


def _lines(label: Label, examples: int, asked: bool) -> Iterator[str]:
    yield f"{label.latent}  {label.kind}, active in {100 * label.rate:.1f} % of the answers"
    if label.name is not None:
        name = label.name
        unread = f", {name.unread} replies neither yes nor no" if name.unread else ""
        skill = f"balanced accuracy {name.balanced_accuracy:.2f} [{name.low:.2f}, {name.high:.2f}]"
        chance = "" if name.low > 0.5 else "no better than chance: "
        yield f"  name   {name.text} ({chance}{skill} on {name.active} + {name.matched} answers{unread})"
    elif asked:
        yield "  name   none: too few answers to give a name and to test it"
    words = ", ".join(
        f'"{one.text}" {100 * one.active:.0f} % against {100 * one.inactive:.0f} %' for one in label.words[:4]
    )
    yield f"  words  {words or 'none sets its answers apart from matched ones'}"
    for one in label.top[:examples]:
        yield f"  top    z = {one.z:.3g}: {_shortened(one.answer)}"


def _shortened(text: str) -> str:
    plain = " ".join(text.split())
    return plain if len(plain) <= _LONGEST else f"... {plain[-_LONGEST:]}"
