"""What every stream promises, checked on each kind."""

from __future__ import annotations

import time

import pytest

from tests.streams.harness import Harness, join, journal, polls, read, start, together, visible
from worker.contracts.records import Output
from worker.errors import FatalError, StateLostError


def test_records_come_in_offset_order_with_what_was_written(harness: Harness) -> None:
    """Offsets, keys, values and timestamps of a partition arrive as written, tombstones too."""
    harness.append(harness.events, 0, [b"a", None, b"c"], key=b"card")
    stream = harness.stream()
    start(stream)
    records = next(p.records[0] for p in polls(stream) if p.records)
    assert (records.topic, records.partition) == (harness.events, 0)
    assert records.offsets == [0, 1, 2]
    assert records.values == [b"a", None, b"c"]
    assert records.keys == [b"card"] * 3
    assert records.timestamps_ms == [1000, 1001, 1002]
    assert records.next_offset == 3


def test_a_poll_returns_at_most_records_max(harness: Harness) -> None:
    """The bound holds over all partitions, and nothing is lost or reordered by it."""
    for partition in (0, 1):
        harness.append(harness.events, partition, [b"%d" % i for i in range(25)])
    stream = harness.stream()
    start(stream)
    found: dict[int, list[int]] = {0: [], 1: []}
    for polled in polls(stream, records_max=10):
        assert sum(len(r) for r in polled.records) <= 10
        for r in polled.records:
            found[r.partition] += r.offsets
        if sum(map(len, found.values())) == 50:
            break
    assert found == {0: list(range(25)), 1: list(range(25))}


def test_a_new_partition_returns_nothing_before_seek(harness: Harness) -> None:
    """Records of an assigned partition wait until its position was set."""
    harness.append(harness.events, 0, [b"a"])
    stream = harness.stream()
    join(stream)
    assert not any(stream.poll(50, 100).records for _ in range(5))
    stream.seek(0, 0, 0)
    assert read(stream, 1)[0] == [(harness.events, 0, 0, b"a")]


def test_seek_forgets_records_polled_earlier(harness: Harness) -> None:
    """After going back, the next record is the one at the new position."""
    harness.append(harness.events, 0, [b"a", b"b", b"c"])
    stream = harness.stream()
    start(stream)
    assert len(next(p.records[0] for p in polls(stream, records_max=1) if p.records)) == 1
    stream.seek(0, 2, 0)
    assert read(stream, 1)[0] == [(harness.events, 0, 2, b"c")]
    stream.seek(0, 0, 0)
    assert [row[2] for row in read(stream, 3)[0]] == [0, 1, 2]


def test_committed_is_none_before_the_first_commit(harness: Harness) -> None:
    """No offset is not the offset 0."""
    assert harness.stream().committed(0) is None


def test_commit_shows_outputs_and_positions_together(harness: Harness) -> None:
    """After a commit its records are readable, at the offsets it returned, and so are positions."""
    stream = harness.stream()
    generation = start(stream).generation
    outputs = [journal(harness, b"one"), journal(harness, b"two"), journal(harness, b"far", 1)]
    positions = {(harness.events, 0): 7, (harness.labels, 0): 3}
    assert stream.commit(generation, outputs, positions) == [0, 1, 0]
    assert visible(stream, harness.outputs.journal, 0) == [b"one", b"two"]
    assert visible(stream, harness.outputs.journal, 1) == [b"far"]
    assert stream.committed(0) == (7, 3)
    assert stream.committed(1) is None
    later = stream.commit(generation, [journal(harness, b"three")], {(harness.events, 1): 1})
    stream.settle(harness.outputs.journal, 0)  # a broker marks the end a moment after its answer
    assert stream.last_records(harness.outputs.journal, 0, 1).offsets == later


def test_a_missing_offset_beside_a_committed_one_is_the_beginning(harness: Harness) -> None:
    """Labels that were declared later are read from their first record."""
    harness.append(harness.labels, 0, [b"a", b"b", b"c"])
    harness.truncate(harness.labels, 0, 2)
    stream = harness.stream()
    stream.commit(start(stream).generation, [], {(harness.events, 0): 5})
    assert stream.committed(0) == (5, 2)


def test_a_commit_of_nothing_changes_nothing(harness: Harness) -> None:
    """An empty batch is allowed."""
    stream = harness.stream()
    assert stream.commit(start(stream).generation, [], {}) == []
    assert stream.committed(0) is None


def test_headers_and_empty_records_survive(harness: Harness) -> None:
    """A dead letter keeps its headers, also one of a tombstone without a key."""
    stream = harness.stream()
    topic = harness.outputs.dead_letters
    letter = Output(topic, 0, None, None, 5, (("reason", b"tombstone"),))
    assert stream.commit(start(stream).generation, [letter], {}) == [0]
    assert visible(stream, topic) == [None]
    assert harness.headers(topic, 0, 0) == {"reason": b"tombstone"}


def test_a_commit_from_before_a_recovery_is_refused(harness: Harness) -> None:
    """What was polled before `recover` is not written: neither outputs nor positions."""
    stream = harness.stream()
    generation = start(stream).generation
    stream.recover()
    with pytest.raises(StateLostError):
        stream.commit(generation, [journal(harness)], {(harness.events, 0): 9})
    assert visible(stream, harness.outputs.journal) == []
    assert stream.committed(0) is None


def test_a_commit_without_a_membership_is_refused(harness: Harness) -> None:
    """A commit must name the poll that delivered its records."""
    stream = harness.stream()
    start(stream)
    with pytest.raises(StateLostError):
        stream.commit(None, [journal(harness)], {})


def test_recover_makes_the_stream_ready_again(harness: Harness) -> None:
    """After `recover`, records flow from where they are sought, and commits work."""
    harness.append(harness.events, 0, [b"a", b"b"])
    stream = harness.stream()
    start(stream)
    read(stream, 2)
    stream.recover()
    assert not any(stream.poll(50, 100).records for _ in range(3))
    stream.seek(0, 1, 0)
    found, polled = read(stream, 1)
    assert found == [(harness.events, 0, 1, b"b")]
    stream.commit(polled.generation, [journal(harness)], {(harness.events, 0): 2})
    assert stream.committed(0) == (2, 0)


def test_an_evicted_member_is_refused_and_joins_again(harness: Harness) -> None:
    """A zombie's commit writes nothing; its partitions are shown as lost once, and come back."""
    stream = harness.stream()
    generation = start(stream).generation
    harness.evict("0")
    with pytest.raises(StateLostError):
        stream.commit(generation, [journal(harness)], {(harness.events, 0): 4})
    stream.recover()
    assert visible(stream, harness.outputs.journal) == []
    assert stream.committed(0) is None
    seen = [p.assigned for p, _ in zip(polls(stream), range(100), strict=False)]
    assert frozenset() in seen
    assert join(stream).assigned == {0, 1}
    stream.seek(0, 0, 0)
    generation = join(stream).generation
    stream.commit(generation, [journal(harness)], {(harness.events, 0): 4})
    assert stream.committed(0) == (4, 0)


def test_a_partition_that_was_lost_in_between_waits_for_seek_again(harness: Harness) -> None:
    """Somebody else may have moved it on, so its old position is worth nothing."""
    harness.append(harness.events, 0, [b"a", b"b"])
    stream = harness.stream()
    start(stream)
    read(stream, 2)
    harness.evict("0")
    next(p for p in polls(stream) if 0 not in p.assigned)
    join(stream)
    harness.append(harness.events, 0, [b"c"])
    assert not any(stream.poll(50, 100).records for _ in range(5))


def test_positions_of_partitions_that_are_not_assigned_are_refused(harness: Harness) -> None:
    """A member commits only what the poll said it owns."""
    one, two = harness.stream("a"), harness.stream("b")
    first, _ = together([one, two], lambda last: all(len(p.assigned) == 1 for p in last))
    (mine,) = first.assigned
    with pytest.raises(StateLostError):
        one.commit(first.generation, [journal(harness)], {(harness.events, 1 - mine): 3})
    assert visible(two, harness.outputs.journal) == []


def test_a_second_stream_in_the_same_slot_ends_the_first(harness: Harness) -> None:
    """Two processes in one slot would fence each other for ever: the older one must exit."""
    old = harness.stream()
    generation = start(old).generation
    old.commit(generation, [journal(harness, b"old")], {(harness.events, 0): 1})
    new = harness.stream()
    start(new)
    with pytest.raises(FatalError, match="slot"):
        old.commit(generation, [journal(harness, b"zombie")], {(harness.events, 0): 2})
    assert visible(new, harness.outputs.journal) == [b"old"]
    assert new.committed(0) == (1, 0)


def test_who_asked_last_for_a_name_writes_under_it(harness: Harness) -> None:
    """What it wrote is there as a whole; who had the name before writes nothing more."""
    stream = harness.stream()
    first = stream.writer("rekey-0")
    first.write([journal(harness, b"one"), journal(harness, b"two")])
    second = stream.writer("rekey-0")
    with pytest.raises(StateLostError):
        first.write([journal(harness, b"zombie")])
    second.write([journal(harness, b"three")])
    first.close()
    second.close()
    assert visible(stream, harness.outputs.journal) == [b"one", b"two", b"three"]


def test_settle_returns_the_end_of_the_log(harness: Harness) -> None:
    """With no transaction open, everything that was committed lies before the end."""
    stream = harness.stream()
    assert stream.settle(harness.outputs.journal, 0) == 0
    offsets = stream.commit(start(stream).generation, [journal(harness)], {})
    end = stream.settle(harness.outputs.journal, 0)
    assert offsets[-1] < end == stream.log_range(harness.outputs.journal, 0)[1]


def test_log_range_begins_at_the_first_record_that_is_left(harness: Harness) -> None:
    """Retention moves the beginning, not the end."""
    harness.append(harness.events, 0, [b"%d" % i for i in range(10)])
    stream = harness.stream()
    assert stream.log_range(harness.events, 0) == (0, 10)
    assert stream.log_range(harness.events, 1) == (0, 0)
    harness.truncate(harness.events, 0, 4)
    assert stream.log_range(harness.events, 0) == (4, 10)


def test_a_position_that_the_log_lost_is_refused(harness: Harness) -> None:
    """Records that were never read must not be passed over in silence."""
    harness.append(harness.events, 0, [b"%d" % i for i in range(10)])
    harness.truncate(harness.events, 0, 4)
    stream = harness.stream()
    start(stream)
    with pytest.raises(FatalError):
        read(stream, 1)
    with pytest.raises(FatalError):
        reader = harness.stream("reads").reader(harness.events, 0, 1)
        for _ in range(100):
            reader.poll(50, 10)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_last_records_are_found_behind_aborted_ones(harness: Harness, count: int) -> None:
    """Aborted records and markers at the tail are passed over; fewer come where fewer are."""
    topic = harness.outputs.journal
    harness.append(topic, 0, [b"a", b"b", b"c"])
    harness.append_aborted(topic, 0, 40)
    records = harness.stream().last_records(topic, 0, count)
    assert records.values == [b"a", b"b", b"c"][-count:]
    assert records.offsets == [0, 1, 2][-count:]
    assert records.next_offset == 44


def test_last_records_of_an_empty_log_are_none(harness: Harness) -> None:
    """An empty partition has no last record, also when all it has was aborted."""
    stream = harness.stream()
    assert len(stream.last_records(harness.outputs.journal, 0, 1)) == 0
    harness.append_aborted(harness.outputs.journal, 1, 3)
    assert len(stream.last_records(harness.outputs.journal, 1, 1)) == 0


def test_a_reader_starts_where_it_is_told_and_moves_over_aborted_records(harness: Harness) -> None:
    """Its position reaches the end although nothing visible is left there."""
    topic = harness.outputs.training
    harness.append(topic, 0, [b"a", b"b", b"c"])
    harness.append_aborted(topic, 0, 2)
    harness.append(topic, 0, [b"d"])
    harness.append_aborted(topic, 0, 2)
    stream = harness.stream()
    end = stream.log_range(topic, 0)[1]
    reader = stream.reader(topic, 0, 1)
    assert reader.position == 1
    found: list[tuple[int, bytes | None]] = []
    while reader.position < end:
        records = reader.poll(50, 2)
        found += zip(records.offsets, records.values, strict=True) if records else []
    assert found == [(1, b"b"), (2, b"c"), (6, b"d")]
    assert reader.poll(10, 2) is None
    reader.close()


def test_a_reader_begins_anew_where_the_one_before_it_stopped_half_way(harness: Harness) -> None:
    """Earlier, later, at the same place and in another partition: nothing of before is left."""
    topic = harness.events
    for p in (0, 1):
        harness.append(topic, p, [b"%d-%d" % (p, i) for i in range(30)])
    stream = harness.stream()
    for partition, offset in [(0, 10), (0, 2), (0, 25), (0, 12), (1, 12), (1, 14), (0, 14)]:
        reader = stream.reader(topic, partition, offset)
        polled = (reader.poll(100, 2) for _ in range(50))
        records = next(one for one in polled if one is not None)
        reader.close()
        assert (records.partition, records.offsets) == (partition, [offset, offset + 1])
        assert records.values == [b"%d-%d" % (partition, i) for i in records.offsets]


def test_readers_are_independent_of_each_other(harness: Harness) -> None:
    """Two at a time, and one after another was closed, each read from their own offset."""
    topic = harness.outputs.training
    harness.append(topic, 0, [b"a", b"b", b"c"])
    stream = harness.stream()
    first, second = stream.reader(topic, 0, 0), stream.reader(topic, 0, 2)
    values = [next(r for _ in range(100) if (r := x.poll(50, 1))).values for x in (second, first)]
    assert values == [[b"c"], [b"a"]]
    first.close()
    third = stream.reader(topic, 0, 1)
    records = next(r for _ in range(100) if (r := third.poll(50, 1)))
    assert records.values == [b"b"]
    second.close()
    third.close()


def test_pause_stops_exactly_the_given_partitions(harness: Harness) -> None:
    """The others flow, and a pause of others lets these flow again without loss."""
    harness.append(harness.events, 0, [b"a"])
    harness.append(harness.labels, 0, [b"b"])
    harness.append(harness.events, 1, [b"c"])
    stream = harness.stream()
    start(stream)
    stream.pause([(harness.events, 0), (harness.events, 1)])
    assert read(stream, 1)[0] == [(harness.labels, 0, 0, b"b")]
    assert not any(stream.poll(50, 100).records for _ in range(3))
    stream.pause([(harness.events, 1)])
    assert read(stream, 1)[0] == [(harness.events, 0, 0, b"a")]
    assert not any(stream.poll(50, 100).records for _ in range(3))
    stream.pause([])
    assert read(stream, 1)[0] == [(harness.events, 1, 0, b"c")]


def test_partitions_paused_half_way_go_on_where_they_were(harness: Harness) -> None:
    """Records that were fetched before a pause come after it, in order and without loss."""
    for partition in (0, 1):
        harness.append(harness.events, partition, [b"%d" % i for i in range(200)])
    stream = harness.stream()
    start(stream)
    found: dict[int, list[int]] = {0: [], 1: []}
    for i, polled in enumerate(polls(stream, records_max=30)):
        for r in polled.records:
            found[r.partition] += r.offsets
        if sum(map(len, found.values())) == 400:
            break
        stream.pause([(harness.events, p) for p in (0, 1) if i % 5 in (p, 2, 3)])
    assert found == {0: list(range(200)), 1: list(range(200))}


def test_caught_up_names_what_has_no_further_record(harness: Harness) -> None:
    """A partition with a backlog is not caught up; one that was read to its end is."""
    harness.append(harness.events, 0, [b"a", b"b", b"c"])
    stream = harness.stream()
    start(stream)
    first = next(p for p in polls(stream, records_max=1) if p.records)
    assert (harness.events, 0) not in first.caught_up
    everything = {(topic, p) for topic in (harness.events, harness.labels) for p in (0, 1)}
    next(p for p in polls(stream) if p.caught_up == everything)
    harness.append(harness.events, 0, [b"d"])
    assert read(stream, 1)[0] == [(harness.events, 0, 3, b"d")]


def test_aborted_records_at_the_end_do_not_hide_that_it_is_the_end(harness: Harness) -> None:
    """Nothing visible follows, so the topic is caught up."""
    harness.append(harness.events, 0, [b"a"])
    harness.append_aborted(harness.events, 0, 5)
    stream = harness.stream()
    start(stream)
    next(p for p in polls(stream) if (harness.events, 0) in p.caught_up)


def test_two_members_share_the_partitions_and_move_them_on_close(harness: Harness) -> None:
    """Each pair has one owner; the partitions of one that leaves go to the other at once."""
    one, two = harness.stream("a"), harness.stream("b")
    last = together([one, two], lambda last: all(len(p.assigned) == 1 for p in last))
    assert last[0].assigned | last[1].assigned == {0, 1}
    two.close()
    assert join(one).assigned == {0, 1}


def test_a_member_that_stays_keeps_its_partition_and_position(harness: Harness) -> None:
    """A rebalance takes away only what another member gets."""
    harness.append(harness.events, 0, [b"a"])
    harness.append(harness.events, 1, [b"b"])
    one = harness.stream("a")
    start(one)
    read(one, 2)
    two = harness.stream("b")
    last = together([one, two], lambda last: all(len(p.assigned) == 1 for p in last))
    (kept,) = last[0].assigned
    harness.append(harness.events, kept, [b"more"])
    found, polled = read(one, 1)
    assert found == [(harness.events, kept, 1, b"more")]
    one.commit(polled.generation, [journal(harness)], {(harness.events, kept): 2})
    assert two.committed(kept) == (2, 0)


def test_close_leaves_the_group_and_may_be_repeated(harness: Harness) -> None:
    """A successor in another slot owns everything without waiting for a timeout."""
    stream = harness.stream("a")
    start(stream)
    stream.close()
    stream.close()
    began_s = time.monotonic()
    assert join(harness.stream("b")).assigned == {0, 1}
    assert time.monotonic() - began_s < 4  # the session times out after six seconds


def test_keep_alive_takes_no_records(harness: Harness) -> None:
    """Whatever is there is still there for the next poll."""
    harness.append(harness.events, 0, [b"a", b"b"])
    stream = harness.stream()
    start(stream)
    for _ in range(3):
        stream.keep_alive()
    assert [row[3] for row in read(stream, 2)[0]] == [b"a", b"b"]
