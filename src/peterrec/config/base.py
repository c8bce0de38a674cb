"""The base of all configuration models, and types they share."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]


def _as_text(value: Any) -> Any:
    """Let YAML's own dates and numbers stand where a text is meant: `before: 2001-02-01`, `domains: [53]`."""
    if isinstance(value, date):
        return value.isoformat()
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


Text = Annotated[str, BeforeValidator(_as_text)]


def _separator(value: str) -> str:
    value = value.replace("\\t", "\t")  # what arrives of `--separator '\t'`
    if not 1 <= len(value.encode()) <= 4 or set(value) & set('"\r\n'):
        raise ValueError("a separator is 1 to 4 characters, such as , or ; or :: or \\t, and no quote or end of line")
    return value


Separator = Annotated[str, AfterValidator(_separator)]


class Config(BaseModel):
    """Base of all configurations: unknown keys are errors, numbers are finite, values cannot change."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
