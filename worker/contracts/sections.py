"""What the sections of a configuration are made of: durations, names, the base of all sections."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

_UNITS_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION = re.compile(r"^(\d+)(ms|s|m|h|d)$")


def parse_duration(value: object) -> int:
    """Return a duration such as ``10m`` in milliseconds.

    >>> parse_duration("10m"), parse_duration("7d")
    (600000, 604800000)
    """
    match = _DURATION.match(value) if isinstance(value, str) else None
    if match is None or len(match[1]) > 6:
        raise ValueError("a duration such as 10m or 7d")
    if int(match[1]) == 0:
        raise ValueError("a duration of more than 0, such as 10m or 7d")
    return int(match[1]) * _UNITS_MS[match[2]]


def format_duration(duration_ms: int) -> str:
    """Return the shortest spelling of a duration, the inverse of `parse_duration`.

    >>> format_duration(86_400_000), format_duration(90_000)
    ('1d', '90s')
    """
    for unit, size_ms in reversed(_UNITS_MS.items()):
        if duration_ms % size_ms == 0:
            return f"{duration_ms // size_ms}{unit}"
    raise AssertionError(duration_ms)


Duration = Annotated[
    int,
    BeforeValidator(
        parse_duration,
        json_schema_input_type=Annotated[
            str, Field(pattern=_DURATION.pattern, examples=["10m", "7d"])
        ],
    ),
]
Name = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=64)]
Topic = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,249}$")]


class Section(BaseModel):
    """Base of all sections: closed and immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True)
