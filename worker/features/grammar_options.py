"""What stands after an aggregation in a configuration: windows, counts, delay and the like."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from worker.errors import Problem
from worker.features.aggregations import Aggregation, Options
from worker.features.declared import Declared, Path, suggest
from worker.features.expressions import ExpressionError, parse

_KEYS = {"ring": "windows", "nothing": ""}
_ATTRIBUTES = {"windows": "window_ms", "half_life": "half_life_ms", "gap": "gap_ms", "last": "last"}
BEYOND = 3.0
"""Spreads from which on a value is an outlier, where nothing is said."""


class OptionsGrammar:
    """Reads what stands after an aggregation.

    That is the one thing of which there may be several, each a feature (``7d``, ``[1d, 7d]``, and
    for counts ``5``), or a mapping with more options, or a list of such mappings.
    """

    def __init__(self, declared: Declared) -> None:
        self._declared = declared

    def of(
        self,
        path: Path,
        kind: type[Aggregation],
        entity: str,
        value: Any,  # Any: raw YAML
    ) -> list[Options]:
        """Return the options of each feature; a problem for each that is wrong."""
        if isinstance(value, list) and any(isinstance(one, Mapping) for one in value):
            nested = enumerate(value)
            return [o for i, one in nested for o in self.of((*path, i), kind, entity, one)]
        key = _KEYS.get(kind.each, kind.each)
        if value is None or isinstance(value, Mapping):
            given, here = value or {}, (*path, key)
        elif not key and value != "last":
            self._declared.problem(path, "nothing, as in {}", value)
            return []
        else:
            given, here = {key: value} if key else {}, path
        common = self._common(path, kind, key, given)
        if not key:
            return [Options(**common)]
        if common.get("over") and (common.get("where") or common["include_current"]):
            self._declared.problem((*path, "over"), "neither where nor include_current", value)
        if common.get("over") and given.get(key) is None:
            self._declared.problem(
                (*path, key), "windows: what became known has no last events", None
            )
            return []
        sizes = self._sizes(here if key in given else path, kind, entity, given.get(key))
        return [Options(**{**common, _ATTRIBUTES[key]: size}) for size in sizes]

    def _common(
        self, path: Path, kind: type[Aggregation], key: str, given: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return the options that all features of one line share."""
        known = ([key] if key else []) + list(kind.options)
        if not known and given:
            self._declared.problem(path, "nothing, as in {}", dict(given))
        for name in given if known else ():
            if name not in known:
                expected = "one of " + ", ".join(known)
                self._declared.problem((*path, name), expected, name, suggest(name, known))
        found: dict[str, Any] = {"include_current": kind.include_current}
        if "beyond" in kind.options:
            found["beyond"] = BEYOND
        for name in given:
            if name in kind.options:
                reader = getattr(self, f"_{name}")
                found |= reader((*path, name), given[name])
        return found

    def _delay(self, path: Path, value: Any) -> dict[str, Any]:
        return {"delay_ms": self._declared.duration(path, value) or 0}

    def _include_current(self, path: Path, value: Any) -> dict[str, Any]:
        return {"include_current": self._flag(path, value)}

    def _over(self, path: Path, value: Any) -> dict[str, Any]:
        if value not in ("all", "genuine"):
            self._declared.problem(path, "all or genuine", value)
        elif value == "genuine" and self._declared.labels is None:
            hint = "labels: {} takes them from the topic labels"
            self._declared.problem(path, "a labels section: where truths come from", value, hint)
        return {"over": "genuine" if value == "genuine" else ""}

    def _robust(self, path: Path, value: Any) -> dict[str, Any]:
        return {"robust": self._flag(path, value)}

    def _where(self, path: Path, value: Any) -> dict[str, Any]:
        """Return a condition, spelled its one way."""
        expected = "a condition on the event, such as $amount > 100"
        if not isinstance(value, str):
            self._declared.problem(path, expected, value)
            return {}
        try:
            condition = parse(value, self._declared.schema)
        except ExpressionError as error:
            self._declared.problems.append(Problem(path, error.expected, error.got, error.hint))
            return {}
        if condition.kind != "boolean":
            self._declared.problem(path, expected, f"a {condition.kind}, {value}")
        return {"where": condition.canonical}

    def _beyond(self, path: Path, value: Any) -> dict[str, Any]:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e6:
            self._declared.problem(path, "a number of spreads above 0", value)
            return {}
        return {"beyond": float(value)}

    def _flag(self, path: Path, value: Any) -> bool:
        if not isinstance(value, bool):
            self._declared.problem(path, "true or false", value)
        return value is True

    def _sizes(self, path: Path, kind: type[Aggregation], entity: str, value: Any) -> list[int]:
        """Return the windows, durations or counts that there is a feature for each of."""
        if value is None and kind.each == "ring":
            return [0]
        if kind.each == "last":
            expected, single = "a list of numbers of events such as [3, 10]", isinstance(value, int)
        else:
            expected, single = "a list of durations such as [1d, 7d]", isinstance(value, str)
        if single:
            return [self._size(path, kind, entity, value) or 0]
        if not isinstance(value, list) or not value:
            self._declared.problem(path, expected, value)
            return []
        sizes: list[int] = []
        for i, item in enumerate(value):
            size = self._size((*path, i), kind, entity, item)
            if size is None:
                continue
            if size in sizes:
                self._declared.problem((*path, i), "each window once", item)
            sizes.append(size)
        return sizes

    def _size(self, path: Path, kind: type[Aggregation], entity: str, value: Any) -> int | None:
        if kind.each != "last":
            return self._declared.duration(path, value)
        ring = self._declared.entities[entity].ring
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= ring:
            self._declared.problem(path, f"a number of events from 1 to the ring's {ring}", value)
            return None
        return value
