"""The set of models: one order of learning however batches fall, and guards that replicas share."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from river import base

from tests.models.declared import NAMES, declared, every_preset
from worker.contracts.settings import ModelSettings
from worker.models.catalogue import build_model_set
from worker.models.river_model import RiverModel
from worker.models.versioned import Entry, ModelSet

DECLARED = {
    "linear": declared("logistic"),
    "forest": declared("half_space_trees"),
    "bayes": ModelSettings(river="naive_bayes.GaussianNB"),
    "narrow": ModelSettings(preset="logistic", features=("c", "a"), compiled=False),
}
EVERY = DECLARED | every_preset()
Stream = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def build(**told: ModelSettings) -> ModelSet:
    return build_model_set(told or DECLARED, NAMES, seed=3)


def stream(seed: int, n: int = 60, m: int = 80) -> Stream:
    rng = np.random.default_rng(seed)
    X, learn_X = rng.normal(size=(n, 3)), rng.normal(size=(m, 3))
    y = rng.integers(-1, 2, m).astype(np.int8)
    return X, learn_X, y, np.ones(m), np.sort(rng.integers(0, n + 1, m)).astype(np.int64)


def in_parts(models: ModelSet, data: Stream, cuts: list[int]) -> np.ndarray:
    """Score and learn the stream in batches; an example due at a cut goes with the batch before."""
    X, learn_X, y, weight, before = data
    edges = [0, *sorted(cuts), len(X)]
    scores, done = [], 0
    for start, end in itertools.pairwise(edges):
        stop = int(np.searchsorted(before, end, side="right"))
        part = slice(done, stop)
        scores.append(
            models.score_learn(
                X[start:end], learn_X[part], y[part], weight[part], before[part] - start
            )
        )
        done = stop
    return np.concatenate(scores)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 5), cuts=st.lists(st.integers(0, 60), max_size=12))
def test_any_cut_into_batches_gives_the_same(seed: int, cuts: list[int]) -> None:
    """Scores and states do not depend on where batches end, empty batches included."""
    whole, parts = build(), build()
    assert (
        in_parts(parts, stream(seed), cuts).tobytes() == in_parts(whole, stream(seed), []).tobytes()
    )
    assert parts.state_hash() == whole.state_hash()


@pytest.mark.parametrize("name", EVERY)
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 5), cuts=st.lists(st.integers(0, 60), max_size=6))
def test_no_model_knows_where_batches_end(name: str, seed: int, cuts: list[int]) -> None:
    """Each preset alone, compiled and not: scores and state are those of one batch."""
    whole, parts = build(m=EVERY[name]), build(m=EVERY[name])
    data = stream(seed, 60, 120)
    assert in_parts(parts, data, cuts).tobytes() == in_parts(whole, data, []).tobytes()
    assert parts.state_hash() == whole.state_hash()


def test_scoring_alone_changes_no_state() -> None:
    """A replica that scored and one that only replayed the log have the same hash."""
    X, learn_X, y, weight, _ = stream(1)
    scored, replayed = build(), build()
    scored.score(X)
    for models in (scored, replayed):
        models.learn(learn_X, y, weight)
    scored.score(X)
    assert scored.state_hash() == replayed.state_hash() != build().state_hash()
    assert scored.score(X).tobytes() == replayed.score(X).tobytes()


@pytest.mark.parametrize("name", EVERY)
def test_one_more_example_changes_the_hash(name: str) -> None:
    """The hash sees a single example of the kind that the model learns."""
    models = build(m=EVERY[name])
    before = models.state_hash()
    label = 1 if models.learns_from_labels else -1
    models.learn(np.ones((1, 3)), np.array([label], np.int8), np.ones(1))
    assert models.state_hash() != before


@pytest.mark.parametrize("name", EVERY)
def test_a_model_learns_only_its_kind_of_example(name: str) -> None:
    """Labels leave a detector as it was, observed events a classifier."""
    models = build(m=EVERY[name])
    before = models.state_hash()
    other = -1 if models.learns_from_labels else 1
    models.learn(np.ones((9, 3)), np.full(9, other, np.int8), np.ones(9))
    assert models.state_hash() == before


def test_an_example_is_learned_before_its_event_and_no_sooner() -> None:
    """The example due before event 1 changes the score of event 1 and not that of event 0."""
    models = build(m=ModelSettings(preset="logistic", params={"optimizer": "sgd", "lr": 1.0}))
    X = np.array([[1.0, 1.0, 1.0]] * 3)
    y, weight = np.array([1, 1], np.int8), np.ones(2)
    scores = models.score_learn(X, X[:2], y, weight, np.array([1, 3]))[:, 0]
    assert scores[0] == 0.5 < scores[1] == scores[2]
    assert models.score(X[:1])[0, 0] > scores[2]


def test_a_subset_reads_its_columns_in_its_own_order() -> None:
    """A model of features c and a scores as one that has these two columns alone."""
    X, learn_X, y, weight, before = stream(4)
    wide = build(m=ModelSettings(preset="logistic", features=("c", "a")))
    alone = build_model_set({"m": ModelSettings(preset="logistic")}, ("c", "a"), seed=3)
    columns = [2, 0]
    assert np.array_equal(
        wide.score_learn(X, learn_X, y, weight, before),
        alone.score_learn(X[:, columns], learn_X[:, columns], y, weight, before),
    )


BAD = [np.nan, np.inf, -np.inf, 1e31]


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("name", EVERY)
def test_a_bad_number_never_reaches_a_model(name: str, bad: float) -> None:
    """Examples with it are skipped and counted; state and later scores are as without them."""
    X, learn_X, y, weight, before = stream(2)
    clean, dirty = build(m=EVERY[name]), build(m=EVERY[name])
    y[::7] = -1 if clean.learns_from_events else 1
    hurt, hurt_weight = learn_X.copy(), weight.copy()
    hurt[::14, 0], hurt_weight[7::14] = bad, bad
    kept = np.ones(len(y), bool)
    kept[::7] = False
    expected = clean.score_learn(X, learn_X[kept], y[kept], weight[kept], before[kept])
    assert np.array_equal(dirty.score_learn(X, hurt, y, hurt_weight, before), expected)
    assert dirty.state_hash() == clean.state_hash()
    assert [m.total_counts.skipped_examples for m in (dirty, clean)] == [12, 0]


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("name", EVERY)
def test_an_event_with_a_bad_number_scores_zero_and_is_counted(name: str, bad: float) -> None:
    """Its neighbours are scored as ever."""
    X, learn_X, y, weight, before = stream(3)
    clean, dirty = build(m=EVERY[name]), build(m=EVERY[name])
    hurt = X.copy()
    hurt[5, 2] = bad
    expected = clean.score_learn(X, learn_X, y, weight, before)
    expected[5, :] = 0.0
    assert np.array_equal(dirty.score_learn(hurt, learn_X, y, weight, before), expected)
    assert dirty.total_counts.failed_scores == 1


def test_a_bad_number_outside_of_a_models_features_does_not_matter() -> None:
    """The model without feature b learns and scores what has NaN there."""
    X, learn_X, y, weight, before = stream(5)
    clean, dirty = build(m=DECLARED["narrow"]), build(m=DECLARED["narrow"])
    hurt, hurt_learn = X.copy(), learn_X.copy()
    hurt[:, 1] = hurt_learn[:, 1] = np.nan
    assert np.array_equal(
        dirty.score_learn(hurt, hurt_learn, y, weight, before),
        clean.score_learn(X, learn_X, y, weight, before),
    )


class Moody(base.Classifier):
    """Refuses to learn positives, and to score x below zero; counts what it learned."""

    def __init__(self) -> None:
        self.learned = 0

    def learn_one(self, x: dict[str, float], y: bool) -> None:
        if y:
            raise KeyError("a label it does not like")
        self.learned += 1

    def predict_proba_one(self, x: dict[str, float]) -> dict[bool, Any]:
        if x["a"] < 0.0:
            raise ZeroDivisionError
        return {True: float("nan") if x["a"] == 0.0 else 0.75}


def test_an_estimator_that_raises_is_counted_and_goes_on() -> None:
    """Failed examples are skipped; a score that raised or is not finite is served as 0.0."""
    model = RiverModel(Moody())
    models = ModelSet((Entry("m", model, NAMES, None),), NAMES)
    X = np.array([[1.0, 0, 0], [-1.0, 0, 0], [0.0, 0, 0]])
    y = np.array([1, 0, 0], np.int8)
    scores = models.score_learn(X, X, y, np.array([1.0, 2.0, 1.0]), np.array([1, 2, 3]))
    assert scores[:, 0].tolist() == [0.75, 0.0, 0.0]
    assert model.estimator.learned == 2
    counts = models.counts["m"]
    assert (counts.failed_examples, counts.failed_scores, counts.unweighted_examples) == (1, 2, 1)


def test_a_weight_that_cannot_be_applied_is_counted() -> None:
    """Half-space trees and naive Bayes learn such an example as any other, and say so."""
    models = build(forest=DECLARED["forest"], bayes=DECLARED["bayes"], linear=DECLARED["linear"])
    X = np.ones((2, 3))
    models.learn(X, np.array([-1, 1], np.int8), np.array([2.0, 2.0]))
    unweighted = {name: c.unweighted_examples for name, c in models.counts.items()}
    assert unweighted == {"forest": 1, "bayes": 1, "linear": 0}


def test_the_set_says_what_it_learns_from() -> None:
    """Names keep their order; each kind of learning is asked of all models."""
    models = build()
    assert models.names == ("linear", "forest", "bayes", "narrow")
    assert (models.learns_from_labels, models.learns_from_events) == (True, True)
    assert not build(m=DECLARED["linear"]).learns_from_events
    assert not build(m=DECLARED["forest"]).learns_from_labels


def test_read_only_and_strided_rows_give_the_same() -> None:
    """Rows as Arrow or a transposed matrix gives them are scored as any others."""
    X, learn_X, y, weight, before = stream(6)
    locked, strided = X.copy(), np.asfortranarray(learn_X)
    locked.flags.writeable = False
    expected = build().score_learn(X, learn_X, y, weight, before)
    assert np.array_equal(build().score_learn(locked, strided, y, weight, before), expected)


def test_nothing_to_do_is_fine() -> None:
    """No events and no examples give an empty matrix."""
    assert build().score(np.empty((0, 3))).shape == (0, 4)


def test_examples_out_of_order_are_a_mistake_of_the_caller() -> None:
    """A decreasing learn_before is refused, not sorted."""
    X = np.ones((2, 3))
    with pytest.raises(AssertionError, match="must not decrease"):
        build().score_learn(X, X, np.ones(2, np.int8), np.ones(2), np.array([2, 1]))
