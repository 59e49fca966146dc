"""Recorded columns: what the ring keeps of each event, as integers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import xxhash

from worker.contracts.records import Events, Int64
from worker.features.aggregations import Source
from worker.features.codes import MISSING
from worker.features.expressions import Expression

_DEGREES_MAX = 180.0


def recorded_values(
    sources: Sequence[Source], filters: Mapping[str, Expression], events: Events
) -> Int64:
    """Return the recorded columns of events, shape (n, columns), `MISSING` where there is none.

    ``filters`` has the condition of each ``where``: an event passes where it is true.
    """
    values = np.empty((len(events), len(sources)), np.int64)
    passes = {text: filters[text].mask(events) for text in {s.where for s in sources} if text}
    for f, source in enumerate(sources):
        values[:, f] = _KINDS[source.kind](source, events)
        if source.where:
            values[~passes[source.where], f] = MISSING
    return values


def _one(source: Source, events: Events) -> Int64:
    return np.ones(len(events), np.int64)


def _field(source: Source, events: Events) -> Int64:
    """Return units, or the index of a category."""
    values = events.columns[source.field]
    assert isinstance(values, np.ndarray), source
    return values.astype(np.int64, copy=False)


def _text(source: Source, events: Events) -> Int64:
    """Return 64 bits that stand for each string; an empty one is missing if it is optional.

    Of a million different strings, two share their bits with a chance of 3e-8.
    """
    hashes = [xxhash.xxh3_64_intdigest(text.encode()) for text in events.columns[source.field]]
    found = np.array(hashes, np.uint64).view(np.int64)
    found = np.where(found == MISSING, MISSING + 1, found)
    if not source.optional:
        return found
    return np.where([not text for text in events.columns[source.field]], MISSING, found)


def _degrees(source: Source, events: Events) -> Int64:
    """Return millionths of a degree; what is no angle is missing."""
    degrees = np.asarray(events.columns[source.field], np.float64)
    known = np.abs(degrees) <= _DEGREES_MAX
    micro = np.rint(np.where(known, degrees, 0.0) * 1e6).astype(np.int64)
    return np.where(known, micro, MISSING)


_KINDS: dict[str, Callable[[Source, Events], Int64]] = {
    "one": _one,
    "field": _field,
    "outlier": _field,  # the kernel makes a bit of it, when it knows what came before
    "text": _text,
    "degrees": _degrees,
}
