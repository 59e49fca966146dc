"""Rows of secondary entities that nobody wrote under this state: those of records that workers of
another `features` section processed.

A shard's journal records say under which state they were processed, and the rows of each are in
`entity-updates` under that state, by the same transaction. Under another state they are missing.
Who folds these records, a worker that acquires the shard or a backfill, writes them:

1. take the shard's name for this, ``rekey-P``. Whoever had it before is refused from now on and has
   nothing open; partition P of the topic is settled, so that all it wrote is there to be read.
2. look for the last mark of this state in partition P of the topic: its rows of journal records
   before the offset that the mark names are in the topic.
3. fold, and append the rows of records at or after it that were processed under another state, many
   to a transaction; each ends with a mark, in the same transaction.
4. the shard's state is flushed after its rows were written. So a state never lacks a row that is
   not after its own position, and every row is there once, wherever it died.

A worker is live after that: the rows of its own records follow. Rows come in the order of
their shard, one shard after the other; what that means for owners is told in docs/design.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from worker.arrow import read_stamps
from worker.contracts.records import EntityRows, Output
from worker.contracts.settings import KafkaSettings, Settings
from worker.contracts.slots import transactional_id
from worker.features.spec import FeatureSpec
from worker.secondary import Rekeyed, secondary_parts
from worker.streams import Log, Writer
from worker.updates import no_updates, update_records

ROWS_MAX = 20_000
"""Rows that wait for their transaction."""

_MARK = b"rekeyed"  # the key of a record that says how far: others have none
_NEXT = "next_journal"
_RECORD_BYTES_MAX = 900_000
_CHUNK = 5_000  # offsets of the topic that are looked through at once, from its end on


class RowEncoder:
    """Makes the records of `entity-updates` of one writer."""

    def __init__(self, settings: Settings, spec: FeatureSpec, writer: str, partitions: int) -> None:
        self._topic = settings.outputs.entity_updates
        self._names, self._partitions = secondary_parts(spec), partitions
        self._stamps = {
            "schema_version": "1",
            "state_hash": spec.state_hash,
            "transactional_id": transactional_id(settings.name, writer),
        }
        kafka = settings.stream
        self._bytes_max = (
            kafka.message_bytes_max if isinstance(kafka, KafkaSettings) else _RECORD_BYTES_MAX
        )

    def records(
        self, parts: Sequence[tuple[int, str, EntityRows]], time_ms: int
    ) -> tuple[Rekeyed, list[int], list[Output]]:
        """Return (source partition, table, rows) sorted by target, and the records of them, each
        with its number of rows.
        """
        rekeyed, counts, outputs = Rekeyed(parts, self._partitions, self._names), [], []
        for q, updates in rekeyed.updates():
            for count, value in update_records(updates, self._stamps, self._bytes_max):
                counts.append(count)
                outputs.append(Output(self._topic, q, None, value, time_ms))
        return rekeyed, counts, outputs

    def mark(self, partition: int, next_journal: int, time_ms: int) -> Output:
        """Return the record that says how far a partition's journal was re-keyed."""
        value = no_updates({**self._stamps, _NEXT: str(next_journal)})
        return Output(self._topic, partition, _MARK, value, time_ms)


class Rekeying:
    """Appends the rows of one shard that are missing, while the shard is folded."""

    def __init__(
        self,
        log: Log,
        settings: Settings,
        spec: FeatureSpec,
        partition: int,
        tick: Callable[[], None],
    ) -> None:
        self._log, self._partition, self._tick = log, partition, tick
        self._topic, self._state_hash = settings.outputs.entity_updates, spec.state_hash
        self._name = f"rekey-{partition}"
        self._encoder = RowEncoder(settings, spec, self._name, log.partitions)
        self._writer: Writer | None = None
        self._done = 0
        self._time_ms = 0
        self._parts: list[tuple[int, str, EntityRows]] = []
        self.written = 0

    def lacks(self, offset: int, stamps: Mapping[str, str]) -> bool:
        """Return whether the rows of a journal record are not in the topic.

        Raises
        ------
        TransientError
            The log does not answer; try again.
        """
        if stamps.get("state_hash") == self._state_hash:
            return False
        if self._writer is None:
            self._writer = self._log.writer(self._name)
            self._done = self._last_mark(self._log.settle(self._topic, self._partition))
        return offset >= self._done

    def add(self, rows: Mapping[str, EntityRows], time_ms: int) -> None:
        """Keep rows of a record that lacks them."""
        self._parts += [(self._partition, name, part) for name, part in rows.items() if len(part)]
        self._time_ms = max(self._time_ms, time_ms)

    @property
    def is_full(self) -> bool:
        """Return whether so many rows wait that they should be written."""
        return self._count >= ROWS_MAX

    def write(self, next_journal: int) -> None:
        """Write what waits; all rows of journal records before this offset are in the topic then.

        Raises
        ------
        StateLostError
            Not known to be written: acquire the shard again.
        """
        if self._writer is None or next_journal <= self._done:
            return
        outputs = self._encoder.records(self._parts, self._time_ms)[2]
        mark = self._encoder.mark(self._partition, next_journal, self._time_ms)
        self._writer.write([*outputs, mark])
        self.written += self._count
        self._done = next_journal
        self._parts.clear()

    def close(self) -> None:
        """Give back what was opened. What waits is not there, and no mark says that it is."""
        if self._writer is not None:
            self._writer.close()

    @property
    def _count(self) -> int:
        return sum(len(rows) for _, _, rows in self._parts)

    def _last_mark(self, end: int) -> int:
        """Return what the last mark of this state says, 0 where there is none."""
        first = self._log.log_range(self._topic, self._partition)[0]
        for stop in range(end, first, -_CHUNK):
            found = self._marks(max(first, stop - _CHUNK), stop)
            if found:
                return found[-1]
        return 0

    def _marks(self, start: int, stop: int) -> list[int]:
        """Return what marks of this state at offsets [start, stop) say."""
        found = []
        reader = self._log.reader(self._topic, self._partition, start)
        try:
            while reader.position < stop:
                records = reader.poll(100, _CHUNK)
                self._tick()
                if records is None:
                    continue
                for offset, key, value in zip(
                    records.offsets, records.keys, records.values, strict=True
                ):
                    if key == _MARK and offset < stop:
                        stamps = read_stamps(value or b"", f"{self._topic}/{self._partition}")
                        if stamps.get("state_hash") == self._state_hash:
                            found.append(int(stamps[_NEXT]))
        finally:
            reader.close()
        return found
