"""What every part of the ``features`` grammar shares: the declared fields, and the problems."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from worker.contracts.settings import FieldSettings, ModelSettings, Settings, parse_duration
from worker.errors import Problem
from worker.features.expressions import Schema
from worker.features.expressions.zones import zone_names, zone_of

Path = tuple[str | int, ...]

SIZE_MAX_MS = 366 * 86_400_000
"""Longest window, and longest delay: positions and sums stay far from 63 bits."""


def score_names(models: Mapping[str, ModelSettings]) -> list[str]:
    """Return the models, and ``MODEL.HEAD`` of those that declare heads: what has a raw score."""
    heads = [
        f"{name}.{head}"
        for name, model in models.items()
        if isinstance(model.params.get("heads"), dict)
        for head in model.params["heads"]
    ]
    return [*models, *heads]


class Declared:
    """The fields and entities of a configuration; ``problems`` grows while features are read."""

    def __init__(self, settings: Settings) -> None:
        self.problems: list[Problem] = []
        self.fields = settings.events.fields
        self.entities = settings.entities
        self.schema = Schema(self.fields, settings.events.time.field, self._zone(settings))
        self.labels = settings.labels
        self.scores = score_names(settings.models)

    def _zone(self, settings: Settings) -> str:
        name = settings.events.timezone
        try:
            return zone_of(name).name
        except LookupError:
            hint = suggest(name, zone_names())
            self.problem(("events", "timezone"), "a time zone such as Europe/Paris", name, hint)
            return "UTC"

    def field(self, path: Path, name: str, sign: str) -> FieldSettings | None:
        """Return a declared field; a problem and None where there is none of that name."""
        field = self.fields.get(name)
        if field is None:
            hint = suggest(name, self.fields, sign)
            if name == "time":
                hint = "the event time is for calls such as hour($time)"
            self.problem(path, "a declared field", sign + name, hint)
        return field

    def is_complete(self, name: str, field: FieldSettings) -> bool:
        """Return whether the field declares what its features need; a problem where it does not."""
        path: Path = ("events", "fields", name)
        if field.type == "decimal" and not field.resolution:
            self.once((*path, "resolution"), "the unit of its integers, such as 0.01", None)
            return False
        if field.type == "category" and not field.values:
            self.once((*path, "values"), "the known values", None)
            return False
        return True

    def duration(self, path: Path, value: Any) -> int | None:  # Any: raw YAML
        """Return a duration in ms; a problem and None where it is none, or out of bounds."""
        try:
            duration_ms = parse_duration(value)
        except ValueError as error:
            self.problem(path, str(error), value)
            return None
        if not 1_000 <= duration_ms <= SIZE_MAX_MS:
            self.problem(path, "a duration from 1s to 366d", value)
            return None
        return duration_ms

    def once(self, path: Path, expected: str, got: Any) -> None:  # Any: raw YAML
        """Add a problem unless its place has one."""
        if all(problem.path != path for problem in self.problems):
            self.problem(path, expected, got)

    def problem(self, path: Path, expected: str, got: Any, hint: str = "") -> None:  # Any: YAML
        """Add a problem."""
        self.problems.append(Problem(path, expected, _shown(got), hint))


def resolution_of(field: FieldSettings) -> float | None:
    """Return the unit of a decimal; None for every other type."""
    return field.resolution if field.type == "decimal" else None


def _shown(got: Any) -> str:  # Any: raw YAML
    text = "nothing" if got is None else repr(got)
    return text if len(text) <= 80 else text[:77] + "..."


def suggest(name: Any, known: Iterable[str], sign: str = "") -> str:  # Any: raw YAML
    """Return a hint with the nearest known name, or nothing.

    >>> suggest("conut", ["count", "mean"]), suggest("x", ["count"])
    ('did you mean count?', '')
    """
    near = get_close_matches(str(name), list(known), n=1)
    return f"did you mean {sign}{near[0]}?" if near else ""
