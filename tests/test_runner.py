"""The loop over memory streams and stores: one outcome per event, whatever is lost or dies."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import replace
from itertools import compress
from typing import Any

import pytest

from tests.worlds import drain, events, fill, journal, new_log, settings, worker
from worker.checkpoint import Checkpoint, space_of
from worker.contracts.records import Output, Records
from worker.errors import (
    FatalError,
    RiverwatchError,
    StateLostError,
    TransientError,
    UnansweredError,
)
from worker.features.spec import compile_features
from worker.flushing import Dirty, Flusher
from worker.runner import Runner
from worker.stores import Meta, Writes
from worker.stores.memory import MemoryStore
from worker.streams import Polled, TopicPartition
from worker.streams.memory import MemoryLog, MemoryReader, MemoryStream
from worker.telemetry import Telemetry

COUNT = 400


class Killed(BaseException):
    """The process ends here: nothing after it runs, nothing catches it."""


class FragileStream(MemoryStream):
    """A stream whose n-th commit fails, before or after it took effect."""

    def __init__(
        self, log: MemoryLog, fail_at: int, *, after: bool, error: Callable[[], BaseException]
    ):
        super().__init__(
            log, group="world", slot="0", events_topic="transactions", labels_topic="labels"
        )
        self._left, self._after, self._error = fail_at, after, error

    def commit(
        self,
        generation: object,
        outputs: Sequence[Output],
        positions: Mapping[TopicPartition, int],
    ) -> list[int]:
        self._left -= 1
        if self._left == 0 and not self._after:
            raise self._error()
        offsets = super().commit(generation, outputs, positions)
        if self._left == 0:
            raise self._error()
        return offsets


class FragileStore(MemoryStore):
    """A store whose n-th flush fails, before or after it took effect; -1 is never."""

    def __init__(self, fail_at: int, *, after: bool, error: Callable[[], BaseException]) -> None:
        super().__init__()
        self._left, self._after, self._error = fail_at, after, error

    def flush(
        self, space: str, version: bytes | None, meta: Meta, writes: Sequence[Writes]
    ) -> None:
        self._left -= 1
        if self._left == 0 and not self._after:
            raise self._error()
        super().flush(space, version, meta, writes)
        if self._left == 0:
            raise self._error()


class Unfair(MemoryStream):
    """A stream that stays with one topic partition until that has no records or is paused.

    Then the next one has its turn. So does Kafka's client in a backlog, with what it has fetched.
    """

    def __init__(self, log: MemoryLog) -> None:
        super().__init__(
            log, group="world", slot="0", events_topic="transactions", labels_topic="labels"
        )
        self._all = [(t, p) for t in ("transactions", "labels") for p in range(self.partitions)]
        self._wanted_paused: set[TopicPartition] = set()

    def pause(self, partitions: Sequence[TopicPartition]) -> None:
        self._wanted_paused = set(partitions)

    def poll(self, timeout_ms: int, records_max: int) -> Polled:
        for place in list(self._all):
            super().pause([p for p in self._all if p != place or p in self._wanted_paused])
            polled = super().poll(timeout_ms, records_max)
            if polled.records:
                return polled
            self._all.remove(place)
            self._all.append(place)
        return super().poll(timeout_ms, records_max)


def full_log(partitions: int = 1) -> MemoryLog:
    log = new_log(partitions)
    fill(log, events(COUNT))
    return log


def rows_of_a_quiet_run(partitions: int = 1) -> list[list[dict[str, Any]]]:
    log = full_log(partitions)
    drain(worker(log, MemoryStore()))
    return [journal(log, p) for p in range(partitions)]


def what_is_certain(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """Return what may not depend on when the models learned."""
    keep = ("source_offset", "outcome", "reason", "event_id", "entity", "time_ms", "x")
    return [tuple(str(row[name]) for name in keep) for row in rows]


def without_terminals(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows without what they read of terminals, which depends on how far others were."""
    own = [not name.startswith("terminal") for name in compile_features(settings()).names]
    return [{**row, "x": row["x"] and list(compress(row["x"], own))} for row in rows]


def test_every_record_ends_as_one_row() -> None:
    """Scored, duplicate and rejected rows add up to the input, in its order."""
    log = full_log()
    drain(worker(log, MemoryStore()))
    rows = journal(log)
    assert [r["source_offset"] for r in rows] == list(range(COUNT))
    outcomes = [r["outcome"] for r in rows]
    assert outcomes.count("rejected") == COUNT // 37
    assert outcomes.count("duplicate") > 0
    seen: set[tuple[str, str]] = set()
    for row in rows:
        if row["outcome"] == "scored":
            assert (row["entity"], row["event_id"]) not in seen
            seen.add((row["entity"], row["event_id"]))


def test_what_is_rejected_is_dead_lettered_unchanged() -> None:
    """The bytes and key are those of the record, the place and reason are in the headers."""
    log = full_log()
    drain(worker(log, MemoryStore()))
    letters = log.read("dead-letters", 0, 0, 1000)
    rejected = [r for r in journal(log) if r["outcome"] == "rejected"]
    assert letters.values == [b"{broken"] * len(rejected)
    headers = dict(log.headers("dead-letters", 0, 0))
    assert headers["__connect.errors.topic"] == b"transactions"
    assert headers["__connect.errors.offset"] == str(rejected[0]["source_offset"]).encode()
    assert rejected[0]["reason"] == "not_json"
    assert b"broken" not in headers["__connect.errors.exception.message"]


def test_a_dead_letter_is_cut_to_what_the_topic_takes() -> None:
    """Of key and value as much as there is room for, and how long they were."""
    log = new_log()
    for key, value in ((b"c1", b"{" + b"v" * 5_000_000), (b"k" * 2_000_000, None), (b"c1", b"{")):
        log.append("transactions", 0, value, key, 0)
    drain(worker(log, MemoryStore()))
    letters = log.read("dead-letters", 0, 0, 10)
    sizes = [
        len(k or b"") + len(v or b"") for k, v in zip(letters.keys, letters.values, strict=True)
    ]
    assert all(897_000 < size < 899_500 for size in (sizes[0], 2 * sizes[1]))
    assert sizes[2] == 3
    assert letters.keys[0] == b"c1"
    assert set(letters.keys[1] or b"") == {ord("k")}
    told = [
        dict(log.headers("dead-letters", 0, i)).get("riverwatch.cut_from_bytes") for i in range(3)
    ]
    assert told == [b"5000003", b"2000000", None]


def test_alerts_are_the_rows_at_or_above_the_threshold() -> None:
    """One alert per row that was decided as one, named by its source position."""
    import msgspec

    log = full_log()
    drain(worker(log, MemoryStore()))
    alerts = [msgspec.json.decode(v or b"") for v in log.read("alerts", 0, 0, 10_000).values]
    wanted = [r for r in journal(log) if r["decision"] == "alert"]
    assert wanted
    assert all(r["score"] >= 0.6 for r in wanted)
    assert [a["alert_id"] for a in alerts] == [
        f"transactions-0-{r['source_offset']}" for r in wanted
    ]
    assert [a["score"] for a in alerts] == [r["score"] for r in wanted]


def test_models_learn_through_the_training_log_only() -> None:
    """A second worker that reads the same log has the same models; versions never go back."""
    log = full_log()
    first = worker(log, MemoryStore())
    drain(first)
    versions = [r["model_version"] for r in journal(log) if r["outcome"] == "scored"]
    assert versions == sorted(versions)
    assert versions[-1] > versions[0]
    assert versions[-1] <= log.end("training", 0)
    second = worker(log, MemoryStore(), slot="1")
    drain(first, second)
    assert first.parts.models.state_hash() == second.parts.models.state_hash()


def test_what_models_are_worth_is_gauged() -> None:
    """The figures in Prometheus are those of the models' own report, per model."""
    log = new_log()
    fill(log, events(800))
    runner = worker(log, MemoryStore())
    drain(runner)
    steward, telemetry = runner.parts.models.steward, Telemetry(lambda: 0.0)
    assert runner.parts.telemetry.registry.get_sample_value(
        "riverwatch_model_figures",
        {"model": "odd", "figure": "labelled", "over": "total", "segment": ""},
    )  # told by the worker itself, some examples ago
    telemetry.reviewed(steward)
    for report in steward.reports():
        (measured,) = report.figures
        for over, figures in measured.to_json().items():
            for figure in ("labelled", "positives", "roc_auc", "precision_at_k"):
                labels = {"model": report.name, "figure": figure, "over": over, "segment": ""}
                told = telemetry.registry.get_sample_value("riverwatch_model_figures", labels)
                assert told == figures[figure], labels
    assert steward.reports()[0].figures[0].recent.labelled > 500


@pytest.mark.parametrize(
    ("error", "event"),
    [
        (
            UnansweredError("transaction w.0", "an answer in time", "KafkaTimeoutError"),
            "unanswered",
        ),
        (TransientError("input of w", "an answer", "KafkaTimeoutError"), "unanswered"),
        (StateLostError("store w", "the version last seen", "another"), "state_lost"),
    ],
)
def test_what_nobody_answered_is_not_called_lost(
    error: RiverwatchError, event: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A broker that is frozen has lost nothing yet; the shards are acquired again in any case."""
    Telemetry(lambda: 0.0).lost(error)
    (line,) = capsys.readouterr().out.splitlines()
    assert f" {event} " in line


def test_labels_of_a_backlog_are_known_when_they_were_however_records_arrive() -> None:
    """Each row's labels are those no younger than the newest event so far, by record times."""
    log = new_log(3)
    fill(log, events(1500))
    drain(worker(log, MemoryStore(), stream=Unfair(log)))
    for p in range(3):
        times = log.read("transactions", p, 0, 10_000).timestamps_ms
        labels = log.read("labels", p, 0, 10_000).timestamps_ms
        for row in journal(log, p):
            newest = max(times[: row["source_offset"] + 1])
            known = sum(time <= newest for time in labels)
            assert row["labels_offset"] in (known, None if row["outcome"] != "scored" else known)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("fail_at", [1, 2, 5])
def test_a_worker_killed_at_a_commit_loses_and_doubles_nothing(fail_at: int, after: bool) -> None:
    """Before or after the commit took effect: the next worker ends with the rows of a quiet run."""
    log, store = full_log(), MemoryStore()
    first = worker(log, store, stream=FragileStream(log, fail_at, after=after, error=Killed))
    with pytest.raises(Killed):
        drain(first)
    drain(worker(log, store))
    assert what_is_certain(journal(log)) == what_is_certain(rows_of_a_quiet_run()[0])


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("fail_at", [1, 3])
def test_a_worker_killed_at_a_flush_loses_and_doubles_nothing(fail_at: int, after: bool) -> None:
    """The store may or may not have the flush: the fold makes up the difference."""
    log = full_log()
    store = FragileStore(fail_at, after=after, error=Killed)
    with pytest.raises(Killed):
        drain(worker(log, store))
    drain(worker(log, store))
    assert what_is_certain(journal(log)) == what_is_certain(rows_of_a_quiet_run()[0])


@pytest.mark.parametrize("after", [False, True])
def test_a_commit_in_doubt_is_settled_by_acquiring_again(after: bool) -> None:
    """The worker goes on by itself, and whether the commit counted is taken from the log."""
    log = full_log()

    def doubt() -> StateLostError:
        return StateLostError("commit", "an answer", "none")

    drain(worker(log, MemoryStore(), stream=FragileStream(log, 3, after=after, error=doubt)))
    assert what_is_certain(journal(log)) == what_is_certain(rows_of_a_quiet_run()[0])


@pytest.mark.parametrize("after", [False, True])
def test_a_flush_without_an_answer_is_repeated(after: bool) -> None:
    """The same write goes again until it is known; nothing is read at a version in doubt."""
    log = full_log()
    store = FragileStore(2, after=after, error=lambda: TransientError("store", "an answer", "none"))
    drain(worker(log, store))
    drain(worker(log, store, slot="0"))
    assert what_is_certain(journal(log)) == what_is_certain(rows_of_a_quiet_run()[0])


def test_an_empty_store_is_rebuilt_from_the_log() -> None:
    """Half the stream, then everything in the store is lost: the rest has the same features."""
    log = new_log()
    stream = events(COUNT)
    fill(log, stream[: COUNT // 2])
    drain(worker(log, MemoryStore()))
    whole = full_log()
    for topic in ("transactions", "labels"):
        rest = whole.read(topic, 0, log.end(topic, 0), 10_000)
        for key, value, time_ms in zip(rest.keys, rest.values, rest.timestamps_ms, strict=True):
            log.append(topic, 0, value, key, time_ms)
    drain(worker(log, MemoryStore()))
    assert what_is_certain(journal(log)) == what_is_certain(rows_of_a_quiet_run()[0])


def test_a_store_that_is_ahead_of_the_log_is_refused() -> None:
    """R beyond C: nobody knows which is right, so the worker stops and names the remedy."""
    log, store = full_log(), MemoryStore()
    drain(worker(log, store))
    other = new_log()
    fill(other, events(20))
    with pytest.raises(FatalError, match="operations"):
        drain(worker(other, store))


class HeldStream(MemoryStream):
    """A stream whose worker is held once, after it has read what is committed."""

    meanwhile: Callable[[], None] | None = None

    def last_records(self, topic: str, partition: int, count: int) -> Records:
        found = super().last_records(topic, partition, count)
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()
        return found


def test_a_worker_held_while_it_acquires_does_not_refuse_what_another_wrote_meanwhile() -> None:
    """R is beyond the C that it has read, and not beyond what is committed by now."""
    log, store = full_log(), MemoryStore()
    held = HeldStream(
        log, group="world", slot="0", events_topic="transactions", labels_topic="labels"
    )

    def meanwhile() -> None:
        log.evict("world", "0")
        drain(worker(log, store, slot="1"))

    held.meanwhile = meanwhile
    drain(worker(log, store, stream=held))
    assert what_is_certain(journal(log)) == what_is_certain(rows_of_a_quiet_run()[0])


def test_two_workers_share_the_partitions_and_survive_each_other() -> None:
    """Four partitions, two workers, one leaves in the middle: each row is there once."""
    log, store = full_log(4), MemoryStore()
    first, second = worker(log, store, slot="0"), worker(log, store, slot="1")
    for _ in range(3):
        first.step()
        second.step()
    second.parts.stream.close()
    drain(first)
    for p, quiet in enumerate(map(without_terminals, rows_of_a_quiet_run(4))):
        assert what_is_certain(without_terminals(journal(log, p))) == what_is_certain(quiet)


@pytest.mark.parametrize("partitions", [1, 4])
def test_what_is_written_from_the_background_changes_nothing(partitions: int) -> None:
    """Commits and flushes that end as late as they can: the same rows, and nothing is left out."""
    log, store = full_log(partitions), MemoryStore()
    late = worker(log, store, late=True)
    drain(late)
    drain(worker(log, store, late=True))  # it goes on from the store
    for p, quiet in enumerate(map(without_terminals, rows_of_a_quiet_run(partitions))):
        assert what_is_certain(without_terminals(journal(log, p))) == what_is_certain(quiet)


class AwayStream(FragileStream):
    """It does not answer one poll, after a transaction was begun in the background."""

    def poll(self, timeout_ms: int, records_max: int) -> Polled:
        is_away, self.is_away = self.is_away, False
        if is_away:
            raise TransientError("input", "an answer", "none")
        return super().poll(timeout_ms, records_max)

    is_away = False


def in_doubt(error: Callable[[], BaseException], fail_at: int) -> Runner:
    """Return a worker with a transaction under way whose next poll fails."""
    log = full_log()
    stream = AwayStream(log, fail_at, after=False, error=error)
    one = worker(log, MemoryStore(), stream=stream, late=True)
    assert any(one.step() for _ in range(9))
    stream.is_away = True
    return one


def test_a_slot_that_another_has_is_left_even_when_all_is_forgotten_for_another_reason() -> None:
    """To recover would take the slot back from the one that lives in it."""
    one = in_doubt(lambda: FatalError("slot 0", "this worker", "another"), 1)
    with pytest.raises(FatalError):
        one.step()


def test_what_was_committed_is_counted_even_when_all_is_forgotten() -> None:
    """Its transaction has succeeded; what failed is another thing."""
    one = in_doubt(Killed, 0)
    drain(one)
    scored = sum(row["outcome"] == "scored" for row in rows_of_a_quiet_run()[0])
    assert one.parts.telemetry.outcomes.labels("scored")._value.get() == scored


def test_a_worker_that_is_asked_to_stop_leaves_nothing_to_fold() -> None:
    """Its last flush is of the end, however far off the next one was."""
    log, store = full_log(), MemoryStore()
    one = worker(log, store, flush_every_s=1e9, stop=lambda: True)
    drain(one)
    assert store.meta(space_of("world", one.parts.spec, 0)) is None
    one.run()
    meta = store.meta(space_of("world", one.parts.spec, 0))
    assert meta is not None
    assert (meta.events_offset, meta.labels_offset) == (COUNT, log.end("labels", 0))


class Rebalancing(MemoryStream):
    """A stream that says whether the group rebalances, and keeps what is under way at each poll."""

    is_rebalancing = False

    def __init__(self, log: MemoryLog, *, says: bool) -> None:
        super().__init__(
            log, group="world", slot="0", events_topic="transactions", labels_topic="labels"
        )
        self.is_rebalancing = says
        self.is_writing: Callable[[], bool] = lambda: False
        self.was_writing: list[bool] = []

    def poll(self, timeout_ms: int, records_max: int) -> Polled:
        self.was_writing.append(self.is_writing())
        return super().poll(timeout_ms, records_max)


@pytest.mark.parametrize("says", [True, False])
def test_a_transaction_ends_before_the_poll_that_ends_its_membership(says: bool) -> None:
    """It would be refused, and all be acquired again. Otherwise polls do not wait for it."""
    log = full_log()
    stream = Rebalancing(log, says=says)
    one = worker(log, MemoryStore(), stream=stream, late=True)
    stream.is_writing = lambda: one._committer.is_running
    drain(one)
    assert any(stream.was_writing) is not says


class Early(Executor):
    """A background thread that is done at once; what came of it is learned by who asks."""

    def submit(self, work: Callable[..., Any], /, *args: Any, **words: Any) -> Future[Any]:
        done: Future[Any] = Future()
        try:
            done.set_result(work(*args, **words))
        except Exception as error:
            done.set_exception(error)
        return done


def under_way(one: Runner) -> set[int]:
    """Return the partitions of the transaction that nobody has asked after."""
    running = one._committer._running
    return set() if running is None else {live.shard.partition for live, _ in running[0]}


def test_what_was_committed_is_noted_before_its_shard_is_given_up() -> None:
    """Another worker takes partitions whose transaction has ended, and nobody has asked yet."""
    log, store = full_log(4), MemoryStore()
    parts = replace(worker(log, store).parts, background=Early(), committing=Early())
    one = Runner(parts, lambda: False, flush_every_s=0.0, sleep=lambda s: None)
    while 3 not in under_way(one):
        one.step()
    drain(one, worker(log, store, slot="1"))
    for p, quiet in enumerate(map(without_terminals, rows_of_a_quiet_run(4))):
        assert what_is_certain(without_terminals(journal(log, p))) == what_is_certain(quiet)


class Closed(MemoryReader):
    """A reader that knows whether it was read after it was closed, as no client may be."""

    polled_closed = is_closed = False

    def poll(self, timeout_ms: int, records_max: int) -> Records | None:
        type(self).polled_closed |= self.is_closed
        return super().poll(timeout_ms, records_max)

    def close(self) -> None:
        self.is_closed = True


class ClosedStream(MemoryStream):
    """A stream with such readers."""

    def reader(self, topic: str, partition: int, offset: int) -> MemoryReader:
        return Closed(self._log, topic, partition, offset)


def test_the_training_log_is_not_closed_while_it_is_read_in_the_background() -> None:
    """The worker is asked to stop while its last transaction is under way."""
    log, steps = full_log(), iter(range(9))
    names = {"events_topic": "transactions", "labels_topic": "labels"}
    stream = ClosedStream(log, group="world", slot="0", **names)
    one = worker(
        log, MemoryStore(), stream=stream, late=True, flush_every_s=None,
        stop=lambda: next(steps) > 4,
    )  # fmt: skip
    one.run()
    assert log.end("training", 0)
    assert not Closed.polled_closed


def test_commits_from_the_background_need_flushes_from_there_too() -> None:
    """Else memory would be freed between what a batch loads and its processing."""
    parts = worker(full_log(), MemoryStore(), late=True).parts
    with pytest.raises(AssertionError):
        Runner(replace(parts, background=None), lambda: False, flush_every_s=0.0)


@pytest.mark.parametrize("late", [False, True])
def test_a_bounded_cache_changes_nothing(late: bool) -> None:
    """With a tenth of the pending events in memory, features, matches and alerts stay the same."""
    small = settings(labels={"topic": "labels", "horizon": "30d", "cached_max": 3})
    few = small.runner.model_copy(update={"entities_max": 2})  # fewer than may be declared
    small = small.model_copy(update={"runner": few})
    log = full_log()
    drain(worker(log, MemoryStore(), config=small, late=late))
    assert journal(log) == rows_of_a_quiet_run()[0]


def test_a_changed_feature_spec_is_built_from_the_log() -> None:
    """Other features under the same name: old events are folded, new ones have the new x."""
    log, store = new_log(), MemoryStore()
    stream = events(COUNT)
    fill(log, stream[: COUNT // 2])
    drain(worker(log, store))
    whole, half = full_log(), log.end("transactions", 0)
    for topic in ("transactions", "labels"):
        rest = whole.read(topic, 0, log.end(topic, 0), 10_000)
        for key, value, time_ms in zip(rest.keys, rest.values, rest.timestamps_ms, strict=True):
            log.append(topic, 0, value, key, time_ms)
    wider = settings(features={"amount": "$amount", "card": {"sum(amount)": ["1d", "7d"]}})
    drain(worker(log, store, config=wider))
    quiet = full_log()
    drain(worker(quiet, MemoryStore(), config=wider))
    assert what_is_certain(journal(log)[half:]) == what_is_certain(journal(quiet)[half:])


class ReluctantStore(MemoryStore):
    """A store that is away for one question about one space."""

    def __init__(self, away_at: int) -> None:
        super().__init__()
        self._left = away_at

    def meta(self, space: str) -> Meta | None:
        self._left -= 1
        if self._left == 0:
            raise TransientError("store", "an answer", "none")
        return super().meta(space)


def test_records_of_live_shards_survive_an_acquire_that_fails() -> None:
    """A second partition comes while the store is away: what the first was given is not lost."""
    log, store = full_log(2), ReluctantStore(away_at=3)
    other = worker(log, store, slot="1")
    first = worker(log, store, slot="0")
    first.step()
    other.step()
    other.parts.stream.close()
    drain(first)
    for p, quiet in enumerate(map(without_terminals, rows_of_a_quiet_run(2))):
        assert what_is_certain(without_terminals(journal(log, p))) == what_is_certain(quiet)


def test_a_flush_that_finds_another_version_acquires_again() -> None:
    """The store lost its writes: nothing that was polled before arrives twice."""
    log = full_log()

    def lost() -> StateLostError:
        return StateLostError("space", "the version written last", "another")

    drain(worker(log, FragileStore(2, after=False, error=lost)))
    assert what_is_certain(journal(log)) == what_is_certain(rows_of_a_quiet_run()[0])


class AbsentStore(MemoryStore):
    """A store that takes no writes the first times it is asked."""

    def __init__(self, refusals: int) -> None:
        super().__init__()
        self.refusals = refusals
        self.largest = 0

    def flush(
        self, space: str, version: bytes | None, meta: Meta, writes: Sequence[Writes]
    ) -> None:
        self.refusals -= 1
        self.largest = max(self.largest, sum(len(group.keys) for group in writes))
        if self.refusals >= 0:
            raise TransientError("store", "an answer", "none")
        super().flush(space, version, meta, writes)


def test_at_the_dirty_cap_a_worker_waits_for_its_store() -> None:
    """State that cannot be written stays bounded, and then the worker goes on by itself."""
    log, store = full_log(), AbsentStore(refusals=200)
    capped = settings(runner={"batch_records_max": 20, "dirty_max": 60})
    drain(worker(log, store, config=capped, flush_every_s=None))
    assert store.refusals < 0
    assert 60 <= store.largest < 120
    assert what_is_certain(journal(log)) == what_is_certain(rows_of_a_quiet_run()[0])


class Small:
    """A state of one value."""

    events_next = labels_next = 0

    def take_writes(self) -> list[tuple[str, list[str], list[bytes | None]]]:
        return [("shard", ["it"], [b"value"])]

    def evict(self) -> None:
        """Nothing is too much."""


def test_a_store_that_is_away_costs_one_try_at_a_time() -> None:
    """The other states wait for the next time, which begins behind the one that was tried."""
    tried: list[str] = []

    class Watched(AbsentStore):
        def flush(self, space: str, *words: Any) -> None:
            tried.append(space)
            super().flush(space, *words)

    store, flusher = Watched(refusals=2), Flusher(Telemetry(lambda: 0.0), lambda: 0.0, None)
    states = [Dirty(i, Small(), Checkpoint(store, name, None, 1, 1), 0)
              for i, name in enumerate("abc")]  # fmt: skip
    assert [flusher.flush(states) for _ in range(2)] == [False, False]
    assert flusher.is_away and tried == ["a", "b"]
    assert flusher.flush(states) and not flusher.is_away
    assert tried[2:4] == ["c", "a"] and set(tried) == {"a", "b", "c"}
    assert all(store.meta(name) is not None for name in "abc")


def test_a_worker_whose_store_takes_no_writes_is_not_ready() -> None:
    """However often it polls meanwhile; it is again by itself."""
    one = worker(full_log(), MemoryStore())
    one.step()
    assert (one.parts.telemetry.ready, one.parts.telemetry.reason) == (True, "live")
    one._flusher.is_away = True
    one._poll(0)
    assert not one.parts.telemetry.ready
    assert one.parts.telemetry.reason == "the store does not take writes"
    drain(one)
    assert one.parts.telemetry.ready


def test_a_worker_that_is_asked_to_stop_ends_a_long_fold() -> None:
    """Recovery asks between polls; what it folded is not lost, it is done again."""
    log = full_log()
    drain(worker(log, MemoryStore()))
    asked = iter([False] * 4 + [True] * 1_000)
    runner = worker(log, MemoryStore(), stop=lambda: next(asked))
    runner.run()
    assert not runner.parts.telemetry.ready
