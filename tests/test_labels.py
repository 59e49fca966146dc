"""Label records: what is a label, and what is not."""

from __future__ import annotations

import json

import msgspec
import pytest

from worker.contracts.messages import LabelMessage
from worker.contracts.records import Records
from worker.labels import _LabelStruct, decode_labels


def decode(*values: bytes | None):
    n = len(values)
    return decode_labels(
        Records("labels", 3, list(range(7, 7 + n)), [5] * n, [None] * n, list(values), 7 + n)
    )


def test_a_label_takes_its_time_from_itself_or_from_its_record() -> None:
    """ISO without an offset means UTC; a number is Unix ms; nothing is the record's timestamp."""
    labels, index, rejected = decode(
        b'{"event_id": "a", "label": 1}',
        b'{"event_id": 2, "label": 0, "time": "1970-01-01T00:00:02"}',
        b'{"event_id": "c", "label": 0, "time": 9, "weight": 2.5, "source": "desk", "more": 1}',
    )
    assert [(x.event_id, x.y, x.time_ms) for x in labels] == [
        ("a", 1, 5),
        ("2", 0, 2000),
        ("c", 0, 9),
    ]
    assert (labels[2].weight, labels[2].source) == (2.5, "desk")
    assert (index, rejected) == ([0, 1, 2], [])


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\xff\xfe",
        b"[1]",
        b'{"label": 1}',
        b'{"event_id": "a"}',
        b'{"event_id": "a", "label": 2}',
        b'{"event_id": "a", "label": true}',
        b'{"event_id": "a", "label": "secret"}',
        b'{"event_id": "", "label": 1}',
        b'{"event_id": "' + b"x" * 257 + b'", "label": 1}',
        b'{"event_id": "a", "label": 1, "time": "secret"}',
        b'{"event_id": "a", "label": 1, "time": 1e999}',
        b'{"event_id": "a", "label": 1, "time": 1e300}',
        b'{"event_id": "a", "label": 1, "time": -5}',
        b'{"event_id": "a", "label": 1, "weight": 0}',
        b'{"event_id": "a", "label": 1, "weight": NaN}',
        b'{"event_id": "\\ud800", "label": 1}',
        b"[" * 100_000,
        None,
    ],
)
def test_what_is_no_label_is_rejected_and_its_neighbours_stay(value: bytes | None) -> None:
    """A bad record has a place and a code, never a value, and touches no other record."""
    good = b'{"event_id": "a", "label": 1}'
    labels, index, rejected = decode(good, value, good)
    assert (len(labels), index) == (2, [0, 2])
    assert [(r.index, r.offset) for r in rejected] == [(1, 8)]
    assert rejected[0].message.startswith("labels/3@8 ")
    assert "secret" not in rejected[0].message


def test_the_wire_form_is_the_published_contract() -> None:
    """The fast struct and the pydantic model have the same fields and defaults."""
    assert [f.name for f in msgspec.structs.fields(_LabelStruct)] == list(LabelMessage.model_fields)
    minimal = {"event_id": "a", "label": 1}
    struct = msgspec.json.decode(json.dumps(minimal).encode(), type=_LabelStruct)
    assert msgspec.structs.asdict(struct) == LabelMessage(**minimal).model_dump()
