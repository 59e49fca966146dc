"""Recorded files as a stream: replay in one process, each example learned before the next event."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from worker.contracts.records import Output, Records
from worker.contracts.settings import LabelSettings, Settings
from worker.errors import ConfigError, FatalError
from worker.streams import Polled, TopicPartition
from worker.streams.file_labels import END_MS, ColumnLabels, FileLabels, Labels
from worker.streams.file_source import FileSource

__all__ = ["CollectingSink", "FileSource", "FileStream", "Sink"]


class Sink(Protocol):
    """Where the outputs of a replay go."""

    def write(self, outputs: Sequence[Output]) -> None:
        """Take the outputs of one commit, in order."""

    def close(self) -> None:
        """Finish what was written."""


class CollectingSink:
    """Keeps all outputs in a list."""

    def __init__(self) -> None:
        self.outputs: list[Output] = []

    def write(self, outputs: Sequence[Output]) -> None:
        """Append the outputs of one commit."""
        self.outputs += outputs

    def close(self) -> None:
        """Do nothing."""


class FileStream:
    """A `Stream` over files: one partition pair, read once from the beginning to the end.

    A poll returns events and every label that is known until the last of them, both with the time
    at which they became known as timestamp; the reader puts them in order by it. After the last
    event come the labels that are left.

    Parameters
    ----------
    events
        See `FileSource`.
    labels
        A file of labels, see `FileLabels`; or none.
    label_column, label_delay_ms
        The column with the truth about the row, and how long after the row it becomes known.
    sink
        Takes the outputs; it belongs to the caller, who closes it.

    Raises
    ------
    ConfigError
        Files or columns are missing; from `poll`, a file is damaged.
    """

    learns_inline = True
    is_rebalancing = False

    def __init__(
        self,
        settings: Settings,
        events: Path,
        labels: Path | None,
        label_column: str | None,
        label_delay_ms: int | None,
        sink: Sink,
    ) -> None:
        self._topics = (settings.events.topic, (settings.labels or LabelSettings()).topic)
        self._labels = _labels(settings, self._topics[1], labels, label_column, label_delay_ms)
        self._source = FileSource(settings, events, label_column)
        self._has_column = label_column is not None
        self._sink = sink
        self._paused = False
        self._is_sought = False
        self._positions = [0, 0]
        self._ends: dict[TopicPartition, int] = {}

    @property
    def partitions(self) -> int:
        """Return 1."""
        return 1

    @property
    def exhausted(self) -> bool:
        """Return whether every event and label was returned by `poll`; may read ahead."""
        return self._source.exhausted and self._labels.exhausted

    @property
    def rows_read(self) -> int:
        """Return how many events were returned."""
        return self._source.rows_read

    @property
    def rows_total(self) -> int | None:
        """Return how many events there are, or None where only reading would tell."""
        return self._source.rows_total

    @property
    def bytes_read(self) -> int:
        """Return how many bytes of the event files were read, as stored."""
        return self._source.bytes_read

    @property
    def bytes_total(self) -> int:
        """Return the size of the event files."""
        return self._source.bytes_total

    def poll(self, timeout_ms: int, records_max: int) -> Polled:
        """Return up to ``records_max`` events and the labels known until the last of them.

        Nothing before `seek`. Never waits. Labels may be more than ``records_max`` while events
        come, as they must all be known before the next event; after the last event they are not.
        """
        if self._paused or not self._is_sought:
            return self._polled()
        rows = self._source.take(records_max)
        if not len(rows.records):
            return self._polled(self._labels.take(END_MS, records_max))
        if self._has_column:
            self._labels.add(rows)
        return self._polled(rows.records, self._labels.take(int(rows.clock_ms[-1])))

    def _polled(self, *records: Records) -> Polled:
        for one in records:
            self._positions[self._topics.index(one.topic)] = one.next_offset
        caught_up = frozenset((topic, 0) for topic in self._topics)
        return Polled([one for one in records if len(one)], frozenset({0}), None, caught_up)

    def pause(self, partitions: Sequence[TopicPartition]) -> None:
        """Hold back events and labels together when either is paused: their order is one."""
        self._paused = bool(partitions)

    def seek(self, partition: int, events_offset: int, labels_offset: int) -> None:
        """Accept the position where the files are; they are read forwards only."""
        if [events_offset, labels_offset] != self._positions:
            raise FatalError(
                f"{self._topics[0]}/{partition}", f"the position {tuple(self._positions)}",
                str((events_offset, labels_offset)), "files are replayed from their beginning",
            )  # fmt: skip
        self._is_sought = True

    def committed(self, partition: int) -> tuple[int, int] | None:
        """Return None: a replay starts anew."""
        return None

    def log_range(self, topic: str, partition: int) -> tuple[int, int]:
        """Return (0, 0): there is nothing to recover from."""
        return 0, 0

    def settle(self, topic: str, partition: int) -> int:
        """Return 0: nobody else writes."""
        return 0

    def reader(self, topic: str, partition: int, offset: int) -> EmptyReader:
        """Return a reader of nothing."""
        return EmptyReader(offset)

    def last_records(self, topic: str, partition: int, count: int) -> Records:
        """Return no records."""
        return Records(topic, partition, [], [], [], [], 0)

    def writer(self, name: str) -> Sink:
        """Return where outputs go: nobody else writes."""
        return self._sink

    def commit(
        self,
        generation: object,
        outputs: Sequence[Output],
        positions: Mapping[TopicPartition, int],
    ) -> list[int]:
        """Hand the outputs to the sink; return their offsets, counted per topic partition."""
        self._sink.write(outputs)
        offsets = []
        for output in outputs:
            place = (output.topic, output.partition)
            offsets.append(self._ends.get(place, 0))
            self._ends[place] = offsets[-1] + 1
        return offsets

    def recover(self) -> None:
        """Do nothing: a commit to a sink is never in doubt."""

    def keep_alive(self) -> None:
        """Do nothing: there is no group."""

    def close(self) -> None:
        """Do nothing: files are closed when they were read."""


class EmptyReader:
    """A `Reader` of a log that holds nothing."""

    def __init__(self, offset: int) -> None:
        self.position = offset

    def poll(self, timeout_ms: int, records_max: int) -> Records | None:
        """Return None."""
        return None

    def close(self) -> None:
        """Do nothing."""


def _labels(
    settings: Settings, topic: str, path: Path | None, column: str | None, delay_ms: int | None
) -> Labels:
    if path is not None and column is not None:
        raise ConfigError(
            "labels", expected="a file or a column", got="both", hint="leave one of them out"
        )
    if column is not None and delay_ms is None:
        raise ConfigError(
            "label delay", expected="a duration such as 7d", got="none",
            hint=f'when does the truth in "{column}" become known',
        )  # fmt: skip
    return ColumnLabels(topic, delay_ms or 0) if path is None else FileLabels(settings, path, topic)
