"""Every preset as a configuration declares it, small enough for tests; found, not listed."""

from __future__ import annotations

from typing import Any

from worker.contracts.settings import ModelSettings
from worker.models.catalogue import PRESETS

NAMES = ("a", "b", "c")

# What a preset must be told, and sizes that a short stream fills. A preset that is not here is
# declared by its name alone.
PARAMS: dict[str, dict[str, Any]] = {
    "binned_logistic": {"bins": 4, "warm_up": 30, "crosses": [["a", "c"]]},
    "blend": {"models": ["logistic", {"naive_bayes.GaussianNB": None}]},
    "adaptive_forest": {"n_trees": 2},
    "causes": {"heads": {"card": ["a", "c"], "terminal": ["b", "c"]}, "bins": 4, "warm_up": 30},
    "half_space_trees": {"window_size": 10, "height": 4},
    "mahalanobis": {"warm_up": 40},
    "series": {"warm_up": 20, "window": 50},
}


def declared(preset: str, **words: Any) -> ModelSettings:
    """Return a preset's settings over features called a, b and c."""
    return ModelSettings(preset=preset, params=PARAMS.get(preset, {}), **words)


def every_preset() -> dict[str, ModelSettings]:
    """Return all presets by name, each compiled where it can be, and once more as River runs it."""
    found = {name: declared(name) for name in PRESETS}
    found["half_space_trees, range"] = ModelSettings(
        preset="half_space_trees", params={**PARAMS["half_space_trees"], "scaling": "range"}
    )
    return found | {f"{name}, River": declared(name, compiled=False) for name in PRESETS}
