"""Label aggregates of an entity, from the ``features`` section of a configuration."""

from __future__ import annotations

import re
from typing import Any

from worker.features.aggregations import Aggregation
from worker.features.aggregations.base import EXACT_TYPES
from worker.features.aggregations.labels import LABEL_AGGREGATIONS
from worker.features.declared import Path, suggest
from worker.features.feature import Feature
from worker.features.grammar_options import OptionsGrammar
from worker.features.label_feature import label_feature

_WEIGHT = re.compile(r"(1 *- *)?(?:(score)|raw:([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)?)|\$([A-Za-z_]\w*))")


class LabelGrammar(OptionsGrammar):
    """Reads label aggregates, such as ``terminal: {fraud_rate: {windows: [7d], delay: 7d}}``."""

    def features(
        self, path: Path, entity: str, name: str, fields: str | None, value: Any
    ) -> list[Feature]:  # Any: raw YAML
        """Return the features of one line; none where there are problems."""
        before = len(self._declared.problems)
        kind = LABEL_AGGREGATIONS[name]
        if self._declared.labels is None:
            hint = "labels: {} takes them from the topic labels"
            self._declared.problem(path, "a labels section: where truths come from", name, hint)
        if fields is not None:
            self._declared.problem(path, f"{name} without a field", f"{name}({fields})")
        options = self.of(path, kind, entity, value)
        if len(self._declared.problems) > before:
            return []
        return [label_feature(entity, kind, one, self._resolution(one.weight)) for one in options]

    def _sizes(self, path: Path, kind: type[Aggregation], entity: str, value: Any) -> list[int]:
        default = LABEL_AGGREGATIONS[kind.name].windows_ms
        return (
            list(default)
            if value is None and default
            else super()._sizes(path, kind, entity, value)
        )

    def _weight(self, path: Path, value: Any) -> dict[str, Any]:
        match = _WEIGHT.fullmatch(value.strip()) if isinstance(value, str) else None
        if match is None:
            expected = "score, raw:MODEL (or MODEL.HEAD), 1 - either, or a field such as $amount"
            self._declared.problem(path, expected, value)
            return {}
        less, score, model, field = match.groups()
        if model and model not in self._declared.scores:
            expected = "a declared model: " + ", ".join(self._declared.scores)
            hint = suggest(model, self._declared.scores, "raw:")
            self._declared.problem(path, expected, f"raw:{model}", hint)
        if field and not self._is_exact(path, field, bool(less)):
            return {}
        return {
            "weight": ("1 - " if less else "")
            + (score or f"raw_{model}" if not field else f"${field}")
        }

    def _is_exact(self, path: Path, name: str, less: bool) -> bool:
        field = self._declared.field(path, name, "$")
        if field is None:
            return False
        if less or field.type not in EXACT_TYPES:
            expected = "an integer, boolean or decimal field, as it is"
            got = f"1 - ${name}" if less else f"${name} of type {field.type}"
            self._declared.problem(path, expected, got)
            return False
        return self._declared.is_complete(name, field)

    def _prior(self, path: Path, value: Any) -> dict[str, Any]:
        return {"prior": self._number(path, "a rate from 0 to 1", value, 1.0)}

    def _strength(self, path: Path, value: Any) -> dict[str, Any]:
        return {"strength": self._number(path, "a number of events, 0 or more", value, 1e9)}

    def _number(self, path: Path, expected: str, value: Any, most: float) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
            self._declared.problem(path, expected, value)
            return 0.0
        return float(value)

    def _resolution(self, weight: str) -> float | None:
        """Return the unit of a weight: of scores a millionth."""
        if not weight:
            return None
        if not weight.startswith("$"):
            return 1e-6
        field = self._declared.fields[weight[1:]]
        return field.resolution if field.type == "decimal" else None
