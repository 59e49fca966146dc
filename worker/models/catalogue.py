"""From settings to models: presets, River's dotted paths, Python factories."""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any  # River's estimators have no common typed interface

from river import base, compose

from worker.contracts.metrics_settings import MetricsSettings
from worker.contracts.settings import DriftSettings, GuardSettings, ModelSettings, Settings
from worker.features.series_features import SUFFIX
from worker.models.calibration import Calibrator, Identity, Probability, Tail
from worker.models.checking import failure, said
from worker.models.drift import DETECTORS
from worker.models.paths import Builder, Path, near
from worker.models.presets import PRESETS
from worker.models.river_model import RiverModel, kind_of, takes_weight
from worker.models.series import EntityScore
from worker.models.twins import twin_of
from worker.models.versioned import Entry, Model, ModelSet

SOURCES = ("preset", "river", "factory")


def build_models(settings: Settings, feature_names: tuple[str, ...]) -> ModelSet:
    """Return the models of a configuration, none of which has learned anything.

    Raises
    ------
    ConfigError
        With every problem found in the section ``models``.
    """
    champion = settings.decision.model
    return build_model_set(
        settings.models, feature_names, settings.seed, champion, settings.drift, settings.guard,
        settings.metrics,
    )  # fmt: skip


def models_hash(settings: Settings, untaught: ModelSet) -> str:
    """Return a hash of all that says how models learn: with others the same log makes other models.

    That is settings, and the models that they made here: a preset or a factory may change.
    """
    parts = [{name: one.model_dump(mode="json")} for name, one in settings.models.items()]
    parts += [one.model_dump(mode="json") for one in settings.drift]
    parts += [one.model_dump(mode="json") for one in (settings.guard, settings.metrics)]
    said = [settings.seed, settings.decision.model, untaught.state_hash(), *parts]
    told = json.dumps(said, default=repr)
    return hashlib.sha256(told.encode()).hexdigest()


def check_models(settings: Settings, feature_names: tuple[str, ...] | None = None) -> None:
    """Check the sections ``models`` and ``drift``, without names of features as far as it goes.

    Raises
    ------
    ConfigError
        With every problem found.
    """
    builder, estimators = Builder(settings.seed), {}
    for name, one in settings.models.items():
        path = ("models", name)
        estimator = estimators[name] = _estimator(one, builder, path)
        _check_calibration(one, estimator, builder, (*path, "calibration", "kind"))
        if one.scope == "entity":
            continue
        if estimator is not None:
            _check_plain(estimator, name, settings, builder)
        if feature_names is not None:
            columns = _columns(one, feature_names, builder, (*path, "features"))
            names = _names(feature_names, columns)
            if estimator is not None and _has_features(estimator, names, builder, path):
                _try(estimator, names, one, builder, path)
    for i, watched in enumerate(settings.drift):
        _check_drift(watched, settings, estimators, builder, ("drift", i))
    builder.refuse()


def build_model_set(
    models: Mapping[str, ModelSettings],
    feature_names: tuple[str, ...],
    seed: int,
    champion: str | None = None,
    drift: Sequence[DriftSettings] = (),
    guard: GuardSettings | None = None,
    metrics: MetricsSettings | None = None,
) -> ModelSet:
    """Return models by name over the columns called `feature_names`; as `build_models`.

    The first one is the champion if none is named.

    Examples
    --------
    >>> settings = ModelSettings(river=({"preprocessing.MinMaxScaler": None},
    ...                                 {"anomaly.HalfSpaceTrees": {"n_trees": 5}}))
    >>> models = build_model_set({"forest": settings}, ("a", "b"), seed=7)
    >>> models.names, models.learns_from_events, models.learns_from_labels
    (('forest',), True, False)
    """
    builder = Builder(seed)
    entries = []
    for name, one in models.items():
        if one.scope == "entity":
            _estimator(one, builder, ("models", name))
            place = feature_names.index(name + SUFFIX)
            own = EntityScore()
            entries.append(Entry(name, own, (name + SUFFIX,), (place,), _calibrator(one, own)))
            continue
        columns = _columns(one, feature_names, builder, ("models", name, "features"))
        estimator = _estimator(one, builder, ("models", name))
        names = _names(feature_names, columns)
        _check_calibration(one, estimator, builder, ("models", name, "calibration", "kind"))
        if estimator is not None and _has_features(estimator, names, builder, ("models", name)):
            model = _model(estimator, names, one.compiled)
            calibrator = _calibrator(one, model)
            entries.append(Entry(name, model, names, columns, calibrator, one.negative_rate))
    builder.refuse()
    return ModelSet(tuple(entries), feature_names, champion, drift, guard, metrics)


def _check_drift(
    watched: DriftSettings, settings: Settings, estimators: Mapping[str, Any], builder: Builder,
    path: Path,
) -> None:  # fmt: skip
    """Note a model that is not there, parameters that the detector does not take, and what would be
    without effect.
    """
    if watched.model is not None and watched.model not in settings.models:
        hint = near(watched.model, settings.models)
        builder.note((*path, "model"), "the name of a model", repr(watched.model), hint)
    name = watched.model or settings.decision.model or next(iter(settings.models), "")
    acts_on, estimator = settings.models.get(name), estimators.get(name)
    if acts_on is not None and acts_on.scope == "entity" and watched.do != "alert":
        builder.note((*path, "do"), "alert", watched.do, "a model of scope entity learns by itself")
    elif watched.do == "raise_learning_rate" and not (estimator is None or _weighs(estimator)):
        builder.note((*path, "do"), "another action", watched.do, f"{name} takes no weights")
    unread = {
        "threshold": (watched.on == "features", "on: features"),
        "window": (watched.on == "features", "on: features"),
        "detector": (watched.on != "features", "on: score or error"),
        "params": (watched.on != "features", "on: score or error"),
        "factor": (watched.do == "raise_learning_rate", "do: raise_learning_rate"),
        "examples": (watched.do == "raise_learning_rate", "do: raise_learning_rate"),
    }
    for key, (is_read, where) in unread.items():
        if key in watched.model_fields_set and not is_read:
            builder.note((*path, key), f"{key} only with {where}", "it has no effect here")
    if watched.on != "features":
        builder.call(
            DETECTORS[watched.detector], watched.detector, watched.params, (*path, "params")
        )


def _weighs(estimator: Any) -> bool:
    return kind_of(estimator) == "classifier" and takes_weight(estimator)


def _check_plain(estimator: Any, name: str, settings: Settings, builder: Builder) -> None:
    """Note a model that has no plain form where one is needed."""
    resets = [one.model or name for one in settings.drift if one.do == "reset"]
    needed = "snapshots" if settings.snapshots is not None else "drift with do: reset"
    if settings.snapshots is None and name not in resets:
        return
    try:
        RiverModel(estimator).to_state()
    except TypeError as error:
        expected = f"a model whose state can be written down, for {needed}"
        builder.note(("models", name), expected, str(error))


def _try(
    estimator: Any, names: tuple[str, ...], settings: ModelSettings, builder: Builder, path: Path
) -> None:
    """Note an estimator that fails at every example, or whose twin can not be made.

    A twin is made of parameters that it can use, or there is none: it is not tried.
    """
    try:
        model = _model(estimator, names, settings.compiled)
    except Exception as error:  # a parameter of any type may fail in any way
        failed: str | None = said(error)
    else:
        failed = failure(estimator, names) if isinstance(model, RiverModel) else None
    if failed:
        source = next(one for one in SOURCES if getattr(settings, one) is not None)
        hint = "a parameter of a wrong type or range does this"
        builder.note((*path, source), "an estimator that learns and scores", failed, hint)


def _has_features(estimator: Any, names: tuple[str, ...], builder: Builder, path: Path) -> bool:
    """Return whether there are features, and all that a preset was told of; note what is not."""
    steps = estimator.steps.values() if isinstance(estimator, compose.Pipeline) else [estimator]
    wanted = [name for step in steps for name in getattr(step, "reads", ())]
    unknown = [name for name in wanted if name not in names]
    for name in unknown:
        expected = "the name of a feature of this model"
        builder.note((*path, "params"), expected, repr(name), near(str(name), names))
    return bool(names) and not unknown


def _model(estimator: Any, names: tuple[str, ...], is_compiled: bool) -> Model:
    twin = twin_of(estimator, names) if is_compiled else None
    return twin if twin is not None else RiverModel(estimator)


def _calibrator(settings: ModelSettings, model: Model) -> Calibrator:
    kind = settings.calibration.kind or ("probability" if model.learns_from_labels else "tail")
    if kind == "tail":
        return Tail(settings.calibration.window)
    if kind == "probability":
        # The only class weight that is known here; sampled negatives carry theirs in the examples,
        # which an estimator that takes no weights does not see.
        told = settings.params.get("weight_positive")  # of a factory it may be anything
        factor = float(told) if isinstance(told, int | float) else 1.0
        if isinstance(model, RiverModel) and not takes_weight(model.estimator):
            factor /= settings.negative_rate
        return Probability(settings.calibration.window, factor if factor > 0.0 else 1.0)
    return Identity()


def _check_calibration(
    settings: ModelSettings, estimator: Any, builder: Builder, path: Path
) -> None:
    if settings.negative_rate < 1.0 and kind_of(estimator) == "detector":
        place = (*path[:2], "negative_rate")
        builder.note(place, "a model that learns labels", "an anomaly detector")
    if settings.calibration.kind == "probability" and kind_of(estimator) == "detector":
        hint = "a detector never sees labels; tail or none"
        builder.note(path, "a model that learns labels", "an anomaly detector", hint)


def _columns(
    settings: ModelSettings, feature_names: tuple[str, ...], builder: Builder, path: Path
) -> tuple[int, ...] | None:
    """Return the columns of the features that a model reads; None for all of them."""
    wanted = settings.features
    if wanted is None:
        return None
    if not wanted:
        builder.note(path, "at least one feature", "none", "leave it out to use all")
    for i, name in enumerate(wanted):
        if name not in feature_names:
            builder.note((*path, i), "the name of a feature", repr(name), near(name, feature_names))
        elif name in wanted[:i]:
            builder.note((*path, i), "each feature once", f"{name!r} again")
    return tuple(feature_names.index(name) for name in wanted if name in feature_names)


def _names(feature_names: tuple[str, ...], columns: tuple[int, ...] | None) -> tuple[str, ...]:
    return feature_names if columns is None else tuple(feature_names[i] for i in columns)


def _estimator(settings: ModelSettings, builder: Builder, path: Path) -> Any | None:
    """Return the estimator a model declares, or None after noting why not."""
    given = [source for source in SOURCES if getattr(settings, source) is not None]
    if len(given) != 1:
        builder.note(path, "exactly one of preset, river, factory", " and ".join(given) or "none")
        return None
    source = (*path, given[0])
    makers: dict[str, Callable[[], Any]] = {
        "preset": lambda: _preset(settings, builder, source),
        "river": lambda: builder.pipeline(settings.river, settings.params, source),
        "factory": lambda: _factory(settings, builder, source),
    }
    estimator = makers[given[0]]()
    return estimator if estimator is None or _serves(estimator, builder, source) else None


def _preset(settings: ModelSettings, builder: Builder, path: Path) -> Any | None:
    name = str(settings.preset)
    if name not in PRESETS:
        hint = near(name, PRESETS) or f"there are {', '.join(sorted(PRESETS))}"
        builder.note(path, "the name of a preset", repr(name), hint)
        return None
    return builder.preset(PRESETS[name], name, settings.params, path)


def _factory(settings: ModelSettings, builder: Builder, path: Path) -> Any | None:
    module, _, name = str(settings.factory).partition(":")
    if not module or not name:
        hint = "for example detectors.cards:make"
        builder.note(path, "module:function", repr(settings.factory), hint)
        return None
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        builder.note(
            path, "module:function that can be imported", repr(settings.factory), str(error)
        )
        return None
    if not callable(function):
        builder.note(path, "a function", type(function).__name__)
        return None
    return builder.call(function, str(settings.factory), settings.params, path)


def _serves(estimator: Any, builder: Builder, path: Path) -> bool:
    """Return whether an estimator can score and learn here; note what it is otherwise."""
    if isinstance(estimator, base.Estimator) and kind_of(estimator) is not None:
        return True
    hint = "the last step decides; a regressor or a transformer gives no score of an event"
    expected = "a River classifier or anomaly detector"
    builder.note(path, expected, type(estimator).__name__, hint)
    return False


__all__ = [
    "PRESETS", "ModelSet", "build_model_set", "build_models", "check_models", "models_hash",
]  # fmt: skip
