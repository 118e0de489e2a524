"""HTML built from elements, where plain text is always escaped."""

import html
from collections.abc import Iterable

_VOID = frozenset({"br", "meta"})


class Html(str):
    """Text that is HTML already; `element` escapes every other string."""

    __slots__ = ()


Child = str | Iterable[str]


def element(name: str, /, *children: Child, **attributes: str | float | None) -> Html:
    """One element with its children.

    Args:
        name: the tag name.
        children: text (escaped unless it is `Html`), or an iterable of such.
        attributes: `class_` becomes `class`, `data_value` becomes `data-value`; None is left out.
    """
    opening = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value), quote=True)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Html(f"<{name}{opening}>")
    return Html(f"<{name}{opening}>{join(*children)}</{name}>")


def join(*children: Child) -> Html:
    """The children one after another, plain text escaped."""
    return Html("".join(_safe(part) for child in children for part in _parts(child)))


def _parts(child: Child) -> Iterable[str]:
    return (child,) if isinstance(child, str) else child


def _safe(text: str) -> str:
    return text if isinstance(text, Html) else html.escape(text, quote=True)
