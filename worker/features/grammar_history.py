"""Features of an entity's history, from the ``features`` section of a configuration."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from worker.contracts.settings import FieldSettings
from worker.features.aggregations import AGGREGATIONS, Aggregation
from worker.features.declared import Declared, Path, resolution_of, suggest
from worker.features.feature import Feature, history_feature

_AGGREGATION = re.compile(r"([A-Za-z_]\w*)(?:\(\s*([^()]*?)\s*\))?")
_EXACT = ("integer", "boolean", "decimal")
_OPTIONS = ("windows", "delay", "include_current")


class HistoryGrammar:
    """Reads the aggregations of an entity, such as ``card: {count: [1d, 7d]}``."""

    def __init__(self, declared: Declared) -> None:
        self._declared = declared

    def features(self, path: Path, entity: str, value: Any) -> list[Feature]:  # Any: raw YAML
        """Return the features of one entity; none where there are problems."""
        if not isinstance(value, Mapping) or not value:
            expected = "aggregations of this entity, such as count: [1d, 7d]"
            self._declared.problem(path, expected, value)
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
            self._declared.problem(path, "an aggregation such as count or mean(amount)", key)
            return []
        kind = AGGREGATIONS.get(match[1])
        if kind is None:
            expected = "one of " + ", ".join(AGGREGATIONS)
            self._declared.problem(path, expected, match[1], suggest(match[1], AGGREGATIONS))
            return []
        before = len(self._declared.problems)
        field = self._aggregated(path, kind, match[2])
        windows, delay_ms, include_current = self._options(path, kind, options)
        if len(self._declared.problems) > before:
            return []
        resolution = None if field is None else resolution_of(field)
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
                self._declared.problem(path, f"{kind.name} without a field", f"{kind.name}({name})")
            return None
        if not name:
            self._declared.problem(path, f"a field, as in {kind.name}(amount)", kind.name)
            return None
        field = self._declared.field(path, name, "")
        if field is None or (field.type in _EXACT and self._declared.is_complete(name, field)):
            return field
        if field.type not in _EXACT:
            hint = "declare it as decimal with a resolution" if field.type == "float" else ""
            expected = "an integer, boolean or decimal field"
            self._declared.problem(path, expected, f"{name} of type {field.type}", hint)
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
                self._declared.problem(path, "nothing, as in {}", options)
            return [None], 0, True
        if not isinstance(options, Mapping):
            return self._windows(path, options), 0, True
        for key in options:
            if key not in _OPTIONS:
                self._declared.problem(
                    (*path, key), "one of " + ", ".join(_OPTIONS), key, suggest(key, _OPTIONS)
                )
        include_current = options.get("include_current", True)
        if not isinstance(include_current, bool):
            self._declared.problem((*path, "include_current"), "true or false", include_current)
        delay_ms = (
            self._declared.duration((*path, "delay"), options["delay"]) if "delay" in options else 0
        )
        windows = self._windows((*path, "windows"), options.get("windows"))
        return windows, delay_ms or 0, include_current is True

    def _windows(self, path: Path, value: Any) -> list[int | None]:  # Any: raw YAML
        if isinstance(value, str):
            return [self._declared.duration(path, value)]
        if not isinstance(value, list) or not value:
            self._declared.problem(path, "a list of durations such as [1d, 7d]", value)
            return []
        sizes: list[int | None] = []
        for i, item in enumerate(value):
            size_ms = self._declared.duration((*path, i), item)
            if size_ms is not None and size_ms in sizes:
                self._declared.problem((*path, i), "each window once", item)
            sizes.append(size_ms)
        return sizes
