"""Causes: the compiled form is the plain one; blame goes to the head that explains."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.arrow import Examples
from worker.contracts.settings import ModelSettings
from worker.errors import ConfigError
from worker.models.advance import advance
from worker.models.batch import Batch
from worker.models.canonical import state_hash
from worker.models.catalogue import build_model_set
from worker.models.causes import Causes
from worker.models.plain import pack, unpack
from worker.models.twins import twin_of

NAMES = ("m", "b", "z", "a")
HEADS = {"card": ["z", "m"], "terminal": ["b", "m", "a"]}


def build(**words: Any) -> Causes:
    return Causes(**{"heads": HEADS, "bins": 8, "warm_up": 40, **words})


def stream(seed: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 4)) * [1.0, 100.0, 1e-6, 3.0]
    X[:, 3] = np.round(X[:, 3])
    y = ((X[:, 2] > 1.5e-6) | (X[:, 1] > 170.0)).astype(np.int8)
    return X, y


def plain_loop(model: Causes, X: np.ndarray, y: np.ndarray) -> list[list[float]]:
    scores = []
    for row, label in zip(X.tolist(), y.tolist(), strict=True):
        x = dict(zip(NAMES, row, strict=True))
        scores.append([model.predict_proba_one(x)[True], *model.predict_heads_one(x).values()])
        model.learn_one(x, bool(label))
    return scores


def twin_loop(twin: Any, X: np.ndarray, y: np.ndarray) -> list[list[float]]:
    n = len(X)
    return twin.score_learn(Batch(NAMES, X, X, y, np.ones(n), np.arange(1, n + 1))).tolist()


def learned(model: Causes) -> Any:
    weights = [sorted(w.items()) for w in (*model.weights.values(), *model.squares.values())]
    return model.bins.edges, model.bins.kept, weights, model.intercepts


@pytest.mark.parametrize("words", [{}, {"weight_positive": 9.0, "lr": 0.5, "bins": 2}])
def test_a_long_run_equals_the_plain_form(words: dict) -> None:
    """3,000 events give the same scores, heads and state, float for float."""
    X, y = stream(1, 3_000)
    plain, twin = build(**words), twin_of(build(**words), NAMES)
    assert twin_loop(twin, X, y) == plain_loop(plain, X, y)
    assert learned(twin.to_river()) == learned(plain)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 9), sizes=st.lists(st.integers(0, 50), min_size=1, max_size=5))
def test_any_batches_equal_the_plain_form_and_go_on_from_it(seed: int, sizes: list[int]) -> None:
    """The twin is turned back and made anew between batches, in the warm-up and after it."""
    plain, model = build(), build()
    for i, size in enumerate(sizes):
        X, y = stream(seed + 100 * i, size)
        twin = twin_of(model, NAMES)
        assert twin_loop(twin, X, y) == plain_loop(plain, X, y)
        model = twin.to_river()
        assert learned(model) == learned(plain)
        assert twin_of(model, NAMES).state_hash() == twin.state_hash()


def test_the_blame_is_the_gradient_of_the_joint_likelihood() -> None:
    """Each head's step equals the numeric derivative of log P, or of log (1 - P), by its logit."""
    for p, y in [((0.2, 0.7), True), ((0.2, 0.7), False), ((0.01, 0.02), True)]:
        model = build(warm_up=1_000, intercept_lr=1.0)
        logits = [math.log(q / (1 - q)) for q in p]
        model.intercepts = dict(zip(HEADS, logits, strict=True))
        model.learn_one(dict.fromkeys(NAMES, 0.0), y)
        moved = [b - a for a, b in zip(logits, model.intercepts.values(), strict=True)]
        for h in range(2):
            sides = [list(logits), list(logits)]
            sides[0][h] -= 1e-6
            sides[1][h] += 1e-6
            low, high = (_log_likelihood(side, y) for side in sides)
            assert moved[h] == pytest.approx((high - low) / 2e-6, rel=1e-5)


def _log_likelihood(logits: list[float], y: bool) -> float:
    none = math.prod(1.0 - 1.0 / (1.0 + math.exp(-s)) for s in logits)
    return math.log(1.0 - none) if y else math.log(none)


def test_the_head_that_explains_takes_the_blame() -> None:
    """Frauds of two kinds: each head speaks of its own."""
    model = build(lr=0.3)
    X, y = stream(2, 4_000)
    plain_loop(model, X, y)
    of_card = model.predict_heads_one({"m": 0.0, "b": 0.0, "z": 2e-6, "a": 0.0})
    of_terminal = model.predict_heads_one({"m": 0.0, "b": 220.0, "z": 0.0, "a": 0.0})
    assert of_card["card"] > 0.7 > 0.1 > of_card["terminal"]
    assert of_terminal["terminal"] > 0.7 > 0.1 > of_terminal["card"]


@pytest.mark.parametrize("is_compiled", [True, False])
def test_heads_are_columns_after_all_models(is_compiled: bool) -> None:
    """Named MODEL.HEAD; calibration leaves them alone, as they are probabilities already."""
    told = ModelSettings(
        preset="causes", params={"heads": HEADS, "warm_up": 40}, compiled=is_compiled
    )
    declared = {"f": told, "other": ModelSettings(preset="logistic")}
    models = build_model_set(declared, NAMES, seed=0)
    assert models.names == ("f", "other", "f.card", "f.terminal")
    X, y = stream(3, 200)
    raw = models.score_learn(X, X, y, np.ones(200), np.arange(1, 201))
    none = np.prod(1.0 - raw[:, 2:], axis=1)
    assert raw[:, 0] == pytest.approx(1.0 - none)
    assert np.array_equal(models.calibrate(raw)[:, 2:], raw[:, 2:])
    assert state_hash(models["f"].to_river()) == models["f"].state_hash() or is_compiled


def test_a_head_over_an_unknown_feature_is_a_problem_of_the_configuration() -> None:
    """With its place and the nearest name; so is a cross of binned_logistic."""
    heads = {"card": ["z", "mm"]}
    for preset, params in [
        ("causes", {"heads": heads}), ("binned_logistic", {"crosses": [["mm", "z"]]})
    ]:  # fmt: skip
        with pytest.raises(ConfigError) as caught:
            build_model_set({"f": ModelSettings(preset=preset, params=params)}, NAMES, seed=0)
        [problem] = caught.value.problems
        assert problem.path == ("models", "f", "params")
        assert problem.got == "'mm'"
    with pytest.raises(ConfigError, match="1 problem"):
        build_model_set({"f": ModelSettings(preset="causes", params={"heads": {}})}, NAMES, seed=0)


def test_heads_pass_through_reviews_and_a_snapshot_of_the_set() -> None:
    """The steward of the models knows the models alone; raw scores carry the heads beside them."""
    told = ModelSettings(preset="causes", params={"heads": HEADS, "warm_up": 40})
    first, second = (build_model_set({"f": told}, NAMES, seed=0) for _ in range(2))
    X, y = stream(4, 3_000)
    raw = np.full((3_000, 3), np.nan)
    ids = [str(i) for i in range(3_000)]
    examples = Examples(
        ids, X, y.astype(np.int64), np.ones(3_000), raw[:, 0].copy(), raw, np.arange(1, 3_001)
    )
    scores, _ = advance(first, X, examples, np.arange(3_000))
    assert np.array_equal(raw, scores)
    assert [report.name for report in first.steward.reports()] == ["f"]
    second.restore(unpack(pack(first.to_state())))
    assert second.state_hash() == first.state_hash()
