"""JSON bytes to columns: what is plain is read by msgspec, what is odd by `decode_strict`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import xxhash
from msgspec.structs import astuple

from worker.contracts.clock import EventClock
from worker.contracts.entity_ids import NO_ENTITY, OTHER, joined_ids
from worker.contracts.records import MISSING, Bool, Decoded, Events, Records, Rejected
from worker.contracts.rejections import RejectCode
from worker.contracts.settings import Settings
from worker.decode_columns import PlainFilter, Row, Values, struct_of, suspects_of, values_of
from worker.decode_fields import compile_columns
from worker.decode_strict import RefusedError, StrictDecoder


class Decoder:
    """Turns records into events as columns, and says of every other record why it is none.

    Nothing is guessed and nothing is lost: each record ends as exactly one event or one `Rejected`,
    whatever its bytes are, and no record changes what becomes of its neighbours, save through the
    clock. Unknown fields are ignored. Where the stream is cut into batches makes no difference.

    Examples
    --------
    >>> from worker.contracts.settings import Settings
    >>> settings = Settings.model_validate({
    ...     "name": "t", "features": {}, "decision": {"model": "m"}, "models": {"m": {}},
    ...     "entities": {"card": {"key": "card"}},
    ...     "events": {"topic": "t", "id": "id", "key": "card", "time": {"field": "at"}, "fields": {
    ...         "id": "string", "card": "integer", "at": "timestamp",
    ...         "amount": {"type": "decimal", "resolution": 0.01}}}})
    >>> good = b'{"id":"a","card":7,"at":"2018-04-01T00:00:31Z","amount":57.16}'
    >>> bad = good.replace(b"57.16", b'"57.16"')
    >>> records = Records("t", 0, [5, 6], [-1, -1], [None, None], [good, bad], 7)
    >>> decoded = Decoder(settings).decode(records, EventClock(86_400_000))
    >>> decoded.events.columns["amount"], decoded.events.entity_ids
    (array([5716]), {'card': ['7']})
    >>> decoded.rejected[0].message
    't/0@6 $.amount: expected float, got str'
    """

    def __init__(self, settings: Settings) -> None:
        self._columns = compile_columns(settings)
        self._decoder = msgspec.json.Decoder(struct_of(self._columns))
        self._filter = PlainFilter(self._columns)
        self._strict = StrictDecoder(settings)
        self._bytes_max = settings.events.record_bytes_max
        self._id, self._key = settings.events.id, settings.events.key
        self._time = settings.events.time.field
        self._entities = {name: entity.keys for name, entity in settings.entities.items()}
        self._values = {c.name: [*c.categories, OTHER] for c in self._columns if c.categories}

    def decode(self, records: Records, clock: EventClock) -> Decoded:
        """Return the events and the rejected of one batch, each in log order; advance the clock."""
        rejected: list[Rejected] = []
        rows = self._rows(records, rejected)
        events = self._events(records, rows)
        suspects = self._suspects(records, events)
        for i in events.index[suspects].tolist():
            self._read_strictly(records, i, rejected)
        if suspects.any():
            refused = {one.index for one in rejected}
            events = _take(events, np.array([i not in refused for i in events.index.tolist()]))
        accepted = clock.accept(events.time_ms)
        if not accepted.all():
            rejected += [self._time_ahead(records, i) for i in events.index[~accepted].tolist()]
            events = _take(events, accepted)
        rejected.sort(key=lambda one: one.index)
        return Decoded(events, rejected)

    def _rows(self, records: Records, rejected: list[Rejected]) -> list[Row | None]:
        """Return the fields per record; None for what is no event, which goes to ``rejected``."""
        bytes_max = self._bytes_max
        values = [v if v is not None and len(v) <= bytes_max else b"" for v in records.values]
        rows = self._parsed(values)
        for i in self._filter.odd(values, rows):
            rows[i] = self._read_strictly(records, i, rejected)
        return rows

    def _parsed(self, values: Sequence[bytes]) -> list[Row | None]:
        """Return the fields of each value; None where msgspec refuses it."""
        rows: list[Row | None] = []
        parsed = map(astuple, map(self._decoder.decode, values))
        while len(rows) < len(values):
            try:
                rows.extend(parsed)  # keeps what comes before an error; the next call goes on
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                rows.append(None)  # decode_strict says what is wrong with it
        return rows

    def _read_strictly(self, records: Records, i: int, rejected: list[Rejected]) -> Row | None:
        value, key, timestamp_ms = records.values[i], records.keys[i], records.timestamps_ms[i]
        try:
            return self._strict.decode(value, key, timestamp_ms)
        except RefusedError as refusal:
            rejected.append(_rejected(records, i, refusal))
            return None

    def _events(self, records: Records, rows: list[Row | None]) -> Events:
        index = np.flatnonzero(np.fromiter(map(bool, rows), np.bool_, len(rows)))
        found = list(filter(None, rows))
        fields: list[Any] = list(zip(*found, strict=True)) if found else [()] * len(self._columns)
        columns = {
            column.name: values_of(column, items)
            for column, items in zip(self._columns, fields, strict=True)
        }
        ids = _texts(columns[self._id])
        return Events(
            index=index,
            offsets=np.array(records.offsets, np.int64)[index],
            time_ms=np.asarray(columns[self._time], np.int64),
            ids=ids,
            id_hash=np.fromiter(
                map(xxhash.xxh3_64_intdigest, map(str.encode, ids)), np.uint64, len(ids)
            ),
            entity_ids=self._entity_ids(columns),
            columns=columns,
        )

    def _entity_ids(self, columns: dict[str, Values]) -> dict[str, list[str]]:
        texts = {
            key: _texts(columns[key], self._values.get(key))
            for keys in self._entities.values()
            for key in keys
        }
        return {
            name: texts[keys[0]] if len(keys) == 1 else joined_ids([texts[key] for key in keys])
            for name, keys in self._entities.items()
        }

    def _suspects(self, records: Records, events: Events) -> Bool:
        """Return which rows break a rule that is checked by column, or have a key to look at."""
        suspects = self._odd_keys(records, events)
        for column in self._columns:
            odd = suspects_of(column, events.columns[column.name])
            if odd is not None:
                suspects |= odd
        return suspects

    def _odd_keys(self, records: Records, events: Events) -> Bool:
        index = events.index.tolist()
        whole = len(index) == len(records)
        keys = records.keys if whole else [records.keys[i] for i in index]
        expected = list(map(str.encode, _texts(events.columns[self._key])))
        if keys == expected:
            return np.zeros(len(index), np.bool_)
        odd = [
            self._strict.needs_key(records.timestamps_ms[i]) if key is None else key != one
            for i, key, one in zip(index, keys, expected, strict=True)
        ]
        return np.array(odd, np.bool_)

    def _time_ahead(self, records: Records, i: int) -> Rejected:
        expected = "a time near the shard's event time"
        got = "one beyond events.ahead_max"
        return _rejected(
            records, i, RefusedError(RejectCode.TIME_AHEAD, f"$.{self._time}", expected, got)
        )


def _texts(values: Values, names: list[str] | None = None) -> list[str]:
    """Return ids as texts, those of a category by its names; a missing one is empty."""
    if isinstance(values, list):
        return values
    if names is not None:
        return [names[value] if value != MISSING else NO_ENTITY for value in values.tolist()]
    return [str(value) if value != MISSING else NO_ENTITY for value in values.tolist()]


def _take(events: Events, keep: Bool) -> Events:
    """Return the kept rows, in order."""
    rows = np.flatnonzero(keep)
    picked = rows.tolist()

    def pick(values: Any) -> Any:  # a column: an array, or a list of texts
        return [values[i] for i in picked] if isinstance(values, list) else values[rows]

    return Events(
        index=events.index[rows],
        offsets=events.offsets[rows],
        time_ms=events.time_ms[rows],
        ids=pick(events.ids),
        id_hash=events.id_hash[rows],
        entity_ids={name: pick(ids) for name, ids in events.entity_ids.items()},
        columns={name: pick(values) for name, values in events.columns.items()},
    )


def _rejected(records: Records, i: int, refusal: RefusedError) -> Rejected:
    place = f"{records.topic}/{records.partition}@{records.offsets[i]}"
    return Rejected(i, records.offsets[i], refusal.code.value, f"{place} {refusal}")
