"""The setting `data.template_date`: the day that a chat template writes."""

import datetime
from typing import Annotated, Any

from pydantic import BeforeValidator

from sarm_control.conversation import TODAY, read_date
from sarm_control.errors import ConfigError


def _day(value: Any) -> Any:
    # YAML reads 2026-01-31 as a date
    text = value.isoformat() if type(value) is datetime.date else value
    if isinstance(text, str) and text != TODAY:
        try:
            read_date(text)
        except ConfigError as error:
            raise ValueError(f"{text!r} is neither today nor a day such as 2026-01-31") from error
    return text


TemplateDay = Annotated[str | None, BeforeValidator(_day)]
