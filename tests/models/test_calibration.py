"""Calibrated scores keep their meaning: a rate while models learn and data drift, a probability."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.contracts.decisions import UNTAUGHT
from worker.contracts.settings import ModelSettings
from worker.errors import ConfigError, StateLostError
from worker.models.calibration import Calibrator, Identity, Probability, Tail
from worker.models.catalogue import build_model_set

KINDS: dict[str, Any] = {
    "none": lambda: Identity(),
    "tail": lambda: Tail(1_000),
    "probability": lambda: Probability(1_000, 3.0),
}
Stream = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def stream(seed: int, n: int = 900) -> Stream:
    """Return raw scores, and as examples each of them observed at once and labelled later."""
    rng = np.random.default_rng(seed)
    raw = rng.random(n).round(3)
    y = (rng.random(n) < raw).astype(np.int8)
    before = np.concatenate([np.arange(1, n + 1), np.minimum(np.arange(n) + 40, n)])
    order = np.argsort(before, kind="stable")
    labels = np.concatenate([np.full(n, -1, np.int8), y])[order]
    return raw, np.tile(raw, 2)[order], labels, 1.0 + rng.random(2 * n), before[order]


def in_parts(calibrator: Calibrator, data: Stream, cuts: list[int]) -> np.ndarray:
    raw, learn_raw, y, weight, before = data
    out, done = [], 0
    for start, end in itertools.pairwise([0, *sorted(cuts), len(raw)]):
        stop = int(np.searchsorted(before, end, side="right"))
        part = slice(done, stop)
        out.append(
            calibrator.calibrate_learn(
                raw[start:end], learn_raw[part], y[part], weight[part], before[part] - start
            )
        )
        done = stop
    return np.concatenate(out)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 3), cuts=st.lists(st.integers(0, 900), max_size=6))
def test_any_cut_into_batches_gives_the_same(kind: str, seed: int, cuts: list[int]) -> None:
    """Scores and states do not depend on where batches end."""
    whole, parts = KINDS[kind](), KINDS[kind]()
    assert np.array_equal(in_parts(parts, stream(seed), cuts), in_parts(whole, stream(seed), []))
    assert parts.state_hash() == whole.state_hash()


@pytest.mark.parametrize("kind", KINDS)
def test_a_score_is_calibrated_before_its_own_example_is_learned(kind: str) -> None:
    """The last score does not change when its own example has another raw score and label."""
    raw, learn_raw, y, weight, before = stream(1)
    own = before > 899
    other = np.where(own, 1.0 - learn_raw, learn_raw)
    flipped = np.where(own & (y >= 0), 1 - y, y).astype(np.int8)
    a, b = KINDS[kind](), KINDS[kind]()
    first = a.calibrate_learn(raw, learn_raw, y, weight, before)
    again = b.calibrate_learn(raw, other, flipped, weight, before)
    assert np.array_equal(first, again)
    assert kind == "none" or a.state_hash() != b.state_hash()


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_state_goes_on_where_it_was(kind: str) -> None:
    """A calibrator restored from bytes is the same one, and foreign bytes are refused."""
    data = stream(2)
    made, restored = KINDS[kind](), KINDS[kind]()
    made.calibrate_learn(*data)
    restored.restore(made.to_bytes())
    assert restored.state_hash() == made.state_hash()
    assert np.array_equal(made.calibrate_learn(*data), restored.calibrate_learn(*data))
    with pytest.raises(StateLostError):
        restored.restore(b"RWX1" + bytes(100))


@pytest.mark.parametrize("kind", KINDS)
def test_examples_without_a_raw_score_or_weight_teach_nothing(kind: str) -> None:
    """What was served is unknown (NaN), or the label is only measured (weight 0)."""
    calibrator, before = KINDS[kind](), KINDS[kind]().state_hash()
    raw = np.concatenate([np.full(600, np.nan), np.full(300, 0.5)])
    y = np.concatenate([np.tile([-1, 0, 1], 200), np.tile([0, 1], 150)]).astype(np.int8)
    weight = np.concatenate([np.ones(600), np.zeros(300)])
    calibrator.calibrate_learn(np.empty(0), raw, y, weight, np.zeros(900, np.int64))
    assert calibrator.state_hash() == before


@pytest.mark.parametrize("kind", ["tail", "probability"])
@given(seed=st.integers(0, 9))
@settings(max_examples=10, deadline=None)
def test_the_order_of_scores_stays(kind: str, seed: int) -> None:
    """At one version a larger raw score never has the smaller calibrated one."""
    calibrator = KINDS[kind]()
    data = stream(seed)
    calibrator.calibrate_learn(np.empty(0), *data[1:4], np.zeros(1_800, np.int64))
    raw = np.sort(np.random.default_rng(seed).random(500))
    none = (np.empty(0), np.empty(0, np.int8), np.empty(0), np.empty(0, np.int64))
    out = calibrator.calibrate_learn(raw, *none)
    assert (np.diff(out) >= 0).all()
    assert ((out >= 0) & (out <= 1)).all()


def drifting(n: int, seed: int, features: int = 6) -> np.ndarray:
    """Return events whose level and spread drift steadily and jump once, half way."""
    rng = np.random.default_rng(seed)
    t = np.linspace(0.0, 1.0, n)[:, None]
    level = 4.0 * t + 3.0 * (t > 0.5)
    return level + (1.0 + t) * rng.normal(size=(n, features))


RATES = [
    ("half_space_trees", ModelSettings(preset="half_space_trees"), 0.99),
    ("half_space_trees", ModelSettings(preset="half_space_trees"), 0.98),
    ("logistic", ModelSettings(preset="logistic", calibration="tail"), 0.99),
    ("logistic", ModelSettings(preset="logistic", calibration="tail"), 0.98),
]


@pytest.mark.parametrize(("name", "declared", "threshold"), RATES)
def test_a_threshold_means_the_same_tomorrow(
    name: str, declared: ModelSettings, threshold: float
) -> None:
    """A tail score at its threshold alerts at its rate, within a fifth, from the first event on:
    while the model learns from nothing, and while the data drift.
    """
    n, size = 60_000, 500
    X = drifting(n, 7)
    names = tuple(f"f{i}" for i in range(X.shape[1]))
    models = build_model_set({"m": declared}, names, seed=1)
    truth = (X[:, 0] - X[:, 1] > 2.5).astype(np.int8)
    scores = []
    for start in range(0, n, size):
        part = slice(start, start + size)
        before = np.repeat(np.arange(1, size + 1), 2)
        learn_X = np.repeat(X[part], 2, axis=0)
        y = np.stack([np.full(size, -1, np.int8), truth[part]], axis=1).ravel()
        weight = np.ones(2 * size)
        raw = models.score_learn(X[part], learn_X, y, weight, before)
        learn_raw = np.repeat(raw, 2, axis=0)
        scores.append(models.calibrate_learn(raw, learn_raw, y, weight, before)[:, 0])
    alerts = np.concatenate(scores) >= threshold
    assert math.isclose(alerts[: n // 3].mean(), 1 - threshold, rel_tol=0.2)
    assert math.isclose(alerts.mean(), 1 - threshold, rel_tol=0.2)


def chances(n: int, seed: int, base: float = -4.0) -> tuple[np.ndarray, np.ndarray]:
    """Return true probabilities and what came of them."""
    rng = np.random.default_rng(seed)
    chance = 1 / (1 + np.exp(-rng.normal(base, 1.5, n)))
    return chance, (rng.random(n) < chance).astype(np.int8)


def error(out: np.ndarray, chance: np.ndarray) -> float:
    """Return the calibration error over ten equal groups, as a share of the mean probability."""
    groups = np.array_split(np.argsort(out, kind="stable"), 10)
    return sum(abs(out[g].mean() - chance[g].mean()) for g in groups) / 10 / chance.mean()


WRONG = {
    "right already": lambda p: p,
    "class weight 20": lambda p: 20 * p / (1 - p + 20 * p),
    "too sure": lambda p: p**2 / (p**2 + (1 - p) ** 2),
    "never low": lambda p: p**0.3,
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_probability_is_put_right_by_labels(wrong: str) -> None:
    """Whatever map the raw scores went through, 30,000 labels undo it to a tenth."""
    chance, y = chances(60_000, 3)
    raw, n = WRONG[wrong](chance), len(chance)
    out = Probability(10_000).calibrate_learn(raw, raw, y, np.ones(n), np.arange(1, n + 1))
    assert error(out[30_000:], chance[30_000:]) < 0.1


def test_sampled_negatives_do_not_raise_the_probability() -> None:
    """One negative in twenty with twenty times the weight teaches what all of them would."""
    chance, y = chances(60_000, 4)
    kept = (y == 1) | (np.random.default_rng(5).random(len(y)) < 0.05)
    weight = np.where(y == 1, 1.0, 20.0)
    before = np.arange(1, len(y) + 1)
    out = Probability(10_000).calibrate_learn(
        chance, chance[kept], y[kept], weight[kept], before[kept]
    )
    assert error(out[30_000:], chance[30_000:]) < 0.15


def test_class_weights_are_undone_before_any_label() -> None:
    """A model that counts positives five times starts with a fifth of the odds."""
    models = build_model_set(
        {"m": ModelSettings(preset="logistic", params={"weight_positive": 5.0})}, ("a",), seed=0
    )
    raw = np.array([[0.5], [5 / 6]])
    told = (np.full((102, 1), 0.5), np.tile([0, 1], 51).astype(np.int8), np.full(102, 1e-9))
    models.calibrate_learn(raw[:0], *told, np.zeros(102, np.int64))
    assert np.allclose(models.calibrate(raw)[:, 0], [1 / 6, 0.5])


def test_before_100_labels_nothing_is_known() -> None:
    """A model that has learned nothing would seem to know much: its 0.5 is no even chance."""
    labels = [0, 50, 100, 101, 200]  # the first class alone does not count
    y, told = np.tile([0, 1], 100).astype(np.int8), np.full(200, 1e-9)  # the map stays as it was
    out = Probability(10_000, 5.0).calibrate_learn(
        np.full(5, 0.9), np.full(200, 0.5), y, told, np.searchsorted(labels, np.arange(1, 201))
    )
    assert out[:3].tolist() == [UNTAUGHT] * 3
    odds = 9 / 5
    assert np.allclose(out[3:], odds / (1.0 + odds), rtol=1e-6)


@pytest.mark.parametrize("first", [0, 1])
def test_labels_of_one_class_teach_nothing_until_the_other_comes(first: int) -> None:
    """However many: then it begins as if they had not been."""
    early, late = Probability(10_000), Probability(10_000)
    rng = np.random.default_rng(first)
    raw, y = rng.random(400), np.concatenate([[1 - first], rng.integers(0, 2, 399)]).astype(np.int8)
    one = np.full(5_000, first, np.int8)
    for calibrator, count in ((early, 1), (late, 5_000)):
        told = np.concatenate([np.full(count, 0.9), raw]), np.concatenate([one[:count], y])
        n = len(told[0])
        out = calibrator.calibrate_learn(
            np.array([0.3, 0.9]), *told, np.ones(n), np.where(np.arange(n) < count, 1, 2)
        )
        assert out.tolist() == [UNTAUGHT] * 2
    assert early.to_bytes() == late.to_bytes()
    none = (np.empty(0), np.empty(0, np.int8), np.empty(0), np.empty(0, np.int64))
    assert 0.3 < late.calibrate_learn(np.array([0.5]), *none)[0] < 0.7


def test_the_kind_follows_from_what_the_model_learns() -> None:
    """Probability where labels teach, tail where events do, none where it is asked for."""
    declared = {
        "a": ModelSettings(preset="logistic"),
        "b": ModelSettings(preset="half_space_trees"),
        "c": ModelSettings(preset="logistic", calibration={"kind": "none"}),
    }
    models = build_model_set(declared, ("x",), seed=0, champion="b")
    raw = np.array([[0.4, 0.4, 0.4]])
    assert models.calibrate(raw)[0].round(9).tolist() == [1e-6, 0.0, 0.4]
    assert (models.champion, models.champion_name) == (1, "b")


def test_a_tail_score_makes_every_event_an_example() -> None:
    """A supervised model with a tail needs the scores of events without labels too."""
    one = {"m": ModelSettings(preset="logistic")}
    assert not build_model_set(one, ("x",), seed=0).learns_from_events
    one = {"m": ModelSettings(preset="logistic", calibration="tail")}
    assert build_model_set(one, ("x",), seed=0).learns_from_events


def test_a_probability_needs_labels() -> None:
    """A detector cannot be calibrated to a probability; the place and the remedy are named."""
    declared = ModelSettings(preset="half_space_trees", calibration="probability")
    with pytest.raises(ConfigError) as caught:
        build_model_set({"m": declared}, ("x",), seed=0)
    [problem] = caught.value.problems
    assert problem.path == ("models", "m", "calibration", "kind")
