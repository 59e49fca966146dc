"""The column of x that a model of ``scope: entity`` writes: its score."""

from __future__ import annotations

import json
from collections.abc import Sequence

from worker.contracts.settings import ModelSettings, Settings
from worker.errors import Problem
from worker.features.declared import suggest
from worker.features.feature import Feature, SeriesOf
from worker.features.label_view import is_of_labels

SUFFIX = "_series"


def series_features(
    settings: Settings, features: Sequence[Feature]
) -> tuple[list[Feature], list[Problem]]:
    """Return a feature per model of ``scope: entity``, and what is wrong with what it reads.

    Its series is made of features of the row and of the entity's own history only: what is kept
    elsewhere, or becomes known later, is not at hand when the state is rebuilt.
    """
    found, problems = [], []
    names = {feature.name: feature for feature in features}
    for model, one in settings.models.items():
        if one.scope == "log" or one.entity is None or not one.features:
            continue
        for i, name in enumerate(one.features):
            path = ("models", model, "features", i)
            if name not in names:
                hint = suggest(name, names)
                problems.append(Problem(path, "the name of a feature", repr(name), hint))
            elif not _is_own(names[name], one.entity):
                expected = f"a feature of the event or of its {one.entity}'s history"
                problems.append(Problem(path, expected, repr(name)))
        if model + SUFFIX in names:
            expected, got = f"a name without a feature {model}{SUFFIX}", repr(model)
            problems.append(Problem(("models", model), expected, got))
        found.append(_feature(model, one, one.entity, one.features))
    return found, problems


def _is_own(feature: Feature, entity: str) -> bool:
    return feature.entity is None or (feature.entity == entity and not is_of_labels(feature))


def _feature(model: str, one: ModelSettings, entity: str, features: tuple[str, ...]) -> Feature:
    words = f"how unusual {' or '.join(features)} is for this {entity}"
    params = json.dumps(one.params, sort_keys=True, default=str)
    return Feature(
        model + SUFFIX, "series", words, series=SeriesOf(model, entity, features, params)
    )
