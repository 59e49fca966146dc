"""What becomes of a label: each fate by its example and at its boundary."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.label_oracle import Event, Truth
from tests.label_worlds import HORIZON_MS, World, config, run
from worker.contracts.needs import satisfy
from worker.learning import with_observed

START_MS = 1_000
KEEP_MS = HORIZON_MS + HORIZON_MS // 8


def event(name: str, after_ms: int = 0) -> Event:
    return Event(name, "c0", START_MS + after_ms, 100)


def label(name: str, y: int = 1, after_ms: int = 10, **more: Any) -> Truth:
    return Truth(name, y, START_MS + after_ms, **more)


def world_of(*stream: Event | Truth, **options: Any) -> World:
    """Return the world after a stream, a batch an item; in fewer batches the same becomes of it."""
    world = run(list(stream), [1] * len(stream), ["nothing"] * len(stream), **options)
    for cuts in ([], [1]):
        other = run(
            list(stream), cuts, ["nothing"] * len(cuts), has_label_features=False, **options
        )
        assert (other.fates, taught(other)) == (world.fates, taught(world))
    return world


def fates(world: World) -> dict[str, int]:
    return {fate: count for fate, count in world.fates.items() if count}


def taught(world: World) -> list[tuple[str, int, float, int]]:
    """Return (event, y, weight, events scored before) of each example."""
    return [example[:4] for example in world.examples]


def test_a_label_meets_the_event_of_an_earlier_batch() -> None:
    """The example carries the x and the scores that were kept, and comes before the next event."""
    world = world_of(event("a"), event("b", 1), label("a"), event("c", 2))
    assert fates(world) == {"matched": 1}
    assert world.examples == [("a", 1, 1.0, 2, 100, world.scores[0], (world.scores[0],))]


def test_a_label_in_the_batch_of_its_event_carries_what_was_said_there() -> None:
    """Its scores are those of the batch, whether or not the batch is cut for label features."""
    for has_label_features in (False, True):
        stream = [event("a"), event("b", 1), label("a"), event("c", 2)]
        world = run(stream, [], [], has_label_features=has_label_features)
        assert world.examples == [("a", 1, 1.0, 2, 100, world.scores[0], (world.scores[0],))]


def test_an_early_label_waits_for_its_event() -> None:
    """The example is complete right after the event, not before."""
    world = world_of(label("b"), event("a"), event("b", 1), event("c", 2))
    assert fates(world) == {"early": 1, "matched": 1}
    assert taught(world) == [("b", 1, 1.0, 2)]


@pytest.mark.parametrize(("age_ms", "fate"), [(49, "matched"), (50, "matched"), (51, "unknown")])
def test_an_early_label_waits_for_the_horizon(age_ms: int, fate: str) -> None:
    """It is taken by an event that comes when it is as old as the horizon, and not later."""
    world = world_of(label("b", after_ms=0), event("b", age_ms))
    assert fates(world) == {"early": 1, fate: 1}


@pytest.mark.parametrize(("y", "fate"), [(1, "repeated"), (0, "revised")])
def test_a_label_after_an_early_one_knows_what_that_said(y: int, fate: str) -> None:
    """Also where both meet the event in one batch."""
    world = world_of(label("a"), event("a"), label("a", y))
    assert fates(world) == {"early": 1, "matched": 1, fate: 1}


def test_an_early_label_whose_event_never_comes_is_unknown() -> None:
    """It is counted when the next early label finds it older than the horizon."""
    world = world_of(label("x", after_ms=0), event("a", HORIZON_MS + 1), label("y", after_ms=60))
    assert fates(world) == {"early": 2, "unknown": 1}


def test_the_last_of_several_early_labels_counts() -> None:
    """An early label takes the place of an earlier one."""
    world = world_of(label("a", 1), label("a", 0), event("a"))
    assert taught(world) == [("a", 0, 1.0, 1)]


def test_a_label_that_says_the_same_again_is_repeated() -> None:
    """It teaches nothing and label features hear nothing of it."""
    world = world_of(event("a"), label("a"), event("b", 1), label("a"))
    assert fates(world) == {"matched": 1, "repeated": 1}
    assert len(world.examples) == len(world.updates) == 1


def test_a_label_that_says_something_else_is_revised() -> None:
    """The last word counts: models get it as a new example, features undo the earlier one."""
    world = world_of(event("a"), label("a", 0), event("b", 1), label("a", 1, weight=2.0))
    assert fates(world) == {"matched": 1, "revised": 1}
    assert taught(world) == [("a", 0, 1.0, 1), ("a", 1, 2.0, 2)]
    assert [update[:6] for update in world.updates] == [
        ("a", 1, 0, -1, 1.0, 0.0),
        ("a", 2, 1, 0, 2.0, 1.0),
    ]


@pytest.mark.parametrize(("age_ms", "fate"), [(49, "matched"), (50, "matched"), (51, "expired")])
def test_a_label_after_the_horizon_is_expired(age_ms: int, fate: str) -> None:
    """The horizon is inclusive; it is the label's own time that counts."""
    assert fates(world_of(event("a"), label("a", after_ms=age_ms))) == {fate: 1}


@pytest.mark.parametrize(("clock_ms", "fate"), [(KEEP_MS, "matched"), (KEEP_MS + 1, "early")])
def test_an_event_is_found_for_an_eighth_longer_than_the_horizon(clock_ms: int, fate: str) -> None:
    """After that a label, whatever its time, is as that of an event never seen."""
    assert fates(world_of(event("a"), event("b", clock_ms), label("a"))) == {fate: 1}


@pytest.mark.parametrize(("later", "fate"), [(2, "matched"), (3, "early")])
def test_only_so_many_events_wait(later: int, fate: str) -> None:
    """With ``pending_max`` 3 the third event back is found, the fourth is not."""
    events = [event(f"e{i}", i) for i in range(later + 1)]
    assert fates(world_of(*events, label("e0"), pending_max=3)) == {fate: 1}


def test_an_event_whose_id_comes_again_is_a_new_one() -> None:
    """Beyond the ring a second event of an id is scored anew, and has no label yet."""
    others = [event(f"o{i}", 1 + i) for i in range(4)]
    again = event("a", 5)
    world = world_of(event("a"), label("a"), *others, again, label("a"))
    assert world.duplicate == [False] * 6
    assert fates(world) == {"matched": 2}
    assert [update[3] for update in world.updates] == [-1, -1]


@pytest.mark.parametrize(
    ("source", "weight", "learned"),
    [("", 1.5, 1.5), ("desk", 3.0, 3.0), ("desk", 4.0, 4.0), ("rules", 1.5, 0.0)],
)
def test_a_source_has_its_weight_and_its_cap(source: str, weight: float, learned: float) -> None:
    """``desk`` counts three times, at most 4; what ``rules`` says is measured, never learned."""
    said = {"": 1.5, "desk": weight / 3.0 if weight < 4.0 else 2.0, "rules": 1.5}[source]
    world = world_of(event("a"), label("a", weight=said, source=source))
    assert taught(world) == [("a", 1, learned, 1)]
    assert [update[4] for update in world.updates] == [weight]


def test_labels_of_mode_none_are_measured_and_never_learned() -> None:
    """The example has weight 0, and the models are as if it had never come."""
    world = world_of(event("a"), label("a"), mode="none")
    assert taught(world) == [("a", 1, 0.0, 1)]

    def learned(world: World) -> str:
        return world.models["fraud"].state_hash()

    assert learned(world) == learned(world_of(event("a")))
    assert learned(world) != learned(world_of(event("a"), label("a")))


@pytest.mark.parametrize(("clock_ms", "count"), [(19, 0), (20, 1)])
def test_an_event_without_a_label_matures(clock_ms: int, count: int) -> None:
    """At the age of ``maturity`` it is a negative example, before that event is scored."""
    options = {"mode": "positives_only", "maturity": "20ms"}
    world = world_of(event("a"), event("b", clock_ms), **options)
    assert taught(world) == [("a", 0, 1.0, 1)][:count]


def test_a_label_in_time_keeps_an_event_from_maturing() -> None:
    """Early, or just before the event that would mature it."""
    options = {"mode": "positives_only", "maturity": "20ms"}
    for stream in ([event("a"), label("a")], [label("a"), event("a")]):
        world = world_of(*stream, event("b", 20), **options)
        assert [example[:2] for example in world.examples] == [("a", 1)]


def test_a_late_positive_revises_a_negative() -> None:
    """The event was told to be genuine; the models and features hear better."""
    options = {"mode": "positives_only", "maturity": "20ms"}
    world = world_of(event("a"), event("b", 20), label("a", after_ms=30), **options)
    assert fates(world) == {"matured": 1, "revised": 1}
    assert [update[2:4] for update in world.updates] == [(0, -1), (1, 0)]


def test_negatives_are_sampled_by_their_ids_and_weighted() -> None:
    """At a rate of 0.1 about a tenth of 400 is there, with weight 10; and always the same ones."""
    options = {"mode": "positives_only", "maturity": "20ms", "negative_rate": 0.1}
    stream = [event(f"e{i}", i) for i in range(400)]
    whole = run(list(stream), [], [], has_label_features=False, **options)
    assert 20 <= len(whole.examples) <= 60
    assert {example[2] for example in whole.examples} == {10.0}
    pieces = run(list(stream), [7] * 50, ["flush"] * 50, has_label_features=False, **options)
    assert repr(pieces.examples) == repr(whole.examples)


def test_after_a_gap_events_mature_eight_at_a_time() -> None:
    """A batch stays bounded: what is due comes with the events that follow, oldest first."""
    options = {"mode": "positives_only", "maturity": "20ms"}
    stream = [*(event(f"e{i}", 0) for i in range(20)), event("x", 30), event("y", 30)]
    world = run(list(stream), [20, 1], ["flush", "begin anew"], **options)
    assert [example[0] for example in world.examples] == [f"e{i}" for i in range(16)]
    assert [example[3] for example in world.examples] == [20] * 8 + [21] * 8


def test_observed_events_come_right_after_their_score() -> None:
    """An event without a label is an example too where a model learns from events."""
    stream = [event("a"), event("b", 1), label("a")]
    world = World(config(), has_label_features=False)
    batch = world.batch_of(list(stream))
    satisfy(world.shard.supply(batch), world.load)
    (part,) = world.shard._parts(batch, None)
    made = with_observed(part.join, part.scored).examples
    assert made.event_ids == ["a", "b", "a"]
    assert made.y.tolist() == [-1, -1, 1]
    assert made.before.tolist() == [1, 2, 2]
    assert np.array_equal(made.raw[:2], part.scored.raw)
