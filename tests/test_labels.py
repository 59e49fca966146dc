"""Label records: what is a label, and what is not."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

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
    assert [(x.event_id, x.y, x.time_ms) for x in map(labels.at, range(3))] == [
        ("a", 1, 5),
        ("2", 0, 2000),
        ("c", 0, 9),
    ]
    assert (labels.weight[2], labels.sources[2]) == (2.5, "desk")
    assert (index.tolist(), rejected) == ([0, 1, 2], [])


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (b"", "$: expected a JSON object, got other bytes"),
        (b"\xff\xfe", "$: expected a JSON object, got other bytes"),
        (b"[1]", "$: expected a JSON object, got an array"),
        (b'{"label": 1}', "$.event_id: expected a text of 1 to 256 bytes, or an integer"),
        (b'{"event_id": "a"}', "$.label: expected 0 or 1, got nothing"),
        (b'{"event_id": "a", "label": 2}', "$.label: expected 0 or 1, got another one"),
        (b'{"event_id": "a", "label": true}', "$.label: expected 0 or 1, got a boolean"),
        (b'{"event_id": "a", "label": "secret"}', "$.label: expected 0 or 1, got a text"),
        (b'{"event_id": "", "label": 1}', "$.event_id: expected a text"),
        (b'{"event_id": "' + b"x" * 257 + b'", "label": 1}', "$.event_id: expected a text"),
        (b'{"event_id": "a", "label": 1, "time": "secret"}', "$.time: expected ISO 8601 or Unix"),
        (b'{"event_id": "a", "label": 1, "time": 1e999}', "$.time: expected ISO 8601 or Unix"),
        (b'{"event_id": "a", "label": 1, "time": 1e300}', "$.time: expected ISO 8601 or Unix"),
        (b'{"event_id": "a", "label": 1, "time": -5}', "$.time: expected ISO 8601 or Unix"),
        (b'{"event_id": "a", "label": 1, "weight": 0}', "$.weight: expected a number above 0"),
        (b'{"event_id": "a", "label": 1, "weight": NaN}', "$.weight: expected a number above 0"),
        (b'{"event_id": "a", "label": 1, "source": 7}', "$.source: expected a text of at most 64"),
        (b'{"event_id": "\\ud800", "label": 1}', "$.event_id: expected a text"),
        (b'{"event_id": "a", "label": 1, "weight": "1"}', "$.weight: expected a number above 0 and "
         "at most 1e6, got a text"),
        (b'{"event_id": "a", "label": ' + b"1" * 5_000 + b"}", "$.label: expected 0 or 1"),
        (b'{"event_id": "a", "label": 1, "label": 0}', "$.label: expected one of this name"),
        (b'{"event_id": "a", "\\u006cabel": 1, "label": 0}', "$.label: expected one of this name"),
        *(
            (b'{"event_id": "a", "label": 1, "%b": 1, "%b": 1}' % (n, n), f"$.{n.decode()}")
            for n in (b"time", b"weight", b"source")
        ),
        (b"[" * 100_000, "$: expected a JSON object, got other bytes"),
        (None, "$: expected a label, got no value"),
    ],
)  # fmt: skip
def test_what_is_no_label_is_rejected_and_its_neighbours_stay(
    value: bytes | None, said: str
) -> None:
    """A bad record has a place, a code and a reason, never a value, and touches no other record."""
    good = b'{"event_id": "a", "label": 1}'
    labels, index, rejected = decode(good, value, good)
    assert (len(labels), index.tolist()) == (2, [0, 2])
    assert [(r.index, r.offset) for r in rejected] == [(1, 8)]
    assert rejected[0].message.startswith(f"labels/3@8 {said}")
    assert "secret" not in rejected[0].message


plain = st.fixed_dictionaries(
    {"event_id": st.text(max_size=70) | st.integers(), "label": st.integers(0, 1)},
    optional={
        "time": st.none() | st.integers(-1, 10) | st.just("1970-01-01T00:00:02"),
        "weight": st.floats(0, 2),
        "source": st.sampled_from(["", "label", "time", "\\", '"']),
        "other": st.sampled_from(["label", {"label": 1}, {"time": 1}, 1]),
    },
)


@given(st.lists(plain, max_size=3), st.booleans())
def test_labels_are_read_alike_alone_and_among_others(
    fields: list[dict[str, Any]], ensure_ascii: bool
) -> None:
    """Many at once say what each says beside one that is none, which is read on the slow way."""
    values = [json.dumps(one, ensure_ascii=ensure_ascii).encode() for one in fields]
    labels, index, rejected = decode(*values)
    alone = [decode(value, b"") for value in values]
    assert [*map(labels.at, range(len(labels)))] == [one.at(0) for one, _, _ in alone if len(one)]
    assert index.tolist() == [i for i, (one, _, _) in enumerate(alone) if len(one)]
    assert len(index) + len(rejected) == len(values)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.just("a"), inner),
    max_leaves=3,
)  # fmt: skip


@given(
    fields=st.fixed_dictionaries({}, optional=dict.fromkeys(LabelMessage.model_fields, JSON_VALUES))
)
def test_a_rejected_label_is_said_to_be_wrong_where_it_is(fields: dict[str, Any]) -> None:
    """Whatever a member of a JSON object is, it is a label or the reason names a field."""
    labels, _, rejected = decode(json.dumps(fields).encode())
    assert len(labels) + len(rejected) == 1
    if rejected:
        assert " $." in rejected[0].message, rejected[0].message


def test_the_wire_form_is_the_published_contract() -> None:
    """The fast struct and the pydantic model have the same fields and defaults."""
    assert [f.name for f in msgspec.structs.fields(_LabelStruct)] == list(LabelMessage.model_fields)
    minimal = {"event_id": "a", "label": 1}
    struct = msgspec.json.decode(json.dumps(minimal).encode(), type=_LabelStruct)
    assert msgspec.structs.asdict(struct) == LabelMessage(**minimal).model_dump()
