"""The templates of the page: each value they show is escaped, except what another template has made."""

from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup


def render_template(name: str, **values: Any) -> "Markup":
    """A template of `templates/` with values; a value that it asks for and does not get is an error."""
    from markupsafe import Markup

    return Markup(_environment().get_template(name).render(**values))


@cache
def _environment() -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("sarm_control.comparison.html"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
