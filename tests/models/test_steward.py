"""The steward: reviews at fixed places of the log, the same whoever cuts it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.arrow import Examples
from worker.contracts.records import unserved
from worker.contracts.settings import DriftSettings, GuardSettings, ModelSettings
from worker.models.advance import advance
from worker.models.catalogue import build_model_set
from worker.models.measures import ALERTS
from worker.models.plain import pack, unpack
from worker.models.prequential import BY_THOUSANDTHS, OF_PROBABILITIES, OF_THE_THRESHOLD
from worker.models.steward import REVIEW_EVERY
from worker.models.versioned import ModelSet

NAMES = ("a", "b")


def build(*drift: dict[str, Any], guard: dict[str, Any] | None = None, **models: Any) -> ModelSet:
    declared = models or {"fraud": {"preset": "logistic"}, "odd": {"preset": "half_space_trees"}}
    return build_model_set(
        {name: ModelSettings.model_validate(one) for name, one in declared.items()},
        NAMES,
        seed=1,
        champion=next(iter(declared)),
        drift=[DriftSettings.model_validate(one) for one in drift],
        guard=GuardSettings.model_validate(guard or {}),
    )


def stream(count: int, seed: int = 0, flipped: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Return X and the truth, which follows feature a, or the other way round."""
    X = np.random.default_rng(seed).normal(size=(count, 2))
    y = (X[:, 0] > 0) != flipped
    return X, y.astype(np.int64)


def examples_of(X: np.ndarray, y: np.ndarray, models: int, before: np.ndarray) -> Examples:
    m = len(y)
    return Examples(
        event_ids=[str(i) for i in range(m)], X=X, y=y, weight=np.ones(m),
        raw=np.full((m, models), np.nan), before=before, time_ms=np.zeros(m, np.int64),
        served=unserved(m, models),
    )  # fmt: skip


def live(models: ModelSet, X: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Score events and learn each with its label at once; return the champion's scores."""
    n = len(X)
    # Each event twice: observed, and labelled.
    twice = np.repeat(np.arange(n), 2)
    truth = np.stack([np.full(n, -1), y], axis=1).reshape(-1)
    e = examples_of(X[twice], truth, len(models.names), twice + 1)
    told = unserved(n, len(models.names))

    def serve(part: slice, raw: np.ndarray, calibrated: np.ndarray) -> np.ndarray:
        told["scores"][part] = calibrated[part]
        told["score"][part] = calibrated[part, models.champion]
        told["threshold"], told["alert"] = 0.5, told["score"] >= 0.5
        return told

    _, calibrated = advance(models, X, e, twice, serve)
    return calibrated[:, models.champion]


@settings(deadline=None, max_examples=15)
@given(cuts=st.lists(st.integers(1, 1_500), max_size=5), restart=st.integers(0, 5))
def test_any_split_and_a_restart_in_between_change_nothing(cuts: list[int], restart: int) -> None:
    """Scores, models, metrics, monitors and notices are a fold of the examples alone."""
    drift = ({"on": "error", "do": "reset"}, {"on": "features", "window": 400, "threshold": 0.02})
    X, y = (np.concatenate(parts) for parts in zip(stream(900), stream(600, 1, True), strict=True))
    whole = build(*drift)
    expected = live(whole, X, y)
    parts, scores = build(*drift), []
    edges = [0, *sorted(cuts), len(X)]
    for i in range(len(edges) - 1):
        if i == restart:
            again = build(*drift)
            again.restore(unpack(pack(parts.to_state())))
            parts = again
        scores.append(live(parts, X[edges[i] : edges[i + 1]], y[edges[i] : edges[i + 1]]))
    assert np.array_equal(np.concatenate(scores), expected)
    assert parts.state_hash() == whole.state_hash()
    assert list(parts.steward.notices) == list(whole.steward.notices)
    assert len(whole.steward.notices) >= 1


def test_without_reviews_advance_is_the_plain_loop() -> None:
    """Between two reviews nothing but scoring, learning and calibrating happens."""
    X, y = stream(100)
    models, plain = build(fraud={"preset": "logistic"}), build(fraud={"preset": "logistic"})
    e = examples_of(X, y, 1, np.arange(1, 101))
    raw, _ = advance(models, X, e, np.arange(100))
    assert np.array_equal(raw, plain.score_learn(X, X, y.astype(np.int8), np.ones(100), e.before))
    assert np.array_equal(e.raw, raw)


def test_a_drift_of_the_error_resets_the_model_it_names() -> None:
    """The world turns round: at the review one is as new, the other is not; both are judged on."""
    drift = {"on": "error", "model": "one", "do": "reset"}
    declared = {"one": {"preset": "logistic"}, "two": {"preset": "logistic"}}
    models = build(drift, **declared)
    live(models, *stream(2_000))
    live(models, *stream(REVIEW_EVERY // 2, 1, flipped=True))
    (notice,) = models.steward.notices
    assert (notice.kind, notice.model, notice.action) == ("drift", "one", "reset")
    fresh = build(drift, **declared)
    assert models["one"].state_hash() == fresh["one"].state_hash()
    assert models["two"].state_hash() != fresh["two"].state_hash()
    assert {r.figures[0].total.labelled for r in models.steward.reports()} == {2_250}


def test_a_reset_is_of_whoever_decides_at_that_time() -> None:
    """Where no model is named: after a promotion the challenger of the start is as new."""
    drift = {"on": "error", "do": "reset"}
    declared = {"one": {"preset": "logistic"}, "two": {"preset": "logistic"}}
    models = build(drift, **declared)
    assert models.steward.order("promote", "two")
    live(models, *stream(2_000))
    live(models, *stream(REVIEW_EVERY // 2, 1, flipped=True))
    assert [(n.model, n.action) for n in models.steward.notices][1:] == [("two", "reset")]
    fresh = build(drift, **declared)
    assert models["two"].state_hash() == fresh["two"].state_hash()
    assert models["one"].state_hash() != fresh["one"].state_hash()


def test_a_frozen_model_learns_nothing_until_it_is_thawed() -> None:
    """Its weights stay, the other model's do not; both go on being judged."""
    models = build(one={"preset": "logistic"}, two={"preset": "logistic"})
    live(models, *stream(300))
    before = [models[name].state_hash() for name in models.names]
    assert models.steward.order("freeze", "one")
    assert not models.steward.order("freeze", "one")
    live(models, *stream(300, 1))
    after = [models[name].state_hash() for name in models.names]
    assert (after[0] == before[0], after[1] == before[1]) == (True, False)
    assert models.steward.reports()[1].status == "frozen"
    assert models.steward.order("thaw", "one")
    live(models, *stream(300, 2))
    assert models["one"].state_hash() != before[0]


def test_promote_and_roll_back_change_who_decides() -> None:
    """Twice back leads nowhere; unknown models and actions are nothing."""
    models = build(one={"preset": "logistic"}, two={"preset": "logistic"})
    assert models.steward.order("promote", "two")
    assert models.champion_name == "two"
    assert models.steward.order("roll_back", "")
    assert models.champion_name == "one"
    for action, model in (("roll_back", ""), ("promote", "one"), ("promote", "x"), ("sing", "two")):
        assert not models.steward.order(action, model)
    assert [n.action for n in models.steward.notices] == ["promote", "roll_back"]


def unsaid(models: ModelSet) -> dict[str, set[str]]:
    """Return the figures of each report that say nothing."""
    told = {one.name: one.figures[0].to_json()["total"] for one in models.steward.reports()}
    return {name: {f for f, value in one.items() if value is None} for name, one in told.items()}


def test_a_score_is_judged_by_what_it_says() -> None:
    """Of ranks beside probabilities: no measure of probabilities, nor of the other's threshold."""
    models = build(fraud={"preset": "logistic"}, odd={"preset": "half_space_trees"},
                   own={"preset": "mahalanobis", "calibration": "none"})  # fmt: skip
    live(models, *stream(2_000))
    both, ranks = {*OF_PROBABILITIES, *OF_THE_THRESHOLD}, set(OF_PROBABILITIES)
    own = {*both, *BY_THOUSANDTHS}  # of 0 to infinity
    assert unsaid(models) == {ALERTS: set(), "fraud": set(), "odd": both, "own": own}
    assert models.steward.order("promote", "odd")
    probabilities = set(OF_THE_THRESHOLD)
    expected = {ALERTS: ranks, "fraud": probabilities, "odd": ranks, "own": own}
    assert unsaid(models) == expected


def test_a_raised_learning_rate_ends_after_its_examples() -> None:
    """Weights count five times for whole reviews, then once again."""
    models = build({"on": "error", "do": "raise_learning_rate", "examples": 600},
                   one={"preset": "logistic"})  # fmt: skip
    live(models, *stream(3_000))
    rates = []
    for seed in range(12):
        live(models, *stream(REVIEW_EVERY // 2, seed, flipped=True))
        rates.append(float(models.rates[0]))
    first = rates.index(5.0)
    assert rates[: first + 3] == [1.0] * first + [5.0, 5.0, 1.0]


def test_a_drift_freezes_the_model_until_somebody_thaws_it() -> None:
    """It learns nothing of the world that turned round; its calibrator and metrics go on."""
    models = build({"on": "error", "do": "freeze"}, one={"preset": "logistic"})
    live(models, *stream(2_000))
    live(models, *stream(REVIEW_EVERY // 2, 1, flipped=True))
    (notice,) = models.steward.notices
    said = (notice.kind, notice.model, notice.action, notice.text)
    assert said == ("drift", "one", "freeze", "the error of the champion drifted")
    before = models["one"].state_hash()
    live(models, *stream(500, 2, flipped=True))
    assert models["one"].state_hash() == before
    assert [r.status for r in models.steward.reports()] == ["", "frozen"]
    assert models.steward.reports()[1].figures[0].total.labelled == 2_750
    assert models.steward.order("thaw", "one")
    live(models, *stream(500, 3, flipped=True))
    assert models["one"].state_hash() != before
    assert [r.status for r in models.steward.reports()] == ["", "learning"]


def test_a_drift_rolls_the_model_back_to_its_last_good_state() -> None:
    """Bit for bit that of the first review, as none was kept since; it learns on from there."""
    drift = {"on": "error", "do": "roll_back"}
    models, calm = (build(drift, one={"preset": "logistic"}) for _ in range(2))
    live(calm, *stream(REVIEW_EVERY // 2))
    live(models, *stream(REVIEW_EVERY // 2))
    live(models, *stream(2_000, 5))
    assert models["one"].state_hash() != calm["one"].state_hash()
    live(models, *stream(REVIEW_EVERY // 2, 1, flipped=True))
    (notice,) = models.steward.notices
    assert (notice.kind, notice.model, notice.action) == ("drift", "one", "roll_back")
    assert models["one"].state_hash() == calm["one"].state_hash()
    live(models, *stream(20, 2))
    assert models["one"].state_hash() != calm["one"].state_hash()


def test_a_drift_before_any_good_state_is_said_and_rolls_nothing_back() -> None:
    """Rolling back to nothing would be a reset that nobody asked for."""
    drift = {"on": "features", "do": "roll_back", "window": 100, "threshold": 0.2}
    models, calm = build(drift, one={"preset": "logistic"}), build(one={"preset": "logistic"})
    X, y = stream(REVIEW_EVERY // 2)
    X[120:] += 3.0
    for one in (models, calm):
        live(one, X, y)
    assert {n.action for n in models.steward.notices} == {"alert"}
    assert models["one"].state_hash() == calm["one"].state_hash()


def test_a_drift_that_only_alerts_changes_no_model() -> None:
    """The same states and rates as without a monitor; one sentence more."""
    models = build({"on": "error", "do": "alert"}, one={"preset": "logistic"})
    plain = build(one={"preset": "logistic"})
    for one in (models, plain):
        live(one, *stream(2_000))
        live(one, *stream(REVIEW_EVERY // 2, 1, flipped=True))
    assert [n.action for n in models.steward.notices] == ["alert"]
    assert models["one"].state_hash() == plain["one"].state_hash()
    assert models.rates.tolist() == [1.0]


def test_a_model_that_went_wrong_goes_back_to_its_last_good_state() -> None:
    """Labels turn round and the loss explodes: back, and after three times frozen; all said."""
    one = {"preset": "logistic", "params": {"lr": 0.03}}
    models = build(guard={"loss_max": 0.7}, one=one)
    live(models, *stream(250))
    X, y = stream(250, 3, flipped=True)
    actions = []
    for _ in range(3):
        live(models, X, y)
        actions.append([n.action for n in models.steward.notices if n.kind == "guard"])
    assert actions == [["roll_back"], ["roll_back"] * 2, ["roll_back", "roll_back", "freeze"]]
    assert models.steward.reports()[1].status == "frozen"
    assert "one has a mean log loss of" in models.steward.notices[0].text


def test_a_model_that_was_reset_is_not_judged_by_the_losses_of_the_one_before() -> None:
    """Sure of itself and wrong: the guard would put back what the reset has just taken away."""
    one = {"preset": "logistic", "params": {"lr": 0.5}}
    models = build({"on": "error", "do": "reset"}, guard={"loss_max": 1.0}, one=one)
    live(models, *stream(5_000))
    X, y = stream(3_000, 1, flipped=True)
    live(models, X, y)
    assert [(n.kind, n.action) for n in models.steward.notices] == [("drift", "reset")]
    assert models.steward.reports()[1].status == "learning"
    assert ((live(models, X, y) > 0.5) == y)[-500:].mean() > 0.9


def test_after_a_reset_no_state_of_before_it_comes_back() -> None:
    """The guard trips later: the model is as new again, and not the one that the drift ended."""
    one = {"preset": "logistic", "params": {"lr": 0.5}}
    drift = {"on": "error", "do": "reset"}
    models = build(drift, guard={"loss_max": 1.0}, one=one)
    live(models, *stream(5_000))
    live(models, *stream(REVIEW_EVERY // 2, 1, flipped=True))  # it is reset
    m = REVIEW_EVERY
    X, wrong, ones = np.zeros((m, 2)), np.full((m, 1), 1e-6), np.ones(m, np.int64)
    models.steward.learn(X, wrong, ones, 0 * ones, unserved(m, 1))
    assert [n.action for n in models.steward.notices] == ["reset", "roll_back"]
    fresh = build(drift, guard={"loss_max": 1.0}, one=one)
    assert models["one"].state_hash() == fresh["one"].state_hash()


@pytest.mark.parametrize("by", ["guard", "order"])
def test_a_frozen_model_does_not_trip_its_guard_again(by: str) -> None:
    """It is said once, and its calibrator goes on; thawed, it is judged as any other."""
    one = {"preset": "logistic", "params": {"lr": 0.03}}
    models = build(guard={"loss_max": 0.7, "trips_max": 1}, one=one)
    live(models, *stream(250))
    X, y = stream(250, 3, flipped=True)
    if by == "guard":
        live(models, X, y)
    else:
        models.steward.order("freeze", "one")
    said = len(models.steward.notices)
    before = models.state_of(0)["calibrator"]
    for _ in range(4):
        live(models, X, y)
    assert len(models.steward.notices) == said
    assert models.state_of(0)["calibrator"] != before
    models.steward.order("thaw", "one")
    for _ in range(4):
        live(models, X, y)
    assert [n.kind for n in models.steward.notices][said:] == ["order", "guard"]


def test_values_that_no_model_may_see_do_not_tell_against_a_model() -> None:
    """The last events of a review have an absurd value; so had nobody scores for them."""
    models = build(guard={"loss_max": 0.7}, one={"preset": "logistic"})
    X, y = stream(REVIEW_EVERY)
    X[REVIEW_EVERY // 2 - 20 : REVIEW_EVERY // 2, 1] = 3.4e38
    live(models, X, y)
    assert [n.kind for n in models.steward.notices] == []


@pytest.mark.parametrize("name", ["tree", "logistic"])
def test_late_labels_do_not_tell_against_a_model_that_has_learned_since(name: str) -> None:
    """All 600 events are served by a model that knew nothing, then their labels come, positives
    first: as served the loss is that of 0 or of one half, just before learning it is small.
    """
    tree = {"river": ["preprocessing.StandardScaler", "tree.HoeffdingTreeClassifier"]}
    one = tree if name == "tree" else {"preset": "logistic", "params": {"lr": 0.1}}
    models = build(guard={"loss_max": 0.65}, one=one)
    X, y = stream(600)
    order = np.argsort(-y, kind="stable")
    e = examples_of(X[order], y[order], 1, np.full(600, 600))
    raw, _ = advance(models, X, e, order)
    assert np.array_equal(e.raw, raw[order])
    assert {0.0} >= set(raw[:, 0]) if name == "tree" else set(raw[:, 0]) == {0.5}
    assert list(models.steward.notices) == []


def test_the_state_that_a_rollback_restores_is_the_good_one() -> None:
    """Bit for bit that of the first good review, since none came after it."""
    one = {"preset": "logistic", "params": {"lr": 0.03}}
    models, calm = (build(guard={"loss_max": 0.7}, one=one) for _ in range(2))
    live(calm, *stream(250))
    live(models, *stream(250))
    live(models, *stream(250, 3, flipped=True))
    assert [n.action for n in models.steward.notices] == ["roll_back"]
    assert models["one"].state_hash() == calm["one"].state_hash()


@pytest.mark.parametrize("order", ["promote", "freeze"])
def test_orders_are_part_of_the_state(order: str) -> None:
    """Replicas that follow the same log are equal, and one that missed an order is not."""
    first, second = build(), build()
    first.steward.order(order, "odd")
    assert first.state_hash() != second.state_hash()
    second.steward.order(order, "odd")
    assert first.state_hash() == second.state_hash()
