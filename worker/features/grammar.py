"""From the ``features`` section of a configuration to features, with every mistake on the way."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from worker.contracts.settings import Settings
from worker.contracts.target_means import is_target_mean
from worker.errors import Problem
from worker.features.declared import Declared, Path, suggest
from worker.features.expressions import Schema
from worker.features.feature import Feature
from worker.features.grammar_history import HistoryGrammar
from worker.features.grammar_rows import RowGrammar
from worker.features.grammar_targets import target_means

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Grammar:
    """Reads a ``features`` section; ``problems`` grows while it goes on."""

    def __init__(self, settings: Settings) -> None:
        self._section = settings.features
        self._declared = Declared(settings)
        self._rows = RowGrammar(self._declared)
        self._history = HistoryGrammar(self._declared)

    @property
    def problems(self) -> list[Problem]:
        """Return every mistake that was found so far."""
        return self._declared.problems

    @property
    def schema(self) -> Schema:
        """Return what expressions may be about."""
        return self._declared.schema

    def parse(self) -> list[Feature]:
        """Return the features in the order of the file; incomplete where there are problems."""
        found: list[Feature] = []
        for name, value in self._section.items():
            features = self._item(("features", name), name, value)
            for feature in features:
                if any(feature.name == other.name for other in found):
                    hint = f"{feature.name} is declared twice"
                    self._declared.problem(
                        ("features", name), "features of different names", value, hint
                    )
            found += features
        if not self._section:
            self._declared.problem(("features",), "at least one feature", self._section)
        return found

    def _item(self, path: Path, name: str, value: Any) -> list[Feature]:  # Any: raw YAML
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            self._declared.problem(path, "a name of letters, digits and _", name)
            return []
        if is_target_mean(value):
            return target_means(self._declared, path, name, value)
        if name in self._declared.entities:
            return self._history.features(path, name, value)
        if isinstance(value, str):
            return self._rows.features(path, name, value)
        hint = suggest(name, self._declared.entities) if isinstance(value, Mapping) else ""
        names = ", ".join(self._declared.entities)
        expected = f"an expression such as $amount, or the name of an entity ({names})"
        self._declared.problem(path, expected, name if isinstance(value, Mapping) else value, hint)
        return []
