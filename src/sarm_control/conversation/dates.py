"""The date that chat templates see.

Some templates (Llama 3.1 and 3.2, Mistral, Granite) write today's date into the prompt by `strftime_now`.
The same answer would then get another reward tomorrow. So the date is a setting with a fixed default; it can
be set to another day or to the current one.
"""

import contextlib
import datetime
import re
from collections.abc import Callable

from sarm_control.errors import ConfigError

DEFAULT_DATE = datetime.date(2024, 7, 26)
"""The fallback day of the templates of Llama 3.1 and 3.2: 26 Jul 2024."""
TODAY = "today"

_FORMAT = re.compile(r"strftime_now\(\s*(['\"])(.+?)\1\s*\)")
_TEXT = re.compile(r"(['\"])(.{4,40}?)\1")
_ISO = re.compile(r"\d{4}-\d{2}-\d{2}")
# a format must name year, month and day, or no day can be read by it
_WHOLE_DAY = (("%Y", "%y"), ("%b", "%B", "%m", "%h"), ("%d", "%e"))


def asks_for_date(source: str) -> bool:
    """Whether the text of a template can depend on the date."""
    return "strftime_now" in source


def fallback_date(source: str) -> datetime.date:
    """The day that a template writes without `strftime_now`; `DEFAULT_DATE` where it has no such day.

    It is the first quoted text of the template that is a date in one of the template's own date formats.
    """
    formats = [call[2] for call in _FORMAT.finditer(source)]
    for form in formats:
        if not all(any(code in form for code in codes) for codes in _WHOLE_DAY):
            continue
        for quoted in _TEXT.finditer(source):
            try:
                # strptime does not know %e, the day without a leading 0
                return datetime.datetime.strptime(quoted[2], form.replace("%e", "%d")).date()
            except ValueError:
                continue
    return DEFAULT_DATE


def read_date(
    text: str | datetime.date | None, *, today: Callable[[], datetime.date] = datetime.date.today
) -> datetime.date | None:
    """The date of a setting: `2026-01-31`, `today`, or None for the template's own.

    Args:
        text: the setting.
        today: the clock.

    Raises:
        ConfigError: the setting is not a date.
    """
    if text is None or isinstance(text, datetime.date):
        return text
    day = today() if text == TODAY else stored_date(text)
    if day is not None:
        return day
    raise ConfigError(
        f"template date {text!r} is not a date", hint="write a day such as 2026-01-31, or today"
    )


def stored_date(text: object) -> datetime.date | None:
    """The day of a text such as `2026-01-31`; None for anything else."""
    with contextlib.suppress(ValueError):
        if isinstance(text, str) and _ISO.fullmatch(text):
            return datetime.date.fromisoformat(text)
    return None


def clock(day: datetime.date) -> Callable[[str], str]:
    """A `strftime_now` whose clock stands at the first moment of `day`."""
    midnight = datetime.datetime.combine(day, datetime.time())

    def strftime_now(format: str) -> str:
        return midnight.strftime(format)

    return strftime_now
