"""What the section ``decision`` must say beyond the types of its keys."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

from worker.config_problems import near, shown
from worker.contracts.settings import ListSettings, Settings
from worker.errors import Problem

SEVERITIES = ("low", "medium", "high", "critical")
_MEASURES = ("threshold", "alert_rate", "alerts_per_day")
_LISTED = ("string", "integer", "category")


def decision_problems(settings: Settings) -> Iterator[Problem]:
    """Yield what contradicts itself or names what is not there."""
    decision = settings.decision
    if decision.model not in settings.models:
        hint = near(decision.model, settings.models)
        yield Problem(("decision", "model"), "the name of a model", shown(decision.model), hint)
    given = [name for name in _MEASURES if getattr(decision, name) is not None]
    if len(given) != 1:
        expected = "exactly one of threshold, alert_rate and alerts_per_day"
        yield Problem(("decision",), expected, " and ".join(given) or "none")
    if decision.threshold is not None and not math.isfinite(decision.threshold):
        yield Problem(("decision", "threshold"), "a finite number", shown(decision.threshold))
    yield from _severity(settings)
    yield from _entities(settings)
    for kind in ("allow", "block"):
        for i, one in enumerate(getattr(decision, kind)):
            yield from _list(settings, ("decision", kind, i), one)


def _severity(settings: Settings) -> Iterator[Problem]:
    severity = settings.decision.severity
    given = [level for level in SEVERITIES if level in severity]
    for lower, upper in itertools.pairwise(given):
        # Not "less than": NaN must not pass.
        if not severity[upper] > severity[lower]:
            expected = f"more than {lower}, {severity[lower]:g}"
            yield Problem(("decision", "severity", upper), expected, f"{severity[upper]:g}")


def _entities(settings: Settings) -> Iterator[Problem]:
    for name in ("suppress", "incidents"):
        section = getattr(settings.decision, name)
        if section is not None and section.entity not in settings.entities:
            hint = near(section.entity, settings.entities)
            path = ("decision", name, "entity")
            yield Problem(path, "the name of an entity", shown(section.entity), hint)


def _list(settings: Settings, path: tuple[str | int, ...], one: ListSettings) -> Iterator[Problem]:
    declared = settings.events.fields.get(one.field)
    if one.field not in settings.entities:
        if declared is None:
            known = [*settings.entities, *settings.events.fields]
            hint = near(one.field, known)
            yield Problem((*path, "field"), "an entity or a field", shown(one.field), hint)
        elif declared.type not in _LISTED:
            expected = f"a field of type {' or '.join(_LISTED)}"
            yield Problem((*path, "field"), expected, f"{one.field}: {declared.type}")
    if not one.values and one.file is None:
        yield Problem(path, "values or a file", "neither")
    if declared is not None and declared.type == "integer" and one.field not in settings.entities:
        for value in one.values:
            if not str(value).lstrip("-").isdigit():
                yield Problem((*path, "values"), "integers", shown(value))
    if declared is not None and declared.type == "category":
        for value in one.values:
            if str(value) not in (declared.values or ()):
                hint = near(str(value), declared.values or ())
                yield Problem((*path, "values"), f"known values of {one.field}", shown(value), hint)
