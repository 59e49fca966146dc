"""Features of an entity's history, from the ``features`` section of a configuration."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from worker.contracts.settings import FieldSettings
from worker.features.aggregations import AGGREGATIONS, Aggregation, Field
from worker.features.aggregations.labels import LABEL_AGGREGATIONS
from worker.features.declared import Declared, Path, resolution_of, suggest
from worker.features.feature import Feature, history_feature
from worker.features.grammar_labels import LabelGrammar
from worker.features.grammar_options import OptionsGrammar

_AGGREGATION = re.compile(r"([A-Za-z_]\w*)(?:\(\s*([^()]*?)\s*\))?")


class HistoryGrammar:
    """Reads the aggregations of an entity, such as ``card: {count: [1d, 7d]}``."""

    def __init__(self, declared: Declared) -> None:
        self._declared = declared
        self._options = OptionsGrammar(declared)
        self._labels = LabelGrammar(declared)

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
        self, path: Path, entity: str, key: Any, value: Any
    ) -> list[Feature]:  # Any: raw YAML
        match = _AGGREGATION.fullmatch(key.strip()) if isinstance(key, str) else None
        if match is None:
            self._declared.problem(path, "an aggregation such as count or mean(amount)", key)
            return []
        if match[1] in LABEL_AGGREGATIONS:
            return self._labels.features(path, entity, match[1], match[2], value)
        kind = AGGREGATIONS.get(match[1])
        if kind is None:
            known = [*AGGREGATIONS, *LABEL_AGGREGATIONS]
            expected = "one of " + ", ".join(known)
            self._declared.problem(path, expected, match[1], suggest(match[1], known))
            return []
        before = len(self._declared.problems)
        fields = self._fields(path, kind, match[2])
        options = self._options.of(path, kind, entity, value)
        if len(self._declared.problems) > before:
            return []
        resolution = resolution_of(self._declared.fields[fields[0].name]) if fields else None
        return [history_feature(entity, kind, fields, one, resolution) for one in options]

    def _fields(self, path: Path, kind: type[Aggregation], text: str | None) -> list[Field]:
        """Return the declared fields that an aggregation is of, those that may be."""
        names = [name.strip() for name in (text or "").split(",") if name.strip()]
        if not kind.field_count:
            if text is not None:
                self._declared.problem(path, f"{kind.name} without a field", f"{kind.name}({text})")
            return []
        if len(names) != kind.field_count:
            example = "amount" if kind.field_count == 1 else "latitude, longitude"
            what = "a field" if kind.field_count == 1 else f"{kind.field_count} fields"
            got = kind.name if text is None else f"{kind.name}({text})"
            self._declared.problem(path, f"{what}, as in {kind.name}({example})", got)
            return []
        fields = [(name, self._field(path, kind, name)) for name in names]
        return [
            Field(name, field.type, field.optional) for name, field in fields if field is not None
        ]

    def _field(self, path: Path, kind: type[Aggregation], name: str) -> FieldSettings | None:
        field = self._declared.field(path, name, "")
        if field is None:
            return None
        if field.type in kind.types:
            return field if self._declared.is_complete(name, field) else None
        exact = field.type == "float" and "decimal" in kind.types
        hint = "declare it as decimal with a resolution" if exact else ""
        expected = f"{_one_of(kind.types)} field"
        self._declared.problem(path, expected, f"{name} of type {field.type}", hint)
        return None


def _one_of(types: tuple[str, ...]) -> str:
    """Return types as words.

    >>> _one_of(("integer", "boolean", "decimal"))
    'an integer, boolean or decimal'
    """
    words = " or ".join([", ".join(types[:-1]), types[-1]] if len(types) > 1 else types)
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"
