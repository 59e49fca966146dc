"""From the ``features`` section of a configuration to features, with every mistake on the way."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from worker.contracts.settings import FieldSettings, Settings, parse_duration
from worker.errors import Problem
from worker.features.aggregations import AGGREGATIONS, Aggregation
from worker.features.feature import (
    CALENDAR,
    Feature,
    calendar_feature,
    category_features,
    history_feature,
    own_feature,
)

Path = tuple[str | int, ...]

SIZE_MAX_MS = 366 * 86_400_000
"""Longest window, and longest delay: positions and sums stay far from 63 bits."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_CALL = re.compile(r"([A-Za-z_]\w*)\(\s*\$([A-Za-z_]\w*)\s*\)")
_AGGREGATION = re.compile(r"([A-Za-z_]\w*)(?:\(\s*([^()]*?)\s*\))?")
_EXACT = ("integer", "boolean", "decimal")
_OPTIONS = ("windows", "delay", "include_current")


class Grammar:
    """Reads a ``features`` section; ``problems`` grows while it goes on."""

    def __init__(self, settings: Settings) -> None:
        self.problems: list[Problem] = []
        self._fields = settings.events.fields
        self._entities = settings.entities
        self._section = settings.features

    def parse(self) -> list[Feature]:
        """Return the features in the order of the file; incomplete where there are problems."""
        found: list[Feature] = []
        for name, value in self._section.items():
            features = self._item(("features", name), name, value)
            for feature in features:
                if any(feature.name == other.name for other in found):
                    hint = f"{feature.name} is declared twice"
                    self._problem(("features", name), "features of different names", value, hint)
            found += features
        if not self._section:
            self._problem(("features",), "at least one feature", self._section)
        return found

    def _item(self, path: Path, name: str, value: Any) -> list[Feature]:  # Any: raw YAML
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            self._problem(path, "a name of letters, digits and _", name)
            return []
        if name in self._entities:
            return self._history(path, name, value)
        if isinstance(value, str):
            return self._own(path, name, value)
        hint = _suggest(name, self._entities) if isinstance(value, Mapping) else ""
        names = ", ".join(self._entities)
        expected = f"an expression such as $amount, or the name of an entity ({names})"
        self._problem(path, expected, name if isinstance(value, Mapping) else value, hint)
        return []

    def _own(self, path: Path, name: str, text: str) -> list[Feature]:
        call = _CALL.fullmatch(text.strip())
        if call is not None:
            return self._calendar(path, name, call[1], call[2])
        if not text.startswith("$") or not _NAME.fullmatch(text[1:]):
            self._problem(path, "a field such as $amount or a call such as hour($time)", text)
            return []
        field = self._field(path, text[1:], "$")
        return [] if field is None else self._own_field(path, name, text[1:], field)

    def _own_field(
        self, path: Path, name: str, field_name: str, field: FieldSettings
    ) -> list[Feature]:
        if field.type in ("string", "timestamp"):
            expected = "a number, boolean or category"
            self._problem(path, expected, f"${field_name} of type {field.type}")
            return []
        if not self._is_complete(field_name, field):
            return []
        if field.type == "category":
            return category_features(name, field_name, field.values or ())
        return [own_feature(name, field_name, _resolution(field))]

    def _calendar(self, path: Path, name: str, function: str, argument: str) -> list[Feature]:
        if function not in CALENDAR:
            self._problem(
                path, "one of " + ", ".join(CALENDAR), function, _suggest(function, CALENDAR)
            )
            return []
        if argument != "time":
            self._problem(path, f"{function}($time)", f"{function}(${argument})", "the event time")
            return []
        return [calendar_feature(name, function)]

    def _history(self, path: Path, entity: str, value: Any) -> list[Feature]:  # Any: raw YAML
        if not isinstance(value, Mapping) or not value:
            expected = "aggregations of this entity, such as count: [1d, 7d]"
            self._problem(path, expected, value)
            return []
        return [
            feature
            for key, options in value.items()
            for feature in self._aggregation((*path, key), entity, key, options)
        ]

    def _aggregation(
        self, path: Path, entity: str, key: Any, options: Any
    ) -> list[Feature]:  # Any: raw YAML
        match = _AGGREGATION.fullmatch(key.strip()) if isinstance(key, str) else None
        if match is None:
            self._problem(path, "an aggregation such as count or mean(amount)", key)
            return []
        kind = AGGREGATIONS.get(match[1])
        if kind is None:
            expected = "one of " + ", ".join(AGGREGATIONS)
            self._problem(path, expected, match[1], _suggest(match[1], AGGREGATIONS))
            return []
        before = len(self.problems)
        field = self._aggregated(path, kind, match[2])
        windows, delay_ms, include_current = self._options(path, kind, options)
        if len(self.problems) > before:
            return []
        resolution = None if field is None else _resolution(field)
        name = match[2] if kind.takes_field else None
        return [
            history_feature(entity, kind.name, name, size, delay_ms, include_current, resolution)
            for size in windows
        ]

    def _aggregated(
        self, path: Path, kind: type[Aggregation], name: str | None
    ) -> FieldSettings | None:
        """Return the declared field that an aggregation is of, if it may be."""
        if not kind.takes_field:
            if name is not None:
                self._problem(path, f"{kind.name} without a field", f"{kind.name}({name})")
            return None
        if not name:
            self._problem(path, f"a field, as in {kind.name}(amount)", kind.name)
            return None
        field = self._field(path, name, "")
        if field is None or (field.type in _EXACT and self._is_complete(name, field)):
            return field
        if field.type not in _EXACT:
            hint = "declare it as decimal with a resolution" if field.type == "float" else ""
            expected = "an integer, boolean or decimal field"
            self._problem(path, expected, f"{name} of type {field.type}", hint)
        return None

    def _options(
        self,
        path: Path,
        kind: type[Aggregation],
        options: Any,  # Any: raw YAML
    ) -> tuple[list[int | None], int, bool]:
        """Return windows, delay and include_current; a problem for each that is wrong."""
        if not kind.takes_windows:
            if options not in (None, {}):
                self._problem(path, "nothing, as in {}", options)
            return [None], 0, True
        if not isinstance(options, Mapping):
            return self._windows(path, options), 0, True
        for key in options:
            if key not in _OPTIONS:
                self._problem(
                    (*path, key), "one of " + ", ".join(_OPTIONS), key, _suggest(key, _OPTIONS)
                )
        include_current = options.get("include_current", True)
        if not isinstance(include_current, bool):
            self._problem((*path, "include_current"), "true or false", include_current)
        delay_ms = self._duration((*path, "delay"), options["delay"]) if "delay" in options else 0
        windows = self._windows((*path, "windows"), options.get("windows"))
        return windows, delay_ms or 0, include_current is True

    def _windows(self, path: Path, value: Any) -> list[int | None]:  # Any: raw YAML
        if isinstance(value, str):
            return [self._duration(path, value)]
        if not isinstance(value, list) or not value:
            self._problem(path, "a list of durations such as [1d, 7d]", value)
            return []
        sizes: list[int | None] = []
        for i, item in enumerate(value):
            size_ms = self._duration((*path, i), item)
            if size_ms is not None and size_ms in sizes:
                self._problem((*path, i), "each window once", item)
            sizes.append(size_ms)
        return sizes

    def _duration(self, path: Path, value: Any) -> int | None:  # Any: raw YAML
        try:
            duration_ms = parse_duration(value)
        except ValueError as error:
            self._problem(path, str(error), value)
            return None
        if not 1_000 <= duration_ms <= SIZE_MAX_MS:
            self._problem(path, "a duration from 1s to 366d", value)
            return None
        return duration_ms

    def _field(self, path: Path, name: str, sign: str) -> FieldSettings | None:
        field = self._fields.get(name)
        if field is None:
            hint = _suggest(name, self._fields, sign)
            if name == "time":
                hint = "the event time is for calls such as hour($time)"
            self._problem(path, "a declared field", sign + name, hint)
        return field

    def _is_complete(self, name: str, field: FieldSettings) -> bool:
        """Return whether the field declares what its features need."""
        path: Path = ("events", "fields", name)
        if field.type == "decimal" and not field.resolution:
            self._once((*path, "resolution"), "the unit of its integers, such as 0.01", None)
            return False
        if field.type == "category" and not field.values:
            self._once((*path, "values"), "the known values", None)
            return False
        return True

    def _once(self, path: Path, expected: str, got: Any) -> None:  # Any: raw YAML
        if all(problem.path != path for problem in self.problems):
            self._problem(path, expected, got)

    def _problem(self, path: Path, expected: str, got: Any, hint: str = "") -> None:  # Any: YAML
        self.problems.append(Problem(path, expected, _shown(got), hint))


def _resolution(field: FieldSettings) -> float | None:
    return field.resolution if field.type == "decimal" else None


def _shown(got: Any) -> str:  # Any: raw YAML
    text = "nothing" if got is None else repr(got)
    return text if len(text) <= 80 else text[:77] + "..."


def _suggest(name: Any, known: Iterable[str], sign: str = "") -> str:  # Any: raw YAML
    """Return a hint with the nearest known name, or nothing.

    >>> _suggest("conut", ["count", "mean"]), _suggest("x", ["count"])
    ('did you mean count?', '')
    """
    near = get_close_matches(str(name), list(known), n=1)
    return f"did you mean {sign}{near[0]}?" if near else ""
