"""Planted bad records: every kind occurs, is bad in its own way, and costs no good event."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from producers.bad_records import FILE_KINDS, KINDS, BadRecords
from producers.cards import CardsSettings, generate
from producers.items import Item

SMALL = CardsSettings(seed=3, cards=40, terminals=40, days=4)
GOOD = Item(
    "event",
    1_772_400_000_000,
    b"c00001",
    b'{"transaction_id":"t0000001","card_id":"c00001","terminal_id":"m00001","amount":12.34,'
    b'"channel":"chip","country":"FR","lat":1.0000,"lon":2.0000,"time":"2026-03-01T21:20:00.000Z"}',
)


def _bad(kind: str) -> Item:
    return next(iter(BadRecords(1.0, (kind,)).after(GOOD)))


def _field(name: str, accept: Callable[[object], bool]) -> Callable[[bytes], bool]:
    return lambda value: accept(json.loads(value)[name])


def _fails(error: type[Exception], parse: Callable[[bytes], object]) -> Callable[[bytes], bool]:
    def check(value: bytes) -> bool:
        with pytest.raises(error):
            parse(value)
        return True

    return check


def _no_constants(value: bytes) -> object:
    def refuse(text: str) -> None:
        raise ValueError(text)

    return json.loads(value, parse_constant=refuse)


IS_BAD: dict[str, Callable[[bytes], bool]] = {
    "not_utf8": _fails(UnicodeDecodeError, bytes.decode),
    "not_json": _fails(json.JSONDecodeError, json.loads),
    "not_object": lambda value: isinstance(json.loads(value), list),
    "duplicate_key": lambda value: value.count(b'"amount":') == 2,
    "missing_field": lambda value: "amount" not in json.loads(value),
    "wrong_type": _field("amount", lambda amount: isinstance(amount, str)),
    "out_of_range": _field("amount", lambda amount: float(str(amount)) < 0),
    "not_finite": _fails(ValueError, _no_constants),
    "integer_too_large": _field("amount", lambda amount: int(str(amount)) > 2**64),
    "bad_time": _field("time", lambda time: time == "yesterday"),
    "time_before_1970": _field("time", lambda time: str(time).startswith("1969-")),
    "time_ahead": _field("time", lambda time: str(time).startswith("2099-")),
    "id_too_long": _field("transaction_id", lambda name: len(str(name)) == 257),
    "empty_id": _field("transaction_id", lambda name: name == ""),
    "record_too_large": lambda value: len(value) > 65_536,
    "duplicate": lambda value: value == GOOD.value,
}


@pytest.mark.parametrize("kind", FILE_KINDS)
def test_each_kind_is_bad_in_its_own_way(kind: str) -> None:
    """A bad record of a kind breaks exactly the rule that its name says."""
    value = _bad(kind).value
    assert value is not None
    assert IS_BAD[kind](value)


def test_kinds_for_topics_break_key_or_value() -> None:
    """A tombstone has no value; the two others have no key, or the key of somebody else."""
    assert _bad("tombstone").value is None
    assert _bad("key_missing").key is None
    assert (
        json.loads(_bad("key_mismatch").value or b"")["card_id"].encode()
        != _bad("key_mismatch").key
    )


def test_only_the_duplicate_repeats_the_id_of_the_good_event() -> None:
    """Bad records have ids of their own, so that a good event never counts as their duplicate."""
    for kind in FILE_KINDS:
        assert (b'"t0000001"' in (_bad(kind).value or b"")) == (kind == "duplicate")


def test_every_kind_occurs_in_a_stream_and_the_good_records_stay() -> None:
    """With a share of bad records all kinds come in turn; the rest is the usual stream."""
    usual = list(generate(SMALL))
    spoiled = list(generate(replace(SMALL, bad_share=0.1, bad_kinds=FILE_KINDS)))
    good = iter(spoiled)
    assert all(item in good for item in usual)  # a subsequence, in order
    events = sum(item.kind == "event" for item in usual)
    extra = len(spoiled) - len(usual)
    assert extra == pytest.approx(0.1 * events, abs=1)
    assert extra >= len(FILE_KINDS)


def test_a_bad_record_has_the_time_of_the_event_before_it() -> None:
    """Record times never go back or ahead, whatever the bad bytes say."""
    times = [item.time_ms for item in generate(replace(SMALL, bad_share=0.2, bad_kinds=KINDS))]
    assert times == sorted(times)


def test_no_bad_record_breaks_the_lines_of_a_file() -> None:
    """The kinds for files have a value without a line feed, so that each stays one line."""
    for kind in FILE_KINDS:
        assert b"\n" not in (_bad(kind).value or b"\n")


def test_an_unknown_kind_is_refused() -> None:
    """A misspelled kind is an error, not a stream without it."""
    with pytest.raises(ValueError, match="not_jsno"):
        BadRecords(0.1, ("not_jsno",))
