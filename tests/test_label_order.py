"""Labels in any order, cut into any batches, through any store: as the slow walk has it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import xxhash
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.label_oracle import Event, Oracle, Truth
from tests.label_worlds import HORIZON_MS, SOURCES, Stream, World, config, run
from worker.contracts.records import Label, Labels
from worker.pending import rules_of
from worker.segments import label_cuts


def oracle_of(world: World, stream: Stream, **options: Any) -> Oracle:
    """Return the slow walk; which events are duplicates is not its business."""
    told = iter(world.duplicate)
    marked = [
        replace(item, is_scored=not next(told)) if isinstance(item, Event) else item
        for item in stream
    ]
    rules = rules_of(world.config.labels)  # type: ignore[arg-type]

    def sampled(event_id: str) -> bool:
        one = np.array([xxhash.xxh3_64_intdigest(event_id.encode())], np.uint64)
        return bool(rules.samples(one)[0])

    oracle = Oracle(
        HORIZON_MS,
        pending_max=options.get("pending_max", 10**9),
        mode=options.get("mode", "explicit"),
        maturity_ms=int(options.get("maturity", "0ms")[:-2]),
        rate=options.get("negative_rate", 1.0),
        sampled=sampled,
        sources=SOURCES,
    )
    return oracle.run(marked)


EXPLICIT: dict[str, Any] = {"mode": "explicit"}
CASES: list[dict[str, Any]] = [
    EXPLICIT,
    {"mode": "explicit", "has_label_features": False},
    {"mode": "explicit", "pending_max": 3, "cached_max": 1},
    {"mode": "none", "cached_max": 1},
    {"mode": "positives_only", "maturity": "20ms", "cached_max": 1},
    {"mode": "positives_only", "maturity": "20ms", "negative_rate": 0.5, "pending_max": 4},
    {"mode": "positives_only", "maturity": "20ms", "has_label_features": False},
]


@st.composite
def streams(draw: st.DrawFn) -> Stream:
    """Events of two cards, ids that come again, late ones; labels of any of them at any time."""
    now_ms, stream = 1_000, []
    for _ in range(draw(st.integers(1, 25))):
        number = draw(st.integers(0, 9))
        if draw(st.booleans()):
            now_ms += draw(st.sampled_from([0, 1, 5, 30, 60]))
            time_ms = now_ms - draw(st.sampled_from([0, 0, 7, 58]))
            stream.append(Event(f"e{number}", f"c{number % 2}", time_ms, 100 + number))
        else:
            time_ms = now_ms + draw(st.sampled_from([0, -3, -51, 50, 51]))
            weight, source = draw(st.sampled_from([(1.0, ""), (2.0, "desk"), (1.0, "rules")]))
            y = draw(st.integers(0, 1))
            stream.append(Truth(f"e{number}", y, time_ms, weight, source))
    return stream


@st.composite
def cuttings(draw: st.DrawFn) -> tuple[list[int], list[str]]:
    cuts = draw(st.lists(st.integers(1, 8), max_size=12))
    then = st.sampled_from(["nothing", "flush", "begin anew"])
    return cuts, [draw(then) for _ in cuts]


def _again(*items: str | tuple[str, int]) -> Stream:
    """Return events of one card at one time, and labels: an id alone, or with what is said."""
    return [
        Event(one, "c0", 1_000, 100) if isinstance(one, str) else Truth(one[0], one[1], 1_000)
        for one in items
    ]


# A duplicate beyond ``pending_max`` cannot be found, so its label is early; then the id is scored
# again, once as it left the ring of four and once more, in the same batch.
BEYOND = _again("e2", "e8", "e0", "e2", ("e2", 1), "e6", "e4", "e2", "e3")
BEYOND_TWICE = _again(
    "e0", "e2", "e4", "e6", "e0", ("e0", 1), "e0", "e8", "e0", ("e0", 0), "e1", "e0", "e3"
)

# An event is scored again, out of the ring of four, just before the first of its id would mature.
RETAKEN: Stream = [
    *(Event(one, "c0", 1_000 + i, 100) for i, one in enumerate(["e2", "e8", "e0", "e4", "e6"])),
    *(Event(one, "c0", ms, 100) for one, ms in (("e2", 1_006), ("e1", 1_022), ("e3", 1_060))),
]
# Nothing for longer than an event can be found: it matures all the same.
GAP: Stream = [
    Event(one, "c0", ms, 100) for one, ms in (("e0", 1_000), ("e2", 1_058), ("e4", 1_200))
]


@pytest.mark.parametrize("options", CASES, ids=str)
@given(streams(), cuttings())
@example(RETAKEN, ([], []))
@example(RETAKEN, ([5], ["nothing"]))
@example(RETAKEN, ([5, 1], ["begin anew", "flush"]))
@example(GAP, ([], []))
@example(GAP, ([1, 1], ["begin anew", "begin anew"]))
@example(BEYOND, ([], []))
@example(BEYOND_TWICE, ([], []))
@example(BEYOND_TWICE, ([7], ["begin anew"]))
@hypothesis_settings(max_examples=15, deadline=None)
def test_labels_do_what_the_slow_walk_says(
    options: dict[str, Any], stream: Stream, cutting: tuple[list[int], list[str]]
) -> None:
    """Examples, updates of label features and fates, through batches, flushes and restarts."""
    world = run(stream, *cutting, **options)
    oracle = oracle_of(world, stream, **options)
    assert [example[:5] for example in world.examples] == oracle.examples
    fates = {fate: count for fate, count in world.fates.items() if count}
    assert fates == dict(Counter(oracle.fates))
    if options.get("has_label_features", True):
        assert [update[:9] for update in world.updates] == [one[:9] for one in oracle.updates]
        numbers = [number for number, again in enumerate(world.duplicate) if not again]
        scores = dict(zip(numbers, world.scores, strict=True))
        said = [round(scores[one[9]] * 1e6) for one in oracle.updates]
        assert [update[9] for update in world.updates] == said
        assert [update[10] for update in world.updates] == said


@pytest.mark.parametrize("options", CASES, ids=str)
@given(streams(), cuttings())
@hypothesis_settings(max_examples=8, deadline=None)
def test_model_scores_and_state_do_not_depend_on_the_cuts(
    options: dict[str, Any], stream: Stream, cutting: tuple[list[int], list[str]]
) -> None:
    """Batches, flushes and restarts change nothing, against one batch after each item."""
    world = run(stream, *cutting, **options)
    steps = run(stream, [1] * len(stream), ["nothing"] * len(stream), **options)
    assert world.scores == steps.scores
    assert repr(world.examples) == repr(steps.examples)
    assert world.state() == steps.state()


def test_an_id_that_comes_again_and_again_cuts_a_batch_only_around_its_label() -> None:
    """Nothing is said of the later events: before the label, after the next event, and no more."""
    pending = World(config(**EXPLICIT), has_label_features=True).shard.pending
    assert pending is not None
    labels = Labels.of([Label("e0", 1, 1_000, 1.0, "")])
    assert list(label_cuts(pending, ["e0"] * 500, labels, np.array([100]))) == [100, 101]
