"""The compiled twins equal River after every event, and go on from there."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from river import anomaly, compose, linear_model, optim, preprocessing
from river.tree.padded import PaddedBranch

from worker.models.batch import Batch
from worker.models.bins import LearnedBins
from worker.models.forest_twin import ForestTwin
from worker.models.presets import binned_logistic, half_space_trees
from worker.models.sampled_scaler import SampledScaler
from worker.models.twins import twin_of

NAMES = ("f10", "f9", "a", "Z", "m")  # sorted otherwise than they stand


def scaled_logistic(optimizer: Any = None, *, with_std: bool = True, **words: Any) -> Any:
    scaler = preprocessing.StandardScaler(with_std=with_std)
    return scaler | linear_model.LogisticRegression(optimizer, **words)


def scaled_forest(**words: Any) -> Any:
    return preprocessing.MinMaxScaler() | anomaly.HalfSpaceTrees(**{"seed": 5, **words})


def binned(**words: Any) -> Any:
    return binned_logistic(**words)


LOGISTIC: dict[str, Callable[[], Any]] = {
    "sgd": lambda: scaled_logistic(optim.SGD(0.1)),
    "sgd, l2": lambda: scaled_logistic(optim.SGD(0.1), l2=0.1),
    "sgd, no std": lambda: scaled_logistic(optim.SGD(1e-4), with_std=False),
    "sgd, class weights, integer rate": lambda: scaled_logistic(
        optim.SGD(1), loss=optim.losses.Log(weight_pos=7.5, weight_neg=0.5), intercept_lr=1
    ),
    "sgd, clipped, intercept": lambda: scaled_logistic(
        clip_gradient=0.05, intercept_init=-3.0, intercept_lr=0.0
    ),
    "adagrad": lambda: scaled_logistic(optim.AdaGrad()),
    "adagrad, l2, eps": lambda: scaled_logistic(optim.AdaGrad(0.5, eps=1e-3), l2=0.01),
    "adam": lambda: scaled_logistic(optim.Adam()),
    "adam, l2, betas": lambda: scaled_logistic(
        optim.Adam(0.02, beta_1=0.5, beta_2=0.9, eps=1e-4), l2=0.001
    ),
}
FORESTS: dict[str, Callable[[], Any]] = {
    "defaults": scaled_forest,
    "small window": lambda: scaled_forest(n_trees=3, height=3, window_size=7),
    "one tree of one split": lambda: scaled_forest(n_trees=1, height=1, window_size=30, seed=9),
    "sampled": lambda: half_space_trees(scaling="sampled", n_trees=4, height=4, window_size=30),
    "sampled, many": lambda: compose.Pipeline(
        SampledScaler(size=16, horizon=100, seed=-3),
        preprocessing.MinMaxScaler(),
        anomaly.HalfSpaceTrees(n_trees=3, height=5, window_size=50, seed=2),
    ),
    "limits": lambda: scaled_forest(
        n_trees=4, height=6, window_size=40, limits={"a": (-0.5, 2.5), "m": (0, 0.125)}
    ),
}
BINNED: dict[str, Callable[[], Any]] = {
    "bins": lambda: binned(bins=8, warm_up=40),
    "bins, few, crossed": lambda: binned(
        bins=2, warm_up=8, crosses=[("a", "Z"), ("m", "f10")], lr=0.5, intercept_lr=0.3
    ),
    "bins, many, class weights": lambda: binned(bins=64, warm_up=300, weight_positive=7.5),
}
TWINS = {**LOGISTIC, **FORESTS, **BINNED}


def stream(seed: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Columns of very different sizes, with zeros, a constant, repeats, tiny and huge values."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, len(NAMES))) * [1.0, 1e12, 1e-9, 50.0, 1.0]
    X[:, 0] = np.where(rng.random(n) < 0.3, 0.0, X[:, 0])
    X[:, 3] = np.round(X[:, 3])
    X[:, 4] = 7.25
    X[rng.integers(0, n, n // 50), 1] = 1e29
    X[rng.integers(0, n, n // 50), 2] = -5e-324
    y = (X[:, 0] + rng.normal(size=n) > 0.8).astype(np.int8)
    return X, y


def river_loop(model: Any, X: np.ndarray, y: np.ndarray) -> list[float]:
    scores = []
    is_forest = "HalfSpaceTrees" in model.steps
    for row, label in zip(X.tolist(), y.tolist(), strict=True):
        x = dict(zip(NAMES, row, strict=True))
        if is_forest:
            scores.append(float(model.score_one(x)))
            model.learn_one(x)
        else:
            scores.append(float(model.predict_proba_one(x)[True]))
            model.learn_one(x, bool(label))
    return scores


def twin_loop(twin: Any, X: np.ndarray, y: np.ndarray) -> list[float]:
    n = len(X)
    taught = y if twin.learns_from_labels else np.full(n, -1, np.int8)
    batch = Batch(NAMES, X, X, taught, np.ones(n), np.arange(1, n + 1))
    return twin.score_learn(batch).tolist()


def learned(pipeline: Any) -> Any:
    """All that a pipeline has learned, as plain values read from River's own attributes."""
    *first, scaler, model = pipeline.steps.values()
    if first:
        [sampled], rest = first, compose.Pipeline(scaler, model)
        return sampled.kept, sampled.scale, sampled.count, sampled.next, learned(rest)
    if isinstance(scaler, LearnedBins):
        weights = (list(model.weights.items()), list(model.optimizer.g2.items()))
        return scaler.edges, scaler.kept, weights, model.intercept, model.optimizer.n_iterations
    if isinstance(scaler, preprocessing.MinMaxScaler):
        trees = [[_node(n) for n in tree.iter_dfs()] for tree in model.trees]
        again = [[_node(n) for n in nodes] for nodes in model._tree_nodes]
        ranges = ({k: v.min for k, v in scaler.min.items()}, [v.max for v in scaler.max.values()])
        words = (model.counter, model._first_window, model.rng.getstate(), dict(model.limits))
        return ranges, trees, again, words
    optimizer = model.optimizer
    moments = [getattr(optimizer, name, None) for name in ("g2", "m", "v")]
    return (
        (dict(scaler.counts), dict(scaler.means), dict(scaler.vars)),
        (model.weights, model.intercept, optimizer.n_iterations),
        [None if m is None else dict(m.items()) for m in moments],
    )


def _node(node: Any) -> tuple:
    split = (node.feature, node.threshold) if isinstance(node, PaddedBranch) else ()
    return (*split, node.l_mass, node.r_mass)


@pytest.mark.parametrize("case", TWINS)
def test_a_long_run_equals_river(case: str) -> None:
    """3,000 events give River's scores and state, float for float."""
    X, y = stream(1, 3_000)
    river, twin = TWINS[case](), twin_of(TWINS[case](), NAMES)
    expected = river_loop(river, X, y)
    assert twin_loop(twin, X, y) == expected
    assert learned(twin.to_river()) == learned(river)
    assert len(set(expected)) > 3


@pytest.mark.parametrize("case", ["adagrad, l2, eps", "adam", "defaults", "bins"])
def test_20_000_events_equal_river(case: str) -> None:
    """Nothing drifts apart in a stream of 20,000 events."""
    X, y = stream(2, 20_000)
    river, twin = TWINS[case](), twin_of(TWINS[case](), NAMES)
    assert twin_loop(twin, X, y) == river_loop(river, X, y)
    assert learned(twin.to_river()) == learned(river)


@pytest.mark.parametrize("case", LOGISTIC)
def test_every_rounding_is_that_of_river(case: str) -> None:
    """A thousand features show what rounds otherwise in one value of a thousand, as g * g does."""
    names = tuple(f"f{i}" for i in range(1_000))
    X = np.random.default_rng(6).normal(size=(12, 1_000))
    y = (np.arange(12) % 3 == 0).astype(np.int8)
    river, twin = LOGISTIC[case](), twin_of(LOGISTIC[case](), names)
    twin.score_learn(Batch(names, X[:0], X, y, np.ones(12), np.zeros(12, np.int64)))
    for row, label in zip(X.tolist(), y.tolist(), strict=True):
        river.learn_one(dict(zip(names, row, strict=True)), bool(label))
    assert learned(twin.to_river()) == learned(river)


def test_a_value_on_a_threshold_goes_right_as_in_river() -> None:
    """Rows made of the trees' own thresholds take River's paths, learning and scoring."""
    river = scaled_forest(n_trees=5, height=4, window_size=20)
    first = np.array([[0.0] * 5, [1.0] * 5])  # the range is 0 to 1 from here on: x is its own z
    river_loop(river, first, np.zeros(2))
    twin = twin_of(river, NAMES)
    splits = [n.threshold for t in river[1].trees for n in t.iter_dfs() if hasattr(n, "threshold")]
    X = np.tile(np.array(splits).reshape(-1, 1), (1, len(NAMES)))
    assert twin_loop(twin, X, np.zeros(len(X))) == river_loop(river, X, np.zeros(len(X)))
    assert learned(twin.to_river()) == learned(river)


def test_the_numbers_of_windows_begin_again() -> None:
    """After 65,535 windows, here of one event each, the masses are still River's."""
    X, y = stream(7, 66_000)
    river, twin = (scaled_forest(n_trees=1, height=2, window_size=1) for _ in range(2))
    twin = twin_of(twin, NAMES)
    assert twin_loop(twin, X, y) == river_loop(river, X, y)
    assert learned(twin.to_river()) == learned(river)


class Swapped(ForestTwin):
    """The mutant that draws the threshold of a split before its feature."""

    def _draws(self, inner_nodes: int) -> np.ndarray:
        return super()._draws(inner_nodes).reshape(-1, 2)[:, ::-1].reshape(-1).copy()


def test_a_twin_with_another_order_of_draws_is_found_out() -> None:
    """The same numbers of the same generator, used in another order, are another forest."""
    X, y = stream(8, 600)
    river = scaled_forest(n_trees=3, height=4, window_size=50)
    mutant = Swapped(scaled_forest(n_trees=3, height=4, window_size=50), NAMES)
    assert twin_loop(mutant, X, y) != river_loop(river, X, y)
    assert learned(mutant.to_river()) != learned(river)


@pytest.mark.parametrize("rows", [1, 3])
def test_it_does_not_matter_how_many_rows_go_through_the_trees_together(rows: int) -> None:
    """Examples of a quarter of the events, of others and of nobody, between them."""
    X, _ = stream(9, 900)
    order = np.sort(np.random.default_rng(9).integers(0, 901, 1_100))
    learn_X = X[np.minimum(order, 899)]
    learn_X[::3] = learn_X[::-3][: len(learn_X[::3])]
    batch = Batch(NAMES, X, learn_X, np.full(1_100, -1, np.int8), np.ones(1_100), order)
    whole, parts = (twin_of(scaled_forest(window_size=70), NAMES) for _ in range(2))
    expected, scores, done = whole.score_learn(batch), [], 0
    for start in range(0, 900, rows):
        stop = start + rows
        until = int(np.searchsorted(order, stop, "right")) if stop < 900 else 1_100
        few, y = slice(done, until), np.full(until - done, -1, np.int8)
        part = Batch(NAMES, X[start:stop], learn_X[few], y, np.ones(len(y)), order[few] - start)
        scores += parts.score_learn(part).tolist()
        done = until
    assert scores == expected.tolist()
    assert parts.state_hash() == whole.state_hash()
    assert len(set(scores)) > 100


numbers = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, -1.0, 1e-300, 5e-324, -1e30, 1e30, 1e15, 3.0, 0.1]),
    st.floats(-1e30, 1e30),
)
rows = st.lists(st.tuples(*[numbers] * len(NAMES)), min_size=1, max_size=40)


@pytest.mark.parametrize("case", TWINS)
@settings(max_examples=12, deadline=None)
@given(rows=rows, labels=st.randoms(use_true_random=False))
def test_any_stream_equals_river_after_every_event(case: str, rows: list, labels: Any) -> None:
    """Whatever numbers come, each event leaves the twin in River's state."""
    river, twin = TWINS[case](), twin_of(TWINS[case](), NAMES)
    for row in rows:
        X, y = np.array([row]), np.array([labels.randrange(2)], np.int8)
        expected = [s if np.isfinite(s) else 0.0 for s in river_loop(river, X, y)]
        assert twin_loop(twin, X, y) == expected
        assert repr(learned(twin.to_river())) == repr(learned(river))


@pytest.mark.parametrize("case", TWINS)
def test_a_round_trip_goes_on_identically(case: str) -> None:
    """River → twin → River → twin in the middle of a stream changes nothing."""
    X, y = stream(3, 600)
    river = TWINS[case]()
    expected = river_loop(river, X, y)
    model = TWINS[case]()
    scores = river_loop(model, X[:200], y[:200])
    first = twin_of(model, NAMES)
    scores += twin_loop(first, X[200:300], y[200:300])
    again = first.to_river()
    scores += river_loop(again, X[300:400], y[300:400])
    last = twin_of(again, NAMES)
    scores += twin_loop(last, X[400:], y[400:])
    assert scores == expected
    assert learned(last.to_river()) == learned(river)


@pytest.mark.parametrize("case", TWINS)
def test_making_a_twin_leaves_the_original_alone(case: str) -> None:
    """The twin copies: what it learns later is not seen by the pipeline it came from."""
    X, y = stream(4, 300)
    model = TWINS[case]()
    river_loop(model, X, y)
    before = copy.deepcopy(learned(model))
    twin = twin_of(model, NAMES)
    river = twin.to_river()
    twin_loop(twin, X, y)
    assert learned(model) == before
    assert learned(river) == before


@pytest.mark.parametrize("case", TWINS)
def test_a_twin_that_only_scored_equals_river(case: str) -> None:
    """Before anything is learned the scores and River's own traces of scoring are the same."""
    X, _ = stream(5, 3)
    river, twin = TWINS[case](), twin_of(TWINS[case](), NAMES)
    nothing = np.empty(0, np.int64)
    batch = Batch(NAMES, X, X[:0], nothing.astype(np.int8), np.empty(0), nothing)
    score = "score_one" if "HalfSpaceTrees" in river.steps else "predict_proba_one"
    given_rows = [dict(zip(NAMES, row, strict=True)) for row in X.tolist()]
    expected = [getattr(river, score)(x) for x in given_rows]
    expected = [e[True] if isinstance(e, dict) else e for e in expected]
    assert twin.score_learn(batch).tolist() == expected
    assert learned(twin.to_river()) == learned(river)


def _partly_trained() -> Any:
    model = scaled_logistic()
    model.learn_one({"a": 1.0}, True)
    return model


WITHOUT_TWIN = {
    "other estimator": lambda: linear_model.Perceptron(),
    "no scaler": lambda: linear_model.LogisticRegression(),
    "other scaler": lambda: preprocessing.MinMaxScaler() | linear_model.LogisticRegression(),
    "windowed scaler": lambda: (
        preprocessing.StandardScaler(window_size=9) | linear_model.LogisticRegression()
    ),
    "l1": lambda: scaled_logistic(l1=0.1),
    "other optimizer": lambda: scaled_logistic(optim.RMSProp()),
    "changing rate": lambda: scaled_logistic(optim.SGD(optim.schedulers.InverseScaling(0.1))),
    "other loss": lambda: scaled_logistic(loss=optim.losses.Hinge()),
    "random weights": lambda: scaled_logistic(initializer=optim.initializers.Normal(seed=1)),
    "learned other features": _partly_trained,
    "a division by zero": lambda: scaled_logistic(optim.AdaGrad(eps=0.0)),
    "a rate beyond reason": lambda: scaled_logistic(optim.SGD(1e200)),
    "a rate that is no number": lambda: scaled_logistic(clip_gradient=float("nan")),
    "bins with sgd": lambda: LearnedBins() | linear_model.LogisticRegression(optim.SGD()),
    "bins with l2": lambda: LearnedBins() | linear_model.LogisticRegression(optim.AdaGrad(), l2=1),
    "a cross of no feature": lambda: binned(crosses=[("a", "nobody")]),
    "three steps": lambda: preprocessing.MinMaxScaler() | scaled_logistic(),
    "forest of no height": lambda: scaled_forest(height=0),
    "forest with empty limits": lambda: scaled_forest(limits={"a": (1.0, 1.0)}),
}


@pytest.mark.parametrize("case", WITHOUT_TWIN)
def test_what_the_kernels_do_not_do_has_no_twin(case: str) -> None:
    """An estimator that differs in any way from what was checked stays with River."""
    assert twin_of(WITHOUT_TWIN[case](), NAMES) is None
