"""Events that wait as bytes: recorded values, ids and x, packed; and read again, many at a time.

A float that a 32-bit float holds exactly takes 4 bytes, any other 8: most features are counts,
hours and sums of few digits. On the card stream an event with 90 features takes about 510 bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise

import numpy as np
import xxhash
from numba import njit
from numpy.typing import NDArray

from worker.contracts.records import MISSING, Bool, Float64, Int64, UInt64, served_type, unserved
from worker.waiting import UNKNOWN, Layout, Scored, Truth, Truths, Waiting, no_truths


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
        self, part: Scored, clock_ms: Int64, number: Int64, truths: Truths, *, teaches: bool = True
    ) -> list[bytes]:
        """Return one value per event, in order; without x where it is not to teach.

        Parameters
        ----------
        clock_ms, number
            The shard's event time and count of events when each event was processed.
        truths
            What is known of each already.
        """
        X = part.X if teaches else part.X[:, :0]
        numbers = np.concatenate([part.raw, X], axis=1)
        with np.errstate(over="ignore"):
            narrow = numbers.astype(np.float32)
        is_narrow = narrow.astype(np.float64).view(np.int64) == numbers.view(np.int64)
        count = is_narrow.sum(axis=1)
        heads = self._heads(part, X, clock_ms, number, count, np.packbits(is_narrow, axis=1))
        is_known = truths["y"] >= 0
        heads["y"][is_known] = truths["y"][is_known]
        if not teaches:
            heads["features"] = b"-"  # of nobody
        tails, tail_bytes = _tails(part, truths, is_known)
        size = heads.itemsize + 4 * count + 8 * (numbers.shape[1] - count) + tail_bytes
        ends = np.cumsum(size)
        out = np.empty(ends[-1] if len(part) else 0, np.uint8)
        _lay(
            heads.view(np.uint8).reshape(len(part), heads.itemsize), is_narrow,
            narrow.view(np.uint32), numbers.view(np.uint64), tails, tail_bytes.astype(np.uint64),
            out,
        )  # fmt: skip
        data = out.tobytes()
        return [data[start:end] for start, end in pairwise([0, *ends.tolist()])]

    @staticmethod
    def truth(value: bytes) -> Truth:
        """Return what is known of an event that waits."""
        y = value[_Y]
        return UNKNOWN if y == _UNKNOWN else Truth(y, *_WEIGHTS.unpack(value[-_WEIGHTS.size :]))

    @staticmethod
    def truths(values: Sequence[bytes]) -> Truths:
        """Return what is known of events that wait."""
        truths = no_truths(len(values))
        y = np.fromiter((value[_Y] for value in values), np.int64, len(values))
        known = np.flatnonzero(y != _UNKNOWN)
        weights = b"".join([values[i][-_WEIGHTS.size :] for i in known.tolist()])
        truths["y"][known] = y[known]
        pairs = np.frombuffer(weights, "<f8").reshape(-1, 2)
        truths["weight"][known], truths["learn_weight"][known] = pairs.T
        return truths

    @staticmethod
    def with_truth(value: bytes, truth: Truth) -> bytes:
        """Return the value of an event that waits with what is known of it now."""
        end = len(value) if value[_Y] == _UNKNOWN else len(value) - _WEIGHTS.size
        weights = _WEIGHTS.pack(truth.weight, truth.learn_weight)
        return b"%b%c%b%b" % (value[:_Y], truth.y, value[_Y + 1 : end], weights)

    @staticmethod
    def place(value: bytes) -> tuple[int, int, int]:
        """Return event time, clock and number of an event that waits."""
        return _PLACE.unpack_from(value)

    @staticmethod
    def places(values: Sequence[bytes]) -> Int64:
        """Return the `place` of each event that waits, as rows."""
        data = b"".join([value[: _PLACE.size] for value in values])
        return np.frombuffer(data, "<i8").reshape(-1, 3)

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
    tails: NDArray[np.uint8], tail_bytes: UInt64, out: NDArray[np.uint8],
) -> None:  # fmt: skip
    """Write rows one after the other: head, then what is narrow, then the rest, low byte first,
    and a tail.

    Places are unsigned, so that the bytes of a number become one store.
    """
    at = tail = np.uint64(0)
    for i in range(len(heads)):
        for j in range(heads.shape[1]):
            out[at + np.uint64(j)] = heads[i, j]
        at += np.uint64(heads.shape[1])
        end = at + np.uint64(4) * np.uint64(is_narrow[i].sum())
        for j in range(is_narrow.shape[1]):
            if is_narrow[i, j]:
                for k in range(4):
                    out[at + np.uint64(k)] = np.uint8(narrow[i, j] >> np.uint32(8 * k))
                at += np.uint64(4)
            else:
                for k in range(8):
                    out[end + np.uint64(k)] = np.uint8(wide[i, j] >> np.uint64(8 * k))
                end += np.uint64(8)
        for k in range(tail_bytes[i]):
            out[end + k] = tails[tail + k]
        tail += tail_bytes[i]
        at = end + tail_bytes[i]


def _tails(part: Scored, truths: Truths, is_known: Bool) -> tuple[NDArray[np.uint8], Int64]:
    """Return the last bytes of all events, and how many each has: names, then weights."""
    weights = np.stack([truths["weight"], truths["learn_weight"]], axis=1)[is_known]
    tail_bytes = np.where(is_known, _WEIGHTS.size, 0)
    if not part.entity_ids:
        return weights.view(np.uint8).ravel(), tail_bytes
    data = weights.tobytes()
    ends = np.cumsum(tail_bytes).tolist()
    named = [b"".join(map(_named, ids)) for ids in zip(*part.entity_ids.values(), strict=True)]
    pairs = zip(named, pairwise([0, *ends]), strict=True)
    tails = [name + data[start:end] for name, (start, end) in pairs]
    tail_bytes = np.fromiter(map(len, tails), np.int64, len(tails))
    return np.frombuffer(b"".join(tails), np.uint8), tail_bytes


_ID_BYTES = struct.Struct("<H")
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
