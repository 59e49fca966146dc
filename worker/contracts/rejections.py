"""Why a record becomes no event: stable codes, used in the journal, dead letters and metrics."""

from __future__ import annotations

from enum import StrEnum


class RejectCode(StrEnum):
    """The code of a rejected record; `MEANINGS` says what each stands for.

    A record with several faults gets the code of the first one in this order: the record as a whole
    from top to bottom of this list, then its fields in the order of their declaration, then its
    key, then its time against the shard's clock.
    """

    TOMBSTONE = "tombstone"
    RECORD_TOO_LARGE = "record_too_large"
    NOT_UTF8 = "not_utf8"
    TOO_DEEP = "too_deep"
    NOT_JSON = "not_json"
    NOT_OBJECT = "not_object"
    DUPLICATE_KEY = "duplicate_key"
    MISSING_FIELD = "missing_field"
    WRONG_TYPE = "wrong_type"
    NOT_FINITE = "not_finite"
    INTEGER_TOO_LARGE = "integer_too_large"
    OUT_OF_RANGE = "out_of_range"
    BAD_TIME = "bad_time"
    TIME_BEFORE_1970 = "time_before_1970"
    EMPTY_ID = "empty_id"
    ID_TOO_LONG = "id_too_long"
    KEY_MISSING = "key_missing"
    KEY_MISMATCH = "key_mismatch"
    TIME_AHEAD = "time_ahead"


MEANINGS: dict[RejectCode, str] = {
    RejectCode.TOMBSTONE: "the value is null",
    RejectCode.RECORD_TOO_LARGE: "more bytes than events.record_bytes_max",
    RejectCode.NOT_UTF8: "the bytes are not UTF-8, or a declared text holds a lone surrogate",
    RejectCode.TOO_DEEP: "arrays or objects nested deeper than 100 levels",
    RejectCode.NOT_JSON: "not one JSON value; a byte order mark counts too",
    RejectCode.NOT_OBJECT: "JSON, but not an object",
    RejectCode.DUPLICATE_KEY: "a declared field appears twice",
    RejectCode.MISSING_FIELD: "a required field is missing or null",
    RejectCode.WRONG_TYPE: "a field has another JSON type than declared; 5.0 is no integer",
    RejectCode.NOT_FINITE: "NaN, Infinity, or a number beyond the range of a float",
    RejectCode.INTEGER_TOO_LARGE: "beyond 64 bits; 2**40 units if decimal or aggregated",
    RejectCode.OUT_OF_RANGE: "outside the declared min and max",
    RejectCode.BAD_TIME: "not a time of the declared unit, or beyond the year 9999",
    RejectCode.TIME_BEFORE_1970: "the event time is before 1970",
    RejectCode.EMPTY_ID: "the id of the event or of an entity is an empty text",
    RejectCode.ID_TOO_LONG: "an id has more than 256 bytes of UTF-8",
    RejectCode.KEY_MISSING: "a Kafka record without a key",
    RejectCode.KEY_MISMATCH: "the record's key is not the id of the primary entity",
    RejectCode.TIME_AHEAD: "the event time is more than events.ahead_max ahead of the shard's",
}
