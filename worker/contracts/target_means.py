"""The shorthand ``target_mean($FIELD)`` in the ``features`` section: what it names and stands for.

It is the smoothed `fraud_rate` of an entity that the field's value names. Where no entity of the
configuration has this key, one is declared by the shorthand.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PRIOR, STRENGTH = 0.01, 100.0
"""The rate that a value has before anything is known of it, and how many events that is worth."""

WINDOW_MS = 90 * 86_400_000
TYPES = ("category", "string", "integer")
EXPECTED = "target_mean($FIELD), or target_mean($FIELD, PRIOR, STRENGTH)"

_NUMBER = r"(\d+(?:\.\d*)?(?:[eE][+-]?\d+)?)"
_FORM = re.compile(
    rf"\s*target_mean\s*\(\s*\$([A-Za-z_]\w*)\s*(?:,\s*{_NUMBER}\s*,\s*{_NUMBER}\s*)?\)\s*"
)


@dataclass(frozen=True, slots=True)
class TargetMean:
    """What is written: the field, and how its rate is smoothed."""

    field: str
    prior: float
    strength: float

    @property
    def entity(self) -> str:
        """Return the name of the entity that is declared for it where there is none.

        >>> TargetMean("channel", 0.01, 100.0).entity
        'target_of_channel'
        """
        return f"target_of_{self.field}"


def is_target_mean(value: Any) -> bool:  # Any: raw YAML
    """Return whether a feature means to be one, well written or not."""
    return isinstance(value, str) and value.lstrip().startswith("target_mean")


def parse_target_mean(value: Any) -> TargetMean | None:  # Any: raw YAML
    """Return what is written, None where it is something else.

    >>> parse_target_mean("target_mean($channel, 0.02, 50)")
    TargetMean(field='channel', prior=0.02, strength=50.0)
    """
    match = _FORM.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return None
    prior, strength = (float(match[2]), float(match[3])) if match[2] else (PRIOR, STRENGTH)
    return TargetMean(match[1], prior, strength)


def entity_of_target(target: TargetMean, keys: Mapping[str, Any]) -> str:
    """Return the entity whose id the field is: a declared one, by ``keys``, or one of its own.

    >>> entity_of_target(TargetMean("terminal_id", 0.01, 100.0), {"terminal": "terminal_id"})
    'terminal'
    """
    return next((name for name, key in keys.items() if key == target.field), target.entity)
