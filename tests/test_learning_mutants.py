"""One rule of learning broken at a time: the comparison with plain loops must notice each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from river import anomaly, linear_model, optim, preprocessing

import worker.shard
from tests import worlds
from tests.models.test_river_equality import CLASSIFIERS
from tests.test_calibrated_scores import inline, one_by_one
from worker.features.spec import compile_features
from worker.learning import Walk
from worker.models.calibration import Probability, Tail
from worker.models.forest_twin import ForestTwin
from worker.models.versioned import ModelSet
from worker.shard import Result

RANGE = {"preset": "half_space_trees", "params": {"scaling": "range"}}
LATE = 10
"""A label comes so many events after its own, as `inline` has it."""


def compare_with_plain_loops() -> None:
    """Run a stream through a shard; AssertionError where plain loops of River say another thing."""
    models = {"fraud": {"preset": "logistic"}, "odd": RANGE}
    config = worlds.settings(models=models, decision={"model": "odd", "threshold": 0.9})
    stream = [{**event, "id": f"e{i}"} for i, event in enumerate(worlds.events(600))]
    [result] = inline([], stream, config)
    assert result.raw.tolist() == river_scores(result, [e["amount"] > 700 for e in stream])
    for column, calibrator in enumerate((Probability(10_000), Tail(10_000))):
        assert one_by_one(calibrator, result, column) == result.calibrated[:, column].tolist()


def river_scores(result: Result, frauds: list[bool]) -> list[list[float]]:
    """Return the scores of both models, as a user of River writes the loop."""
    names = compile_features(worlds.settings()).names
    rows = [dict(zip(names, x, strict=True)) for x in result.X.tolist()]
    fraud = preprocessing.StandardScaler() | linear_model.LogisticRegression(optim.SGD(0.01))
    odd = preprocessing.MinMaxScaler() | anomaly.HalfSpaceTrees(seed=0)
    scores = []
    for i, x in enumerate(rows):
        if i >= LATE:
            fraud.learn_one(rows[i - LATE], frauds[i - LATE])
        scores.append([fraud.predict_proba_one(x)[True], float(odd.score_one(x))])
        odd.learn_one(x)
    return scores


def observed_one_early(with_observed: Any) -> Any:
    def early(join: Any, part: Any) -> Any:
        made = with_observed(join, part)
        made.examples.before[made.examples.y < 0] -= 1
        return made

    return early


def labels_one_early(go: Any) -> Any:
    def leaking(self: Walk, labels: Any, before: Any, *here: Any) -> None:
        go(self, labels, np.maximum(before - 1, 0), *here)

    return leaking


def calibrated_one_late(calibrate_learn: Any) -> Any:
    def seeing(self: ModelSet, raw: Any, learn_raw: Any, y: Any, weight: Any, before: Any) -> Any:
        return calibrate_learn(self, raw, learn_raw, y, weight, np.maximum(before - 1, 0))

    return seeing


def threshold_drawn_first(draws: Any) -> Any:
    def swapped(self: ForestTwin, inner_nodes: int) -> Any:
        return draws(self, inner_nodes).reshape(-1, 2)[:, ::-1].reshape(-1).copy()

    return swapped


MUTANTS: dict[str, tuple[Any, str, Callable[[Any], Any]]] = {
    "learn before score": (worker.shard, "with_observed", observed_one_early),
    "label leaks by one position": (Walk, "go", labels_one_early),
    "calibrator sees a score before it is served": (
        ModelSet, "calibrate_learn", calibrated_one_late,
    ),
    "twin with another order of draws": (ForestTwin, "_draws", threshold_drawn_first),
}  # fmt: skip


def test_a_shard_scores_learns_and_calibrates_as_plain_loops_do() -> None:
    """The comparison holds for the code as it is."""
    compare_with_plain_loops()


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_shard_with_any_estimator_scores_as_its_plain_loop_does(name: str) -> None:
    """Over its features, with labels that come ten events later: float for float."""
    declared, make = CLASSIFIERS[name]
    config = worlds.settings(seed=11, models={"fraud": declared})
    stream = [{**event, "id": f"e{i}"} for i, event in enumerate(worlds.events(400))]
    [result] = inline([], stream, config)
    rows = [dict(zip(compile_features(config).names, x, strict=True)) for x in result.X.tolist()]
    model, expected = make(), []
    for i, x in enumerate(rows):
        if i >= LATE:
            model.learn_one(rows[i - LATE], stream[i - LATE]["amount"] > 700)
        expected.append(float(model.predict_proba_one(x).get(True, 0.0)))
    assert result.raw[:, 0].tolist() == expected
    assert len(set(expected)) > 40


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_broken_rule_is_noticed(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each mutant makes the comparison fail."""
    owner, name, make = MUTANTS[mutant]
    monkeypatch.setattr(owner, name, make(getattr(owner, name)))
    with pytest.raises(AssertionError):
        compare_with_plain_loops()
