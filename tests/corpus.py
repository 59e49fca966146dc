"""Hostile records with the code that each must get: for the decoder, replay and Kafka alike.

`settings_values` is the configuration they are made for. Each case stands alone: the clock has seen
the event of `good` before, and nothing later.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

RECORD_BYTES_MAX = 200_000
KEY = b"card-1"
_FIELDS = {
    b"id": b'"e-1"',
    b"card": b'"card-1"',
    b"terminal": b"77",
    b"time": b'"2024-05-01T12:00:00.250Z"',
    b"amount": b"12.34",
    b"items": b"3",
    b"ticket": b"9007199254740993",
    b"ratio": b"0.5",
    b"online": b"true",
    b"channel": b'"web"',
}


@dataclass(frozen=True)
class Case:
    """One record and what must become of it: ``code`` None stands for an event.

    A case with ``needs_kafka`` cannot come from a file: it has no value, or its own key.
    """

    name: str
    value: bytes | None
    code: str | None
    key: bytes | None = KEY
    needs_kafka: bool = False


def settings_values(**changes: Any) -> dict[str, Any]:
    """Return the configuration of the corpus as plain values, ready for `Settings`."""
    return {
        "name": "corpus",
        "events": {
            "topic": "transactions",
            "id": "id",
            "key": "card",
            "time": {"field": "time"},
            "record_bytes_max": RECORD_BYTES_MAX,
            "fields": {
                "id": "string",
                "card": "string",
                "terminal": "integer",
                "time": "timestamp",
                "amount": {"type": "decimal", "resolution": 0.01, "min": 0, "max": 1e9},
                "items": {"type": "integer", "min": 1},
                "ticket": "integer",
                "ratio": {"type": "float", "min": -1, "max": 1},
                "online": "boolean",
                "channel": {"type": "category", "values": ["web", "chip"]},
                "note": {"type": "string", "default": "-"},
                "seen": {"type": "timestamp", "unit": "ms", "default": 0},
                "tip": {"type": "decimal", "resolution": 0.01, "default": 0},
            },
        },
        "entities": {"card": {"key": "card"}, "terminal": {"key": "terminal"}},
        "features": {
            "amount": "$amount",
            "card": {"count": ["1h"], "mean(amount)": ["1h"], "sum(items)": ["1h"]},
        },
        "models": {"odd": {"preset": "half_space_trees"}},
        "decision": {"model": "odd", "threshold": 0.99},
    } | changes


def good(**changes: bytes | None) -> bytes:
    """Return a valid event, with fields replaced, added, or (None) left out."""
    fields = _FIELDS | {name.encode(): value for name, value in changes.items()}
    members = (b'"%s":%s' % (n, v) for n, v in fields.items() if v is not None)
    return b"{" + b",".join(members) + b"}"


def also(member: bytes) -> bytes:
    """Return a valid event with one more member at its end."""
    return good()[:-1] + b"," + member + b"}"


_ACCEPTED = {
    "plain": good(),
    "whitespace": b" \n{ " + good()[1:-1].replace(b",", b" ,\t") + b"}\r\n",
    "unknown field": also(b'"extra":{"a":[1,{"b":null}]}'),
    "unknown field with a huge number": also(b'"extra":1e999'),
    "unknown field with 5,000 digits": also(b'"extra":' + b"9" * 5000),
    "declared name inside an unknown object": also(b'"extra":{"amount":1}'),
    "declared name as a text": good(channel=b'"amount"', extra=b'"id"'),
    "100 levels": also(b'"extra":' + b"[" * 99 + b"]" * 99),
    "escaped quote": good(note=b'"say \\"id\\": 1"'),
    "escaped NUL": good(note=b'"a\\u0000b"'),
    "field name in escapes": good(amount=None, **{"\\u0061mount": b"1"}),
    "surrogate pair": good(note=b'"\\ud83d\\ude00"'),
    "not ASCII": good(card='"Zo\u00eb"'.encode(), note='"\u20ac"'.encode()),
    "optional null": good(note=b"null", seen=b"null", tip=b"null"),
    "unknown category": good(channel=b'"pigeon"'),
    "empty text that is no id": good(note=b'""'),
    "integer as a decimal": good(amount=b"12"),
    "integer as a float": good(ratio=b"1"),
    "bound reached": good(ratio=b"-1.0", items=b"1", amount=b"0"),
    "smallest and largest integer": good(ticket=b"-9223372036854775808", items=b"1099511627776"),
    "number too small for a float": good(ratio=b"1e-999"),
    "minus zero": good(ticket=b"-0", ratio=b"-0.0"),
    "time without an offset": good(time=b'"2024-05-01 12:00:00"'),
    "time with an offset": good(time=b'"2024-05-01T14:00:00+02:00"'),
    "day ahead": good(time=b'"2024-05-02T12:00:00.250Z"'),
    "time at the epoch": good(time=b'"1970-01-01T00:00:00Z"'),
    "id of 256 bytes": good(id=b'"' + "\u20ac".encode() * 85 + b'x"'),
}

_REFUSED = {
    "not_utf8": {
        "bad byte in a text": good(note=b'"\xff"'),
        "bad byte in an unknown field": also(b'"extra":"\xff"'),
        "bad byte in an unknown name": also(b'"\xff":1'),
        "encoded surrogate": good(note=b'"\xed\xa0\x80"'),
        "lone surrogate": good(note=b'"\\ud800"'),
        "lone low surrogate in an id": good(id=b'"\\udc00"'),
        "UTF-16": good().decode().encode("utf-16"),
        "compressed garbage": b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff",
    },
    "too_deep": {
        "101 levels": also(b'"extra":' + b"[" * 100 + b"]" * 100),
        "100,000 levels": b"[" * 100_000,
        "60,000 objects": b'{"a":' * 30_000 + b"1" + b"}" * 30_000,
        "levels hidden after a text": also(b'"extra":["]]]",' + b"[" * 100 + b"]" * 101),
    },
    "not_json": {
        "empty": b"",
        "blank": b" \n",
        "cut off": good()[:40],
        "cut by one byte": good()[:-1],
        "two objects": good() + good(),
        "byte order mark": b"\xef\xbb\xbf" + good(),
        "NUL": b"\x00",
        "NUL at the end": good() + b"\x00",
        "raw control character": good(note=b'"a\x01b"'),
        "raw newline in a text": good(note=b'"a\nb"'),
        "single quotes": good().replace(b'"', b"'"),
        "trailing comma": good()[:-1] + b",}",
        "comment": good() + b"/* no */",
        "leading zero": good(items=b"03"),
        "plus sign": good(items=b"+3"),
        "no digit after the point": good(amount=b"1."),
        "hexadecimal": good(items=b"0x1F"),
        "bad escape": good(note=b'"\\x"'),
        "Python's None": good(note=b"None"),
        "NaN in an unknown field": also(b'"extra":NaN'),
        "wire format with a schema id": b"\x00\x00\x00\x00\x07" + good(),
    },
    "not_object": {
        "array": b"[" + good() + b"]",
        "number": b"1",
        "text": b'"{}"',
        "null": b"null",
        "true": b"true",
    },
    "duplicate_key": {
        "second amount": also(b'"amount":1.00'),
        "the same again": also(b'"amount":12.34'),
        "spelled in escapes": also(b'"\\u0061mount":1.00'),
        "with space before the colon": also(b'"amount" : 1.00'),
        "optional null and value": good(note=b"null")[:-1] + b',"note":"x"}',
        "number twice beside a null": good(note=b"null")[:-1] + b',"items":4}',
        "first one is wrong": b'{"amount":"x",' + good()[1:],
        "beside unknown fields": also(b'"extra":"amount","id":"e-2"'),
    },
    "missing_field": {
        "empty object": b"{}",
        "no amount": good(amount=None),
        "null amount": good(amount=b"null"),
        "null id": good(id=b"null"),
        "other case": good(amount=None, Amount=b"1"),
    },
    "wrong_type": {
        "text for a decimal": good(amount=b'"12.34"'),
        "text for an integer": good(items=b'"3"'),
        "true for an integer": good(items=b"true"),
        "true for a float": good(ratio=b"true"),
        "5.0 for an integer": good(items=b"5.0"),
        "5e0 for an integer": good(items=b"5e0"),
        "1 for a boolean": good(online=b"1"),
        "text for a boolean": good(online=b'"true"'),
        "number for a text": good(id=b"7"),
        "text for an integer id": good(terminal=b'"77"'),
        "array for a text": good(note=b"[]"),
        "object for a number": good(amount=b'{"value":1}'),
        "number for an ISO time": good(time=b"1714564800000"),
        "text for a time in ms": good(seen=b'"2024-05-01"'),
        "number for a category": good(channel=b"0"),
    },
    "not_finite": {
        "NaN": good(amount=b"NaN"),
        "Infinity": good(ratio=b"Infinity"),
        "minus Infinity": good(items=b"-Infinity"),
        "1e999": good(amount=b"1e999"),
        "400 digits for a float": good(ratio=b"9" * 400),
    },
    "integer_too_large": {
        "beyond 64 bits": good(ticket=b"9223372036854775808"),
        "below 64 bits": good(ticket=b"-9223372036854775809"),
        "30 digits": good(ticket=b"9" * 30),
        "5,000 digits": good(ticket=b"9" * 5000),
        "aggregated integer beyond 2**40": good(items=b"1099511627777"),
        "decimal beyond 2**40 units": good(amount=b"10995116277.77"),
        "decimal far beyond": good(amount=b"1e300"),
        "optional decimal far beyond": good(tip=b"-1e300"),
    },
    "out_of_range": {
        "negative amount": good(amount=b"-0.01"),
        "large amount": good(amount=b"1000000000.01"),
        "no items": good(items=b"0"),
        "ratio just above": good(ratio=b"1.0000000000000002"),
    },
    "bad_time": {
        "yesterday": good(time=b'"yesterday"'),
        "empty time": good(time=b'""'),
        "month 13": good(time=b'"2024-13-01T00:00:00Z"'),
        "30 February": good(time=b'"2024-02-30T00:00:00Z"'),
        "29 February of 2023": good(time=b'"2023-02-29T00:00:00Z"'),
        "leap second": good(time=b'"2016-12-31T23:59:60Z"'),
        "hour 24": good(time=b'"2024-05-01T24:00:00Z"'),
        "offset of a day": good(time=b'"2024-05-01T12:00:00+24:00"'),
        "Arabic digits": good(time='"\u0662\u0660\u0662\u0664-05-01T12:00:00Z"'.encode()),
        "space at the end": good(time=b'"2024-05-01T12:00:00Z "'),
        "number in a text": good(time=b'"1714564800000"'),
        "ms beyond the year 9999": good(seen=b"253402300800000"),
        "ms of 30 digits": good(seen=b"9" * 30),
    },
    "time_before_1970": {
        "one millisecond": good(time=b'"1969-12-31T23:59:59.999Z"'),
        "by its offset": good(time=b'"1970-01-01T00:30:00+01:00"'),
        "year 1": good(time=b'"0001-01-01"'),
    },
    "empty_id": {"empty id": good(id=b'""'), "empty card": good(card=b'""')},
    "id_too_long": {
        "257 bytes": good(id=b'"' + b"x" * 257 + b'"'),
        "86 characters of 3 bytes": good(id=b'"' + "\u20ac".encode() * 86 + b'"'),
        "long card": good(card=b'"' + b"x" * 257 + b'"'),
    },
    "record_too_large": {
        "one byte too many": b" " * (RECORD_BYTES_MAX + 1 - len(good())) + good(),
        "10 MB": b"[" * 10_000_000,
    },
    "time_ahead": {
        "a millisecond beyond a day": good(time=b'"2024-05-02T12:00:00.251Z"'),
        "year 2099": good(time=b'"2099-01-01T00:00:00Z"'),
        "year 9999": good(time=b'"9999-12-31T23:59:59.999Z"'),
    },
}


def _cases() -> tuple[Case, ...]:
    cases = [Case(name, value, None, _key(value)) for name, value in _ACCEPTED.items()]
    cases += [
        Case(name, value, code) for code, group in _REFUSED.items() for name, value in group.items()
    ]
    cases += [
        Case("tombstone", None, "tombstone", needs_kafka=True),
        Case("key of another card", good(), "key_mismatch", b"card-2", needs_kafka=True),
        Case("empty key", good(), "key_mismatch", b"", needs_kafka=True),
        Case("key in other bytes", good(), "key_mismatch", b"\xff", needs_kafka=True),
        Case("no key", good(), "key_missing", None, needs_kafka=True),
    ]
    return tuple(cases)


def _key(value: bytes) -> bytes:
    return "Zo\u00eb".encode() if "Zo\u00eb".encode() in value else KEY


CORPUS = _cases()
