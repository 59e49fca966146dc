"""Bytes to columns: the hostile corpus, any bytes at all, and an independent validation."""

from __future__ import annotations

import itertools
import json
import time
from typing import Any

import numpy as np
import pytest
import xxhash
from hypothesis import example, given
from hypothesis import strategies as st

from tests.corpus import CORPUS, KEY, Case, good, settings_values
from tests.decode_oracle import oracle
from worker.contracts.clock import EventClock
from worker.contracts.records import Decoded, Records
from worker.contracts.rejections import MEANINGS, RejectCode
from worker.contracts.settings import Settings
from worker.decode import Decoder
from worker.decode_strict import RefusedError, StrictDecoder

SETTINGS = Settings.model_validate(settings_values())
DECODER = Decoder(SETTINGS)
_EVENTS = settings_values()["events"]
REQUIRED = Settings.model_validate(
    settings_values(
        events=_EVENTS
        | {"fields": {k: v for k, v in _EVENTS["fields"].items() if "default" not in v}}
    )
)
DAY_MS = 86_400_000
GOOD_TIME_MS = 1_714_564_800_250
ANY_TIME_MS = 2**60


def records(
    *values: bytes | None, keys: list[bytes | None] | None = None, timestamp_ms: int = 0
) -> Records:
    n = len(values)
    found = keys if keys is not None else [None] * n
    stamp = timestamp_ms if keys is not None else -1
    return Records("transactions", 7, [1042 + i for i in range(n)], [stamp] * n, found,
                   list(values), 1042 + n)  # fmt: skip


def decode(*values: bytes | None, ahead_max_ms: int = ANY_TIME_MS) -> Decoded:
    return DECODER.decode(records(*values), EventClock(ahead_max_ms))


def events_of(decoded: Decoded) -> list[dict[str, Any]]:
    """Return the events one by one, without their place in the batch."""
    events = decoded.events
    columns = {
        name: values if isinstance(values, list) else values.tolist()
        for name, values in events.columns.items()
    }
    return [
        {
            "id": events.ids[i],
            "hash": int(events.id_hash[i]),
            "time_ms": int(events.time_ms[i]),
            "offset": int(events.offsets[i]),
            "entities": {name: ids[i] for name, ids in events.entity_ids.items()},
            "columns": {name: values[i] for name, values in columns.items()},
        }
        for i in range(len(events))
    ]


def test_a_plain_event_becomes_columns_of_the_declared_types() -> None:
    """Every type of field, by a value that was worked out by hand."""
    decoded = decode(good())
    events = decoded.events
    assert decoded.rejected == []
    assert {name: values[0] for name, values in events.columns.items()} == {
        "id": "e-1", "card": "card-1", "terminal": 77, "time": GOOD_TIME_MS, "amount": 1234,
        "items": 3, "ticket": 2**53 + 1, "ratio": 0.5, "online": 1, "channel": 0, "note": "-",
        "seen": 0, "tip": 0,
    }  # fmt: skip
    assert events.entity_ids == {"card": ["card-1"], "terminal": ["77"]}
    assert events.id_hash.tolist() == [xxhash.xxh3_64_intdigest(b"e-1")]
    assert (events.index.tolist(), events.offsets.tolist()) == ([0], [1042])
    assert events.columns["ratio"].dtype == np.float64
    assert events.columns["amount"].dtype == np.int64


@pytest.mark.parametrize("case", CORPUS, ids=lambda case: f"{case.code}: {case.name}")
def test_each_hostile_record_ends_as_it_should_beside_good_neighbours(case: Case) -> None:
    """The case gets its code, and the good records before and after it stay events."""
    clock = EventClock(DAY_MS)
    batch = records(good(), case.value, good(), keys=[KEY, case.key, KEY])
    decoded = DECODER.decode(batch, clock)
    codes = {one.index: one.code for one in decoded.rejected}
    assert codes == ({} if case.code is None else {1: case.code})
    assert [i for i in decoded.events.index.tolist() if i != 1] == [0, 2]


@pytest.mark.parametrize("code", RejectCode)
def test_every_code_has_a_meaning_and_a_case(code: RejectCode) -> None:
    """A new code is not forgotten in the table nor in the corpus."""
    assert MEANINGS[code]
    assert any(case.code == code for case in CORPUS)


def test_a_message_says_where_and_what_and_never_a_value() -> None:
    """Canaries in every text of a bad record stay out of its message."""
    decoded = decode(good(amount=b'"canary"', id=b'"canary"', note=b'"canary"', canary=b"1"))
    assert decoded.rejected[0].message == "transactions/7@1042 $.amount: expected float, got str"
    for case in CORPUS:
        if case.code is not None and case.value and len(case.value) < 1000:
            value = case.value.replace(b"e-1", b"canary")
            for one in decode(value).rejected:
                assert "canary" not in one.message


def test_a_key_is_needed_from_kafka_and_not_from_a_file() -> None:
    """A record with a timestamp of its stream came through Kafka."""
    kafka = DECODER.decode(records(good(), keys=[None]), EventClock(DAY_MS))
    assert [one.code for one in kafka.rejected] == ["key_missing"]
    assert len(decode(good()).events) == 1
    values = settings_values(stream={"kind": "memory"})
    memory = Decoder(Settings.model_validate(values))
    assert len(memory.decode(records(good(), keys=[None]), EventClock(DAY_MS)).events) == 1


def test_a_clock_refuses_only_what_is_valid_otherwise() -> None:
    """A malformed record from 2099 does not count as one that is ahead."""
    clock = EventClock(DAY_MS)
    ahead = b'"2099-01-01T00:00:00Z"'
    batch = records(good(), good(time=ahead, amount=b"null"), good(time=ahead))
    decoded = DECODER.decode(batch, clock)
    assert [one.code for one in decoded.rejected] == ["missing_field", "time_ahead"]
    assert clock.to_tuple()[2] == 1


def test_an_empty_batch_gives_empty_columns() -> None:
    """Columns keep their types without rows."""
    events = decode().events
    assert (len(events), events.columns["amount"].dtype, events.columns["note"]) == (
        0, np.int64, [])  # fmt: skip


@pytest.mark.parametrize(
    ("unit", "text", "time_ms"),
    [
        ("s", b"1714564800", 1_714_564_800_000),
        ("s", b"1714564800.2509", 1_714_564_800_250),
        ("s", b"1.001", 1001),
        ("ms", b"1714564800250", 1_714_564_800_250),
        ("us", b"1714564800250999", 1_714_564_800_250),
        ("iso", b'"2024-05-01T12:00:00.2509999999"', 1_714_564_800_250),
        ("iso", b'"2024-05-01T12:00Z"', 1_714_564_800_000),
        ("iso", b'"2024-05-01"', 1_714_521_600_000),
        ("iso", b'"2024-05-01T06:30:00.25-05:30"', 1_714_564_800_250),
        ("iso", b'"2024-02-29T00:00:00"', 1_709_164_800_000),
        ("iso", b'"2000-02-29T00:00:00"', 951_782_400_000),
    ],
)
def test_times_are_read_in_their_unit_and_cut_to_milliseconds(
    unit: str, text: bytes, time_ms: int
) -> None:
    """Expected values are from `date -u -d`."""
    values = settings_values()
    values["events"]["time"]["unit"] = unit
    decoder = Decoder(Settings.model_validate(values))
    decoded = decoder.decode(records(good(time=text)), EventClock(DAY_MS))
    assert [int(t) for t in decoded.events.time_ms] == [time_ms], decoded.rejected


@pytest.mark.parametrize("unit", ["ms", "us"])
def test_a_fraction_of_a_millisecond_count_is_no_time(unit: str) -> None:
    """Only seconds may have a fraction."""
    values = settings_values()
    values["events"]["time"]["unit"] = unit
    decoder = Decoder(Settings.model_validate(values))
    decoded = decoder.decode(records(good(time=b"1.0")), EventClock(DAY_MS))
    assert [one.code for one in decoded.rejected] == ["wrong_type"]


def test_an_optional_entity_may_be_empty_where_that_is_its_default() -> None:
    """The empty id stands for no entity; any other entity's id must not be empty."""
    values = settings_values()
    values["events"]["fields"]["note"] = {"type": "string", "default": ""}
    values["entities"]["device"] = {"key": "note"}
    decoder = Decoder(Settings.model_validate(values))
    decoded = decoder.decode(records(good(), good(note=b'""'), good(note=b'"d"')), EventClock(1))
    assert decoded.events.entity_ids["device"] == ["", "", "d"]


def slim(value: bytes) -> tuple[set[str], dict[str, Any]]:
    """Return what the decoder under test says about one record."""
    decoded = decode(value)
    assert len(decoded.events) + len(decoded.rejected) == 1
    if decoded.rejected:
        return {decoded.rejected[0].code}, {}
    return set(), events_of(decoded)[0]["columns"]


def assert_as_oracle(value: bytes) -> None:
    codes, columns = slim(value)
    faults, expected = oracle(value)
    if faults:
        assert codes and codes <= faults
    else:
        assert (codes, columns) == (set(), expected)


@given(st.binary(max_size=200))
@example(b"\xff\xfe{")
@example(b'{"id":' * 200)
def test_any_bytes_end_as_one_event_or_one_rejection(value: bytes) -> None:
    """Nothing raises, whatever the bytes are, and the code is one the oracle finds too."""
    assert_as_oracle(value)


HOSTILE = [
    b"null", b"true", b"0", b"1", b"-1", b"5.0", b"1e2", b"1e999", b"-0.0", b"1.005", b"2.675",
    b"0.125", b"9223372036854775807", b"9223372036854775808", b"1099511627776.5", b"1e-400",
    b"10995116277.76", b"10995116277.77", b"NaN", b"-Infinity", b"9" * 40, b'""', b'"x"', b'"web"',
    b'"\\ud800"', b'"\\u20ac"', b'"amount"', b'"a\\"b"', b'"\xe2\x82\xac"', b'"\xff"', b"[]", b"{}",
    b'{"amount":1}', b'"2024-05-01"', b'"2024-05-01T12:00:00.1Z"', b'"2024-05-01 12:00:00,5"',
    b'"2024-05-01T12:00:00+0130"', b'"1969-12-31T23:59:59Z"', b'"9999-12-31T23:59:59-00:01"',
    b'"0000-01-01"', b'"2024-5-1"', b'"' + b"x" * 256 + b'"', b'"' + b"x" * 257 + b'"', b"01",
    b"", b"x",
]  # fmt: skip
FIELD_NAMES = [*SETTINGS.events.fields, "extra", "other"]
TEXTS = st.text('ab \x00\x7f"\\\n\u00e9\u20ac\U0001f600', max_size=8)
MEMBERS = st.one_of(
    st.sampled_from(HOSTILE),
    st.integers(-(2**70), 2**70).map(lambda i: str(i).encode()),
    st.floats(allow_nan=False, allow_infinity=False).map(lambda f: repr(f).encode()),
    TEXTS.map(lambda t: json.dumps(t).encode()),
    TEXTS.map(lambda t: json.dumps(t, ensure_ascii=False).encode()),
    st.datetimes().map(lambda t: json.dumps(t.isoformat()).encode()),
)


@st.composite
def near_events(draw: st.DrawFn) -> bytes:
    """Events with one or two fields replaced, dropped, repeated or spelled otherwise."""
    changes = draw(st.dictionaries(st.sampled_from(FIELD_NAMES), st.none() | MEMBERS, max_size=3))
    value = good(**changes)
    again = draw(st.none() | st.sampled_from(FIELD_NAMES))
    if again is not None:
        value = value[:-1] + b',"%s":%s}' % (again.encode(), draw(MEMBERS))
    if draw(st.booleans()):
        value = value.replace(b'":', b'" : ')
    return value


@given(near_events())
def test_events_that_are_nearly_right_are_judged_as_by_an_independent_validation(
    value: bytes,
) -> None:
    """Same verdict, and for events the same values in every column."""
    assert_as_oracle(value)


@given(st.data())
def test_damaged_events_are_judged_as_by_an_independent_validation(data: st.DataObject) -> None:
    """One byte is changed, inserted or deleted anywhere."""
    value = good(note=b'"a"', extra=b'[{"b":0.5}]')
    at = data.draw(st.integers(0, len(value) - 1))
    end = at + data.draw(st.integers(0, 1))
    damaged = value[:at] + data.draw(st.binary(max_size=1)) + value[end:]
    assert_as_oracle(damaged)


@given(st.lists(near_events(), max_size=12), st.lists(st.integers(0, 12), max_size=4))
def test_batches_and_neighbours_do_not_matter(values: list[bytes], cuts: list[int]) -> None:
    """Any split of a stream gives the same events and the same rejections, in the same order."""
    batch = records(*values)
    whole = DECODER.decode(batch, clock := EventClock(DAY_MS))
    edges = [0, *sorted(min(cut, len(values)) for cut in cuts), len(values)]
    events: list[dict[str, Any]] = []
    rejected: list[tuple[int, str, str]] = []
    other = EventClock(DAY_MS)
    for start, end in itertools.pairwise(edges):
        part = Records(
            batch.topic, batch.partition, batch.offsets[start:end], batch.timestamps_ms[start:end],
            batch.keys[start:end], batch.values[start:end], 1042 + end,
        )  # fmt: skip
        decoded = DECODER.decode(part, other)
        events += events_of(decoded)
        rejected += [(one.offset, one.code, one.message) for one in decoded.rejected]
        taken = sorted([*decoded.events.index.tolist(), *(one.index for one in decoded.rejected)])
        assert taken == list(range(end - start))
    assert events == events_of(whole)
    assert rejected == [(one.offset, one.code, one.message) for one in whole.rejected]
    assert other.to_tuple() == clock.to_tuple()


TWICE = good(amount=b'1,"amount":2')


@given(st.lists(near_events(), max_size=4))
@example([TWICE])
@example([TWICE, good(card=b"7")])  # refused; as many quotes less as the other has more
def test_where_all_fields_are_required_the_verdict_is_the_definitions_too(
    values: list[bytes],
) -> None:
    """A batch is looked at as a whole first: none hides behind its neighbours."""
    decoded = Decoder(REQUIRED).decode(records(*values, good()), EventClock(ANY_TIME_MS))
    codes = {one.index: one.code for one in decoded.rejected}
    assert codes == {
        i: code for i, value in enumerate(values) if (code := strict_code(REQUIRED, value))
    }
    assert decoded.events.index.tolist() == [i for i in range(len(values) + 1) if i not in codes]


@given(near_events())
def test_the_fast_way_accepts_only_what_the_definition_accepts(value: bytes) -> None:
    """The decoder's verdict is the strict decoder's, code for code."""
    codes, _ = slim(value)
    code = strict_code(SETTINGS, value)
    assert codes == ({code} if code else set())


def strict_code(settings: Settings, value: bytes) -> str | None:
    """Return the code that the definition gives a record, None for an event."""
    try:
        StrictDecoder(settings).decode(value, None, -1)
    except RefusedError as refused:
        return refused.code.value
    return None


@pytest.mark.parametrize("case", [c for c in CORPUS if c.value], ids=lambda case: case.name)
def test_a_small_batch_of_one_hostile_record_is_judged_quickly(case: Case) -> None:
    """No record costs more than a tenth of a second, ten times what is measured for the worst."""
    start = time.process_time()
    decode(case.value)
    assert time.process_time() - start < 0.1
