"""Causes: a slow form says the same; blame goes to the head that explains; bins grow."""

from __future__ import annotations

import math
from bisect import bisect_right
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.arrow import Examples
from worker.contracts.records import unserved
from worker.contracts.settings import ModelSettings
from worker.errors import ConfigError
from worker.models.advance import advance
from worker.models.batch import Batch
from worker.models.canonical import state_hash
from worker.models.catalogue import build_model_set
from worker.models.causes import Causes
from worker.models.grown_bins import Sample, even_edges
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


def plain_loop(model: Any, X: np.ndarray, y: np.ndarray) -> list[list[float]]:
    scores = []
    for row, label in zip(X.tolist(), y.tolist(), strict=True):
        x = dict(zip(NAMES, row, strict=True))
        scores.append([model.predict_proba_one(x)[True], *model.predict_heads_one(x).values()])
        model.learn_one(x, bool(label))
    return scores


def twin_loop(twin: Any, X: np.ndarray, y: np.ndarray) -> list[list[float]]:
    n = len(X)
    return twin.score_learn(Batch(NAMES, X, X, y, np.ones(n), np.arange(1, n + 1))).tolist()


class Slow:
    """The model by its definition: dicts of bins, samples that are lists of all that ever came."""

    def __init__(self, bins: int, warm_up: int, lr: float, weight_positive: float) -> None:
        self.half, self.next = bins // 2, warm_up
        self.lr, self.weight_positive = lr, weight_positive
        self.seen: list[dict[str, float]] = []
        self.bad: list[dict[str, float]] = []
        self.edges: dict[str, list[float]] = {}
        self.weights: dict[tuple[str, str, int], list[float]] = {}  # weight and sum of squares
        self.intercepts = dict.fromkeys(HEADS, -4.0)

    def places(self, x: dict[str, float], head: str) -> list[tuple[str, str, int]]:
        """Return the bins of a head that an event is in."""
        if not self.edges:
            return []
        return [(head, f, bisect_right(self.edges[f], x[f])) for f in HEADS[head]]

    def predict_heads_one(self, x: dict[str, float]) -> dict[str, float]:
        p = {}
        for head, intercept in self.intercepts.items():
            logit = 0.0
            for place in self.places(x, head):
                logit += self.weights.get(place, [0.0])[0]
            p[head] = 1.0 / (1.0 + math.exp(-min(max(logit + intercept, -20.0), 20.0)))
        return p

    def predict_proba_one(self, x: dict[str, float]) -> dict[bool, float]:
        none = 1.0
        for p in self.predict_heads_one(x).values():
            none *= 1.0 - p
        return {True: 1.0 - none}

    def learn_one(self, x: dict[str, float], y: bool) -> None:
        self.seen.append(x)
        if y:
            self.bad.append(x)
        if len(self.seen) == self.next:
            self.next *= 2
            self.fit()
        heads, whole = self.predict_heads_one(x), self.predict_proba_one(x)[True]
        for head, p in heads.items():
            slope = p - (p / whole if y else 0.0)
            slope *= self.weight_positive if y else 1.0
            self.intercepts[head] -= 0.01 * slope
            for place in self.places(x, head):
                one = self.weights.setdefault(place, [0.0, 0.0])
                one[1] += slope * slope
                one[0] -= self.lr / math.sqrt(one[1] + 1e-8) * slope

    def fit(self) -> None:
        """Make the edges anew; each new bin takes what the old one had where it begins."""
        before, self.edges = self.edges or {f: [] for f in NAMES}, {}
        old, self.weights = self.weights, {}
        for f in NAMES:
            ordered = sorted(x[f] for x in self.seen)
            n, found = len(ordered), set()
            ranks = {k * n // self.half for k in range(1, self.half)}
            for k in (1, 2, 3):
                ranks |= {n // (self.half << k), n - n // (self.half << k)}
            found |= {ordered[r] for r in ranks if r < n and ordered[r] > ordered[0]}
            if self.bad:
                found |= set(even_edges(np.array([x[f] for x in self.bad]), self.half))
            self.edges[f] = sorted(found)
            begins = [bisect_right(before[f], v) for v in [-math.inf, *self.edges[f]]]
            for head in HEADS:
                for k, origin in enumerate(begins):
                    if (head, f, origin) in old:
                        weight, squares = old[head, f, origin]
                        self.weights[head, f, k] = [weight, squares / begins.count(origin)]


@pytest.mark.parametrize(
    ("bins", "lr", "weight"), [(8, 0.2, 1.0), (4, 0.5, 9.0)]
)  # fmt: skip
def test_a_long_run_equals_the_slow_form(bins: int, lr: float, weight: float) -> None:
    """1,500 events, over five makings of the edges, give its scores and heads, float for float."""
    X, y = stream(1, 1_500)
    twin = twin_of(build(bins=bins, lr=lr, weight_positive=weight), NAMES)
    slow = Slow(bins, 40, lr, weight)
    assert twin_loop(twin, X, y) == plain_loop(slow, X, y)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 9), sizes=st.lists(st.integers(0, 50), min_size=1, max_size=5))
def test_any_batches_equal_river_s_form_and_go_on_from_it(seed: int, sizes: list[int]) -> None:
    """The twin is turned back and made anew between batches, in the warm-up and after it."""
    plain, model = build(), build()
    for i, size in enumerate(sizes):
        X, y = stream(seed + 100 * i, size)
        twin = twin_of(model, NAMES)
        assert twin_loop(twin, X, y) == plain_loop(plain, X, y)
        model = twin.to_river()
        assert state_hash(model.to_state()) == state_hash(plain.to_state())
        assert twin_of(model, NAMES).state_hash() == twin.state_hash()


@settings(max_examples=50, deadline=None)
@given(sizes=st.lists(st.integers(0, 9), max_size=12), most=st.integers(2, 9))
def test_a_sample_is_every_nth_row_however_they_come(sizes: list[int], most: int) -> None:
    """Rows 0, n, 2 n, ... with the least power of two n that leaves fewer than the most."""
    sample, count = Sample(1, most), sum(sizes)
    rows, done = np.arange(float(count)).reshape(-1, 1), 0
    for size in sizes:
        sample.add(rows[done : done + size])
        done += size
    stride = next(2**k for k in range(99) if -(-count // 2**k) < most)
    assert sample.rows[:, 0].tolist() == rows[::stride, 0].tolist()
    assert (sample.count, sample.stride) == (count, stride)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=60), st.integers(2, 8))
def test_even_edges_are_few_and_part_what_many_share(values: list[int], bins: int) -> None:
    """Fewer than twice the bins, increasing, of the values but the least; a heavy one is alone."""
    found = even_edges(np.array(values, float), bins)
    assert len(found) < 2 * bins
    assert found == sorted(set(found) & set(map(float, values)) - {float(min(values))})
    for value in set(values):
        if values.count(value) * bins >= len(values):
            inside = {v for v in values if bisect_right(found, v) == bisect_right(found, value)}
            assert inside == {value}


def test_bins_grow_where_frauds_come_late() -> None:
    """A feature that says nothing during the warm-up gets edges, and says much, later."""
    rng = np.random.default_rng(4)
    X = rng.normal(size=(8_000, 4))
    X[:, 1] = 0.0
    late = np.arange(8_000) >= 1_000
    bad = late & (rng.random(8_000) < 0.02)
    X[bad, 1] = rng.uniform(1.0, 2.0, bad.sum())
    X[late & (rng.random(8_000) < 0.02), 1] = 0.5
    twin = twin_of(build(warm_up=100, lr=0.5), NAMES)
    scores, tail = np.array(twin_loop(twin, X, bad.astype(np.int8)))[:, 0], slice(6_000, None)
    assert np.median(scores[tail][bad[tail]]) > np.quantile(scores[tail][~bad[tail]], 0.99)


def test_the_blame_is_the_gradient_of_the_joint_likelihood() -> None:
    """Each head's step equals the numeric derivative of log P, or of log (1 - P), by its logit."""
    for p, y in [((0.2, 0.7), True), ((0.2, 0.7), False), ((0.01, 0.02), True)]:
        model = build(warm_up=1_000, intercept_lr=1.0)
        logits = [math.log(q / (1 - q)) for q in p]
        model.intercepts[:] = logits
        model.learn_one(dict.fromkeys(NAMES, 0.0), y)
        moved = [b - a for a, b in zip(logits, model.intercepts, strict=True)]
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
    twin = twin_of(build(lr=0.3), NAMES)
    twin_loop(twin, *stream(2, 4_000))
    model = twin.to_river()
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
    with pytest.raises(ConfigError, match=r"models\.f\.params\.heads: expected .*, got"):
        build_model_set({"f": ModelSettings(preset="causes", params={"heads": {}})}, NAMES, seed=0)


def test_heads_pass_through_reviews_and_a_snapshot_of_the_set() -> None:
    """The steward of the models knows the models alone; raw scores carry the heads beside them."""
    told = ModelSettings(preset="causes", params={"heads": HEADS, "warm_up": 40})
    first, second = (build_model_set({"f": told}, NAMES, seed=0) for _ in range(2))
    X, y = stream(4, 3_000)
    raw = np.full((3_000, 3), np.nan)
    ids = [str(i) for i in range(3_000)]
    examples = Examples(
        ids,
        X,
        y.astype(np.int64),
        np.ones(3_000),
        raw,
        np.arange(1, 3_001),
        np.arange(3_000),
        unserved(3_000, 3),
    )
    scores, _ = advance(first, X, examples, np.arange(3_000))
    assert np.array_equal(raw, scores)
    assert [report.name for report in first.steward.reports()] == ["(alerts)", "f"]
    second.restore(unpack(pack(first.to_state())))
    assert second.state_hash() == first.state_hash()
