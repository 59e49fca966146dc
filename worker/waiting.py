"""What is kept of an event until its label comes, as bytes: recorded values, ids and x, packed.

A float that a 32-bit float holds exactly takes 4 bytes, any other 8: most features are counts,
hours and sums of few digits. On the card stream an event with 90 features takes about 510 bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise

import msgspec
import numpy as np
import xxhash
from numba import njit
from numpy.typing import NDArray

from worker.contracts.records import (
    MISSING,
    Bool,
    Events,
    Float64,
    Int64,
    LabelUpdates,
    Served,
    UInt64,
    served_type,
    unserved,
)
from worker.features.expressions import Expression
from worker.features.index import Index

_ID_BYTES = struct.Struct("<H")
_INDEX = Index(bytes(16))  # only hashes by it, the same everywhere
_MICRO = 1e6  # recorded scores are fixed point, as everything that is folded


@dataclass(frozen=True, slots=True)
class Layout:
    """What an event records: ``models`` have raw scores; the rest is what label features ask for.

    ``spec_hash`` names the features of x; ``entities``, ``fields`` and ``scores`` are those of
    `worker.features.spec.FeatureSpec`, and so are ``filters``, which say of some fields that they
    are the outcome of a condition. ``primary`` is the entity that alerts are about, empty where no
    labels come.
    """

    spec_hash: str
    features: int
    models: tuple[str, ...]
    entities: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()
    scores: tuple[str, ...] = ()
    filters: Mapping[str, Expression] = field(default_factory=dict)
    primary: str = ""


class Truth(msgspec.Struct, frozen=True, gc=False):
    """What is known of one event: ``learn_weight`` is 0.0 where it only counts in measures."""

    y: int
    weight: float
    learn_weight: float


@dataclass(slots=True)
class Scored:
    """Events of a batch that were scored, in order: columns of length n, X of shape (n, f).

    ``rows`` are their places among all valid events of the batch; ``raw`` and ``calibrated`` have
    shape (n, models).
    """

    rows: NDArray[np.intp]
    ids: list[str]
    id_hash: UInt64
    time_ms: Int64
    entity_ids: dict[str, list[str]]
    fields: Int64
    X: Float64
    score: Float64
    raw: Float64
    calibrated: Float64
    served: Served

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.ids)


def scored_events(layout: Layout, events: Events, rows: NDArray[np.intp], X: Float64) -> Scored:
    """Return what is known of the events at ``rows`` before they are scored; scores are NaN."""
    n, all_ = len(rows), len(rows) == len(events)
    places = () if all_ else rows.tolist()

    def taken(names: list[str]) -> list[str]:
        return names if all_ else [names[i] for i in places]

    fields = np.empty((n, len(layout.fields)), np.int64)
    raw = np.full((n, len(layout.models)), np.nan)
    for f, name in enumerate(layout.fields):
        passes = layout.filters.get(name)
        column = np.asarray(events.columns[name]) if passes is None else passes.mask(events)
        fields[:, f] = column[rows]
    served = unserved(n, len(layout.models))
    if layout.primary:
        served["entity"] = _INDEX.hashes(taken(events.entity_ids[layout.primary]))[:, 0]
    return Scored(
        rows, taken(events.ids), events.id_hash[rows], events.time_ms[rows],
        {name: taken(events.entity_ids[name]) for name in layout.entities},
        fields, X, np.full(n, np.nan), raw, raw, served,
    )  # fmt: skip


@dataclass(slots=True)
class Waiting:
    """Events that waited, as columns of length m; ``same_features`` says whose x may teach.

    ``raw`` is NaN where the event was scored by other models, ``X`` zero where its features are
    others.
    """

    id_hash: UInt64
    time_ms: Int64
    entity_ids: dict[str, list[str]]
    fields: Int64
    X: Float64
    raw: Float64
    served: Served
    same_features: Bool

    @property
    def score(self) -> Float64:
        """Return the scores that decided."""
        return self.served["score"]


@dataclass(frozen=True)
class WaitingCodec:
    """Packs events that wait for their label, and reads them again, many at a time."""

    layout: Layout
    _features_tag: bytes = field(init=False)
    _models_tag: bytes = field(init=False)

    def __post_init__(self) -> None:
        """Compute the tags by which a later configuration knows what is not its own."""
        models = xxhash.xxh3_64_digest("\n".join(self.layout.models).encode())
        object.__setattr__(self, "_features_tag", self.layout.spec_hash[:8].encode().ljust(8, b"-"))
        object.__setattr__(self, "_models_tag", models[:4].replace(b"\0", b"-"))

    def pack(
        self, part: Scored, clock_ms: Int64, number: Int64, truths: Mapping[int, Truth], *,
        teaches: bool = True,
    ) -> list[bytes]:  # fmt: skip
        """Return one value per event, in order; without x where it is not to teach.

        Parameters
        ----------
        clock_ms, number
            The shard's event time and count of events when each event was processed.
        truths
            What is known already, by the event's place in ``part``.
        """
        X = part.X if teaches else part.X[:, :0]
        numbers = np.concatenate([part.raw, X], axis=1)
        with np.errstate(over="ignore"):
            narrow = numbers.astype(np.float32)
        is_narrow = narrow.astype(np.float64).view(np.int64) == numbers.view(np.int64)
        count = is_narrow.sum(axis=1)
        heads = self._heads(part, X, clock_ms, number, count, np.packbits(is_narrow, axis=1))
        if not teaches:
            heads["features"] = b"-"  # of nobody
        size = heads.itemsize
        ends = np.cumsum(size + 4 * count + 8 * (numbers.shape[1] - count))
        out = np.empty(ends[-1] if len(part) else 0, np.uint8)
        _lay(
            heads.view(np.uint8).reshape(len(part), size), is_narrow, narrow.view(np.uint32),
            numbers.view(np.uint64), out,
        )  # fmt: skip
        data = out.tobytes()
        values = [data[start:end] for start, end in pairwise([0, *ends.tolist()])]
        for ids in part.entity_ids.values():
            values = [v + _named(one) for v, one in zip(values, ids, strict=True)]
        for i, truth in truths.items():
            values[i] = self.with_truth(values[i], truth)
        return values

    @staticmethod
    def truth(value: bytes) -> Truth | None:
        """Return what is known of an event that waits."""
        y = value[_Y]
        return None if y == _UNKNOWN else Truth(y, *_WEIGHTS.unpack(value[-_WEIGHTS.size :]))

    @staticmethod
    def with_truth(value: bytes, truth: Truth) -> bytes:
        """Return the value of an event that waits with what is known of it now."""
        end = len(value) if value[_Y] == _UNKNOWN else len(value) - _WEIGHTS.size
        weights = _WEIGHTS.pack(truth.weight, truth.learn_weight)
        return b"%b%c%b%b" % (value[:_Y], truth.y, value[_Y + 1 : end], weights)

    @staticmethod
    def place(value: bytes) -> tuple[int, int, int]:
        """Return event time, clock and number of an event that waits."""
        time_ms, clock_ms, number = _PLACE.unpack_from(value)
        return time_ms, clock_ms, number

    def has_same_features(self, value: bytes) -> bool:
        """Return whether the x of an event that waits is of today's features."""
        return value[_FEATURES] == self._features_tag

    def unpack(self, values: Sequence[bytes]) -> Waiting:
        """Return the events of values made by `pack`, perhaps under other features or models."""
        m, layout = len(values), self.layout
        waiting = Waiting(
            np.empty(m, np.uint64), np.empty(m, np.int64), {n: [""] * m for n in layout.entities},
            np.full((m, len(layout.fields)), MISSING), np.zeros((m, layout.features)),
            np.full((m, len(layout.models)), np.nan), unserved(m, len(layout.models)),
            np.zeros(m, np.bool_),
        )  # fmt: skip
        groups: dict[bytes, list[int]] = {}
        for i, value in enumerate(values):
            groups.setdefault(value[_KIND], []).append(i)
        for rows in groups.values():
            self._unpack_alike(waiting, rows, [values[i] for i in rows])
        return waiting

    def _heads(
        self, part: Scored, X: Float64, clock_ms: Int64, number: Int64, count: Int64,
        bits: NDArray[np.uint8],
    ) -> NDArray[np.void]:  # fmt: skip
        widths = part.raw.shape[1], X.shape[1], part.fields.shape[1]
        heads = np.zeros(len(part), _head(*widths))
        columns = {
            "time": part.time_ms, "clock": clock_ms, "number": number, "narrow": count,
            "hash": part.id_hash, "served": part.served, "features": self._features_tag,
            "models": self._models_tag, "widths": widths, "y": _UNKNOWN, "fields": part.fields,
            "bits": bits,
        }  # fmt: skip
        for name, column in columns.items():
            heads[name] = column
        return heads

    def _unpack_alike(self, waiting: Waiting, rows: list[int], values: list[bytes]) -> None:
        """Fill in the rows of events that were packed under one configuration."""
        k, f, m = (int(n) for n in np.frombuffer(values[0][_KIND][-6:], "<u2"))
        head = _head(k, f, m)
        heads = np.frombuffer(b"".join([v[: head.itemsize] for v in values]), head)
        waiting.id_hash[rows], waiting.time_ms[rows] = heads["hash"], heads["time"]
        for name in ("entity", "score", "threshold", "alert"):
            waiting.served[name][rows] = heads["served"][name]
        if m == waiting.fields.shape[1]:
            waiting.fields[rows] = heads["fields"]
        small_end = (head.itemsize + 4 * heads["narrow"].astype(np.int64)).tolist()
        end = (np.array(small_end) + 8 * (k + f - heads["narrow"].astype(np.int64))).tolist()
        numbers = np.empty((len(values), k + f))
        is_narrow = np.unpackbits(heads["bits"], axis=1, count=k + f).astype(np.bool_)
        small = b"".join([v[head.itemsize : s] for v, s in zip(values, small_end, strict=True)])
        wide = b"".join([v[s:e] for v, s, e in zip(values, small_end, end, strict=True)])
        numbers[is_narrow] = np.frombuffer(small, "<f4")
        numbers[~is_narrow] = np.frombuffer(wide, "<f8")
        if heads["models"][0] == self._models_tag:
            waiting.raw[rows] = numbers[:, :k]
            waiting.served["scores"][rows] = heads["served"]["scores"]
        if heads["features"][0] == self._features_tag and f == self.layout.features:
            waiting.X[rows], waiting.same_features[rows] = numbers[:, k:], True
        for i, value, place in zip(rows, values, end, strict=True):
            for name in self.layout.entities:
                waiting.entity_ids[name][i], place = _name_at(value, place)


@njit(cache=True)
def _lay(
    heads: NDArray[np.uint8], is_narrow: Bool, narrow: NDArray[np.uint32], wide: UInt64,
    out: NDArray[np.uint8],
) -> None:  # fmt: skip
    """Write rows one after the other: head, then what is narrow, then the rest, low byte first."""
    at = 0
    for i in range(len(heads)):
        for byte in heads[i]:
            out[at] = byte
            at += 1
        end = at + 4 * is_narrow[i].sum()
        for j in range(is_narrow.shape[1]):
            if is_narrow[i, j]:
                for k in range(4):
                    out[at] = (narrow[i, j] >> np.uint32(8 * k)) & np.uint32(255)
                    at += 1
            else:
                for k in range(8):
                    out[end] = (wide[i, j] >> np.uint64(8 * k)) & np.uint64(255)
                    end += 1
        at = end


def label_updates(
    layout: Layout,
    waiting: Waiting,
    event_ids: list[str],
    before: Int64,
    truths: tuple[Int64, Int64, Float64, Float64],
) -> LabelUpdates:
    """Return updates of label features; ``truths`` are y, y_before, weight and weight_before."""
    y, y_before, weight, weight_before = truths
    values = {name: waiting.fields[:, i] for i, name in enumerate(layout.fields)}
    for name in layout.scores:
        score = waiting.score
        if name.startswith("raw_"):
            score = waiting.raw[:, layout.models.index(name.removeprefix("raw_"))]
        known = np.isfinite(score)
        fixed = np.rint(np.where(known, score, 0.0) * _MICRO).astype(np.int64)
        values[name] = np.where(known, fixed, MISSING)
    return LabelUpdates(
        before, event_ids, waiting.id_hash, waiting.time_ms, waiting.entity_ids, y, y_before,
        weight, weight_before, values,
    )  # fmt: skip


_PLACE = struct.Struct("<qqq")
_FIXED = (
    ("time", "<i8"), ("clock", "<i8"), ("number", "<i8"), ("hash", "<u8"),
    ("narrow", "<u2"), ("features", "S8"), ("models", "S4"), ("widths", "<u2", (3,)), ("y", "u1"),
)  # fmt: skip
_FEATURES = slice(34, 42)
_KIND = slice(34, 52)  # features, models, widths: what tells configurations apart
_Y, _UNKNOWN = 52, 255  # place of y; where it is known, the weights are the last bytes
_WEIGHTS = struct.Struct("<dd")


@lru_cache(maxsize=64)
def _head(models: int, features: int, fields: int) -> np.dtype[np.void]:
    bits = -(-(models + features) // 8)
    return np.dtype(
        [
            *_FIXED, ("served", served_type(models)), ("fields", "<i8", (fields,)),
            ("bits", "u1", (bits,)),
        ]
    )  # fmt: skip


def _named(one: str) -> bytes:
    text = one.encode()
    return _ID_BYTES.pack(len(text)) + text


def _name_at(value: bytes, place: int) -> tuple[str, int]:
    start = place + _ID_BYTES.size
    end = start + _ID_BYTES.unpack_from(value, place)[0]
    return value[start:end].decode(), end
