"""Features of the event alone, from the ``features`` section of a configuration."""

from __future__ import annotations

import re

from worker.contracts.settings import FieldSettings
from worker.features.declared import Declared, Path, resolution_of, suggest
from worker.features.feature import (
    CALENDAR,
    Feature,
    calendar_feature,
    category_features,
    own_feature,
)

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_CALL = re.compile(r"([A-Za-z_]\w*)\(\s*\$([A-Za-z_]\w*)\s*\)")


class RowGrammar:
    """Reads features such as ``amount: $amount``."""

    def __init__(self, declared: Declared) -> None:
        self._declared = declared

    def features(self, path: Path, name: str, text: str) -> list[Feature]:
        """Return the features of one entry; none where there are problems."""
        call = _CALL.fullmatch(text.strip())
        if call is not None:
            return self._calendar(path, name, call[1], call[2])
        if not text.startswith("$") or not _NAME.fullmatch(text[1:]):
            self._declared.problem(
                path, "a field such as $amount or a call such as hour($time)", text
            )
            return []
        field = self._declared.field(path, text[1:], "$")
        return [] if field is None else self._own_field(path, name, text[1:], field)

    def _own_field(
        self, path: Path, name: str, field_name: str, field: FieldSettings
    ) -> list[Feature]:
        if field.type in ("string", "timestamp"):
            expected = "a number, boolean or category"
            self._declared.problem(path, expected, f"${field_name} of type {field.type}")
            return []
        if not self._declared.is_complete(field_name, field):
            return []
        if field.type == "category":
            return category_features(name, field_name, field.values or ())
        return [own_feature(name, field_name, resolution_of(field))]

    def _calendar(self, path: Path, name: str, function: str, argument: str) -> list[Feature]:
        if function not in CALENDAR:
            self._declared.problem(
                path, "one of " + ", ".join(CALENDAR), function, suggest(function, CALENDAR)
            )
            return []
        if argument != "time":
            self._declared.problem(
                path, f"{function}($time)", f"{function}(${argument})", "the event time"
            )
            return []
        return [calendar_feature(name, function)]
