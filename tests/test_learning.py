"""The join of labels and events, against a naive one that walks the merged stream item by item."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from worker.contracts.records import Label
from worker.learning import Scored, join_labels, with_observed
from worker.pending import Pending

HORIZON_MS = 50


def scored(ids: list[str], first_time: int = 0) -> Scored:
    n = len(ids)
    times = np.arange(first_time, first_time + n, dtype=np.int64)
    X = np.array([[float(i[1:]), 1.0] for i in ids]).reshape(n, 2)
    return Scored(ids, times, X, 1)


def join(pending: Pending, part: Scored, labels: list[Label], before: list[int]):
    made, labelled = join_labels(pending, part, labels, np.array(before, np.int64))
    made.fill_score(part.X[:, 0] / 100)
    made.fill_raw(part.X[:, :1] / 10)
    rows = [r for r in range(len(part.ids)) if r not in labelled]
    ids = [part.ids[r] for r in rows]
    pending.load(ids, [None] * len(ids))
    pending.add(ids, part.time_ms[rows], part.X[rows, 0] / 100, part.X[rows, :1] / 10, part.X[rows])
    return made


def label(event: str, y: int = 1, time_ms: int = 10) -> Label:
    return Label(event, y, time_ms)


def test_a_label_meets_the_event_of_an_earlier_batch() -> None:
    """The example carries the x and the score that were kept."""
    pending = Pending(HORIZON_MS, 100)
    join(pending, scored(["e1", "e2"]), [], [])
    made = join(pending, scored(["e3"]), [label("e2")], [1])
    assert made.examples.event_ids == ["e2"]
    assert made.examples.X.tolist() == [[2.0, 1.0]]
    assert made.examples.score.tolist() == [0.02]
    assert made.examples.raw.tolist() == [[0.2]]
    assert made.examples.before.tolist() == [1]


def test_an_early_label_waits_for_its_event() -> None:
    """The example is complete right after the event, not before."""
    pending = Pending(HORIZON_MS, 100)
    assert join(pending, scored(["e1"]), [label("e3")], [0]).counts["early"] == 1
    made = join(pending, scored(["e2", "e3", "e4"]), [], [])
    assert (made.examples.event_ids, made.examples.before.tolist()) == (["e3"], [2])
    assert not pending.early


def test_a_second_label_teaches_nothing() -> None:
    """A label that comes twice is counted as repeated, in the same batch and in a later one."""
    pending = Pending(HORIZON_MS, 100)
    made = join(pending, scored(["e1"]), [label("e1"), label("e1", 0)], [1, 1])
    assert (len(made.examples), made.counts["repeated"]) == (1, 1)
    made = join(pending, scored(["e2"]), [label("e1", 0)], [0])
    assert (len(made.examples), made.counts["repeated"]) == (0, 1)


def test_a_label_at_the_horizon_counts_and_one_after_it_does_not() -> None:
    """The horizon is inclusive."""
    pending = Pending(HORIZON_MS, 100)
    join(pending, scored(["e1", "e2"]), [], [])
    made = join(
        pending,
        scored(["e3"], 60),
        [label("e1", time_ms=HORIZON_MS), label("e2", time_ms=HORIZON_MS + 2)],
        [0, 0],
    )
    assert made.examples.event_ids == ["e1"]
    assert made.counts["expired"] == 1


def test_observed_events_come_right_after_their_score() -> None:
    """An event without a label is an example too where a model learns from events."""
    pending = Pending(HORIZON_MS, 100)
    part = scored(["e1", "e2"])
    made = with_observed(join(pending, part, [label("e1")], [1]), part)
    assert made.examples.event_ids == ["e1", "e1", "e2"]
    assert made.examples.y.tolist() == [-1, 1, -1]
    assert made.examples.before.tolist() == [1, 1, 2]


def naive(stream: list[tuple[str, str, int]]) -> list[tuple[str, int, int]]:
    """Return (event, y, events seen by then) by walking the stream one item at a time."""
    seen: set[str] = set()
    done: set[str] = set()
    early: dict[str, int] = {}
    out = []
    count = 0
    for kind, event, y in stream:
        if kind == "event":
            seen.add(event)
            count += 1
            if event in early:
                out.append((event, early.pop(event), count))
                done.add(event)
        elif event in done:
            continue
        elif event in seen:
            out.append((event, y, count))
            done.add(event)
        else:
            early[event] = y
    return out


@st.composite
def streams(draw: st.DrawFn) -> list[tuple[str, str, int]]:
    count = draw(st.integers(1, 12))
    events = [("event", f"e{i}", 0) for i in range(count)]
    named = st.tuples(
        st.just("label"), st.sampled_from([f"e{i}" for i in range(count + 2)]), st.integers(0, 1)
    )
    for item in draw(st.lists(named, max_size=20)):
        events.insert(draw(st.integers(0, len(events))), item)
    return events


@given(streams(), st.lists(st.integers(1, 6), min_size=1, max_size=30))
def test_any_batches_teach_what_the_naive_walk_teaches(
    stream: list[tuple[str, str, int]], sizes: list[int]
) -> None:
    """Examples, their order and their positions do not depend on how the stream is cut."""
    pending = Pending(10**9, 1000)
    out: list[tuple[str, int, int]] = []
    start = done = 0
    sizes = [*sizes, len(stream)]
    for size in sizes:
        part = stream[start : start + size]
        start += size
        events = [name for kind, name, _ in part if kind == "event"]
        labels, before, count = [], [], 0
        for kind, name, y in part:
            count += kind == "event"
            if kind == "label":
                labels.append(Label(name, y, 1))
                before.append(count)
        absent = pending.missing([made.event_id for made in labels])
        pending.load(absent, [None] * len(absent))
        made = join(pending, scored(events), labels, before).examples
        rows = zip(made.event_ids, made.y.tolist(), made.before.tolist(), strict=True)
        out += [(event, y, position + done) for event, y, position in rows]
        done += len(events)
    assert out == naive(stream)
