"""What moves between edges and core: records as columns, never as objects one by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

import msgspec
import numpy as np
from numpy.typing import NDArray

Int64 = NDArray[np.int64]
UInt64 = NDArray[np.uint64]
Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]
Served = NDArray[np.void]

MISSING = -(2**63)
"""The smallest int64 stands for a recorded value that an event does not have."""


@cache
def served_type(models: int) -> np.dtype[np.void]:
    """Return the columns of how an event was served, by which its label judges scores and alerts.

    ``entity`` is a hash of its primary entity's id, ``score`` what decided and ``threshold`` what
    it was held against, ``alert`` whether one was published, ``scores`` every model's calibrated
    one, NaN where it is not known.
    """
    scores = ("scores", "<f8", (models,))
    return np.dtype(
        [("entity", "<u8"), ("score", "<f8"), ("threshold", "<f8"), ("alert", "?"), scores]
    )


def unserved(count: int, models: int) -> Served:
    """Return rows of `served_type` of which nothing is known."""
    served = np.zeros(count, served_type(models))
    served["score"] = served["threshold"] = served["scores"] = np.nan
    return served


@dataclass(frozen=True, slots=True)
class Records:
    """Consecutive records of one topic partition, in offset order, as parallel columns.

    ``timestamps_ms`` are the stream's record timestamps (-1 where it has none), ``values`` and
    ``keys`` the bytes as they came (None is a tombstone or a missing key). ``next_offset`` is the
    position after the last record; it may lie beyond ``offsets[-1] + 1`` where the log holds
    transaction markers.
    """

    topic: str
    partition: int
    offsets: list[int]
    timestamps_ms: list[int]
    keys: list[bytes | None]
    values: list[bytes | None]
    next_offset: int

    def __len__(self) -> int:
        return len(self.offsets)


@dataclass(frozen=True, slots=True)
class Output:
    """One record to be written inside the transaction of a commit.

    ``partition`` is always explicit: choosing it costs the client more than the send itself.
    """

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    timestamp_ms: int
    headers: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class Rejected:
    """A record that became no event: where it lies in its batch, a stable code, and words without a
    payload.
    """

    index: int
    offset: int
    code: str
    message: str


@dataclass(slots=True)
class Events:
    """The valid events of one shard's batch as columns of length n, in log order.

    ``columns`` holds the declared fields: int64 for integers, decimals (in units of their
    resolution), booleans, timestamps (Unix ms) and categories (index into the declared values,
    ``len(values)`` for any other); float64 for floats; a list of str for strings. ``entity_ids``
    holds, per entity name, the id of each event's entity as str, empty where it has none. What an
    optional field lacks is `MISSING` in int64, NaN in float64, an empty text in strings.
    """

    index: Int64  # position in the batch of records
    offsets: Int64
    time_ms: Int64
    ids: list[str]
    id_hash: UInt64
    entity_ids: dict[str, list[str]]
    columns: dict[str, Int64 | Float64 | list[str]]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(slots=True)
class EntityRows:
    """What a table folds, without the features that are read: columns of length m, in log order.

    ``values`` has shape (m, columns): of an event what the table records; of what became known
    whether it revises, what is recorded under the new truth, and the same under the former.
    """

    ids: list[str]
    time_ms: Int64
    id_hash: UInt64
    values: Int64

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, index: NDArray[np.intp]) -> EntityRows:
        """Return the rows at these places, in their order."""
        ids = [self.ids[i] for i in index.tolist()]
        return EntityRows(ids, self.time_ms[index], self.id_hash[index], self.values[index])

    @staticmethod
    def joined(parts: Sequence[EntityRows]) -> EntityRows:
        """Return rows after each other, zeros on the right where others are wider."""
        if len(parts) == 1:
            return parts[0]
        width = max(rows.values.shape[1] for rows in parts)
        return EntityRows(
            [id_ for rows in parts for id_ in rows.ids],
            np.concatenate([rows.time_ms for rows in parts]),
            np.concatenate([rows.id_hash for rows in parts]),
            np.concatenate([_widened(rows.values, width) for rows in parts]),
        )


def _widened(values: Int64, width: int) -> Int64:
    lacking = width - values.shape[1]
    return values if not lacking else np.pad(values, ((0, 0), (0, lacking)))


@dataclass(slots=True)
class Decoded:
    """A batch after decoding: its valid events and its rejected records, disjoint and complete."""

    events: Events
    rejected: list[Rejected] = field(default_factory=list)


class Label(msgspec.Struct, frozen=True, gc=False):
    """The truth about one event: ``y`` 0 or 1, ``weight`` > 0, ``time_ms`` when it was known."""

    event_id: str
    y: int
    time_ms: int
    weight: float = 1.0
    source: str = ""


@dataclass(frozen=True, slots=True)
class Labels:
    """Labels in log order, as the columns of `Label`."""

    event_ids: list[str]
    y: Int64
    time_ms: Int64
    weight: Float64
    sources: list[str]

    def __len__(self) -> int:
        return len(self.event_ids)

    def at(self, j: int) -> Label:
        """Return label j."""
        y, time_ms, weight = int(self.y[j]), int(self.time_ms[j]), float(self.weight[j])
        return Label(self.event_ids[j], y, time_ms, weight, self.sources[j])

    def slice(self, start: int, stop: int) -> Labels:
        """Return labels [start, stop) without copying numbers."""
        part = slice(start, stop)
        return Labels(
            self.event_ids[part], self.y[part], self.time_ms[part], self.weight[part],
            self.sources[part],
        )  # fmt: skip

    @staticmethod
    def of(labels: Sequence[Label]) -> Labels:
        """Return the columns of these labels."""
        return Labels(
            [one.event_id for one in labels],
            np.array([one.y for one in labels], np.int64),
            np.array([one.time_ms for one in labels], np.int64),
            np.array([one.weight for one in labels], np.float64),
            [one.source for one in labels],
        )


@dataclass(slots=True)
class LabelUpdates:
    """Known truths about m events, in the order in which they became known; columns of length m.

    ``before[j]`` events of the batch come before truth j, so it is folded before event
    ``before[j]`` is read, and after the last one where it is their number. Its event is always an
    earlier one. ``time_ms`` is the event's time, ``entity_ids`` its ids per entity type with label
    features. ``y`` is 0 or 1; ``y_before`` the truth that it takes the place of, -1 for none, and
    ``weight_before`` that one's weight, 0.0 for none: nothing new is ever repeated here. ``values``
    holds what the event recorded: its fields in units, its scores in 1e-6 (`MISSING` for none), and
    by the text of a condition 1 where it held, else 0.
    """

    before: Int64
    event_ids: list[str]
    id_hash: UInt64
    time_ms: Int64
    entity_ids: dict[str, list[str]]
    y: Int64
    y_before: Int64
    weight: Float64
    weight_before: Float64
    values: dict[str, Int64]

    def __len__(self) -> int:
        return len(self.event_ids)
