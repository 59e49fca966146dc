"""Under overload learning stops first, then challengers; events, state and scores stay right."""

from __future__ import annotations

from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.worlds import drain, events, fill, journal, new_log, settings, worker
from worker.config_rules import semantic_problems
from worker.contracts.settings import DegradeSettings
from worker.degrading import Degrading
from worker.inbox import Inbox
from worker.listening import Listening
from worker.runner import Runner
from worker.stores.memory import MemoryStore
from worker.streams import Polled
from worker.streams.memory import MemoryLog
from worker.telemetry import Telemetry

BOUNDS = DegradeSettings.model_validate({"learning": "30s", "challengers": "60s", "recover": "10s"})
COUNT = 300


class Clock:
    """Seconds that a test moves."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def polled(*ended: int, assigned: tuple[int, ...] = (0, 1)) -> Polled:
    places = frozenset(("transactions", p) for p in ended)
    return Polled([], frozenset(assigned), None, places)


def levels(bounds: DegradeSettings | None, *steps: tuple[float, Polled]) -> list[int]:
    """Return the level after each step, at these seconds."""
    clock, found = Clock(), []
    one = Degrading(bounds, "transactions", Telemetry(clock), clock)
    for clock.now_s, seen in steps:
        one.hear(seen)
        found.append(one.level)
    return found


def test_the_level_rises_at_each_bound_and_not_before() -> None:
    """One partition that is not at its end is enough; the other's end does not count for it."""
    steps = [(at, polled(1)) for at in (0.0, 29.9, 30.0, 59.9, 60.0, 600.0)]
    assert levels(BOUNDS, *steps) == [0, 0, 1, 1, 2, 2]


def test_a_worker_that_keeps_up_leaves_nothing_out() -> None:
    """Partitions that are at their ends in turn, never all at once, are not behind."""
    steps = [(10.0 * i, polled(i % 2)) for i in range(20)]
    assert levels(BOUNDS, *steps) == [0] * 20


def test_it_comes_back_by_itself_one_level_at_a_time() -> None:
    """Ten seconds without a bound per level; a bound that is reached again begins them anew."""
    low = [(at, polled(1)) for at in (0.0, 60.0)]
    back = [(at, polled(0, 1)) for at in (61.0, 69.9, 70.0, 79.9, 80.0, 90.0)]
    assert levels(BOUNDS, *low, *back)[2:] == [2, 2, 1, 1, 0, 0]
    again = [(61.0, polled(0, 1)), (91.0, polled(1)), (100.9, polled(0, 1)), (101.0, polled(0, 1))]
    assert levels(BOUNDS, *low, *again)[2:] == [2, 2, 2, 1]


def test_partitions_that_were_given_up_are_not_waited_for() -> None:
    """What is assigned anew begins without a debt."""
    steps = [(0.0, polled(1)), (60.0, polled(assigned=(2,))), (61.0, polled(assigned=(2,)))]
    assert levels(BOUNDS, *steps) == [0, 0, 0]


def test_nothing_is_left_out_where_nothing_is_declared() -> None:
    """However far behind."""
    assert levels(None, (0.0, polled(1)), (1e6, polled(1))) == [0, 0]


def overloaded(log: MemoryLog, store: MemoryStore, level: int) -> Runner:
    """Return a worker that is held at a level."""
    one = worker(log, store)
    one._degrading.level = level
    return one


def two_halves(level: int) -> tuple[MemoryLog, MemoryStore]:
    """Return what is left of half a stream in peace and half of it at a level."""
    log, store, stream = new_log(), MemoryStore(), events(COUNT)
    fill(log, stream)
    first = worker(log, store)
    while log.end("journal", 0) < 4:
        first.step()
    first.parts.stream.close()
    drain(overloaded(log, store, level))
    return log, store


@pytest.fixture(scope="module")
def quiet() -> list[dict[str, Any]]:
    log, _ = two_halves(0)
    return journal(log)


@pytest.mark.parametrize(("level", "word"), [(1, "learning"), (2, "challengers")])
def test_every_score_says_what_was_left_out(
    level: int, word: str, quiet: list[dict[str, Any]]
) -> None:
    """Rows, their order and their x are those of a worker that keeps up; no event is left out."""
    rows = journal(two_halves(level)[0])
    assert [(r["source_offset"], r["outcome"], r["x"]) for r in rows] == [
        (r["source_offset"], r["outcome"], r["x"]) for r in quiet
    ]
    said = {r["degraded"] for r in rows if r["outcome"] == "scored"}
    assert said == {None, word}
    assert {r["degraded"] for r in rows if r["outcome"] != "scored"} == {None}
    assert {r["degraded"] for r in quiet} == {None}


def test_models_learn_nothing_meanwhile_and_everything_later() -> None:
    """The version stands where the worker began; what was not learned is in the log."""
    log, store = two_halves(1)
    versions = [(bool(r["degraded"]), r["model_version"]) for r in journal(log)]
    early, late = ({v for is_late, v in versions if is_late == x and v is not None} for x in (0, 1))
    assert len(late) == 1
    assert max(early) < min(late) < log.end("training", 0)
    back = worker(log, store)
    drain(back)
    assert back._training is not None
    assert back._training.version == log.end("training", 0)


def test_challengers_are_not_asked_and_the_deciding_model_is() -> None:
    """Their columns are null; a score is the calibrated one of the deciding model."""
    rows = [r for r in journal(two_halves(2)[0]) if r["degraded"]]
    assert {r["raw_odd"] for r in rows} == {r["score_odd"] for r in rows} == {None}
    assert all(r["score"] == r["score_fraud"] is not None for r in rows)


@pytest.mark.parametrize("level", [1, 2])
def test_what_was_left_out_is_folded_again_to_the_same_state(level: int) -> None:
    """A store that lost everything is rebuilt from the log, byte for byte."""
    log, store = two_halves(level)
    rebuilt = MemoryStore()
    drain(worker(log, rebuilt))
    kept, found = store._spaces, rebuilt._spaces
    assert {k: v.values for k, v in found.items()} == {k: v.values for k, v in kept.items()}


def test_degraded_scores_are_counted_and_the_change_is_logged() -> None:
    """One counter per word, and a warning when the level changes."""
    log = new_log()
    fill(log, events(COUNT))
    one = overloaded(log, MemoryStore(), 2)
    drain(one)
    scored = sum(r["degraded"] == "challengers" for r in journal(log))
    name = "riverwatch_degraded_scores_total"
    read = one.parts.telemetry.registry.get_sample_value
    assert read(name, {"degraded": "challengers"}) == scored > 0
    with capture_logs() as said:
        levels(BOUNDS, (0.0, polled(1)), (30.0, polled(1)))
    assert [(line["event"], line["to"], line["before"]) for line in said] == [("degraded", 1, 0)]


def test_a_model_whose_score_features_remember_is_always_asked() -> None:
    """What label features weigh by its score must not depend on the load."""
    models = worker(new_log(), MemoryStore()).parts.models
    assert models.challengers(()) == (1,)
    assert models.challengers(("raw_odd",)) == ()


def test_an_input_that_has_more_and_gives_nothing_is_counted() -> None:
    """Labels behind an open transaction: after five turns nobody waits, and the gauge says so."""
    listening, inbox = Listening("transactions", "labels"), Inbox("transactions", "labels", 0, 0, 0)
    found = []
    for _ in range(7):
        listening.hear(polled(0, assigned=(0,)), {0: inbox})
        found.append(listening.stalled)
    assert found == [0, 0, 0, 0, 0, 1, 1]
    labels_too = Polled([], frozenset({0}), None, frozenset({("transactions", 0), ("labels", 0)}))
    listening.hear(labels_too, {0: inbox})
    assert listening.stalled == 0


def test_bounds_out_of_order_are_a_problem() -> None:
    """Challengers are left out after learning."""
    wrong = settings(degrade={"learning": "2m", "challengers": "1m"})
    assert ("degrade", "challengers") in [p.path for p in semantic_problems(wrong)]


def test_a_partition_that_moves_takes_its_version_along() -> None:
    """Its new owner learns what the last one had learned, overloaded or not: v never goes back."""
    log, store, stream = new_log(2), MemoryStore(), events(COUNT)
    first, second = worker(log, store), worker(log, store, slot="1")
    second._degrading.level = 1
    drain(first, second)
    fill(log, stream[:200])
    drain(first, second)
    learned = first._version
    first.parts.stream.close()
    fill(log, stream[200:])
    drain(second)
    assert second._version >= learned > 0
    for partition in (0, 1):
        said = [row["model_version"] for row in journal(log, partition)]
        known = [version for version in said if version is not None]
        assert known == sorted(known)
        assert known[-1] >= learned
