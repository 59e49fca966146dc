"""Optional fields, optional and composite entities: from bytes to features."""

from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.features.streams import UNHURRIED, taken_from
from worker.config_rules import semantic_problems
from worker.contracts.clock import EventClock
from worker.contracts.entity_ids import joined_id, joined_ids
from worker.contracts.records import MISSING, Events, Records
from worker.contracts.settings import Settings
from worker.decode import Decoder
from worker.decode_strict import StrictDecoder
from worker.describe import describe, json_schema
from worker.features.spec import compile_features
from worker.features.table import FeatureTables

FIELDS: dict[str, Any] = {
    "id": "string",
    "card": "string",
    "at": {"type": "timestamp"},
    "merchant": {"type": "string", "optional": True},
    "device": {"type": "integer", "optional": True},
    "amount": {"type": "decimal", "resolution": 0.01, "optional": True},
    "items": {"type": "integer", "optional": True, "min": 1},
    "score": {"type": "float", "optional": True},
    "online": {"type": "boolean", "optional": True},
    "channel": {"type": "category", "values": ["web", "pos"], "optional": True},
    "opened": {"type": "timestamp", "optional": True},
    "closed": {"type": "timestamp", "unit": "s", "optional": True},
}
ENTITIES: dict[str, Any] = {
    "card": {"key": "card"},
    "device": {"key": "device", "optional": True},
    "pair": {"key": ["card", "merchant"], "optional": True},
}
FEATURES: dict[str, Any] = {
    "amount": "$amount",
    "known": "not is_missing($amount)",
    "half": "coalesce($amount, 10) / 2",
    "channel": "$channel",
    "age": "$time - $opened",
    "device": {"count": ["1d"], "time_since_last": {}},
    "pair": {"count": ["1d"]},
    "card": {"sum(amount)": ["1d"], "mean(amount)": ["1d"]},
}


def settings_of(**changes: Any) -> Settings:
    values: dict[str, Any] = {
        "name": "test",
        "events": {"topic": "t", "id": "id", "key": "card", "time": {"field": "at"},
                   "fields": FIELDS},
        "entities": ENTITIES, "features": FEATURES, "models": {"m": {"preset": "none"}},
        "decision": {"model": "m", "threshold": 1.0}, "stream": {"kind": "memory"},
    }  # fmt: skip
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = values
        for parent in parents:
            place[parent] = dict(place[parent])
            place = place[parent]
        place[last] = value
    return Settings.model_validate(values)


SETTINGS = settings_of()
DECODER = Decoder(SETTINGS)


def event(**fields: Any) -> dict[str, Any]:
    return {"id": "e", "card": "c", "at": "2024-05-01T12:00:00Z", **fields}


def decode(*events: dict[str, Any]) -> Events:
    values: list[bytes | None] = [json.dumps(one).encode() for one in events]
    n = len(values)
    batch = Records("t", 0, list(range(n)), [-1] * n, [None] * n, values, n)
    decoded = DECODER.decode(batch, EventClock(10**12))
    assert decoded.rejected == []
    return decoded.events


def features(*events: dict[str, Any]) -> list[dict[str, float]]:
    spec = compile_features(SETTINGS)
    tables = FeatureTables(spec, "card", 1000)
    found = decode(*events)
    missing = tables.missing(found)
    assert all(id_ for _, id_ in missing)
    tables.load(missing, [None] * len(missing))
    X, _ = tables.process(found)
    assert all(id_ for _, id_, _ in taken_from(tables))
    return [dict(zip(spec.names, x, strict=True)) for x in X.tolist()]


@pytest.mark.parametrize("null", [{}, dict.fromkeys(list(FIELDS)[3:])])
def test_a_missing_value_of_each_type_stays_missing(null: dict[str, Any]) -> None:
    """A field that is not there, or null: the smallest integer, NaN, an empty text."""
    columns = decode(event(**null)).columns
    numbers = [columns[n][0] for n in ("device", "amount", "items", "online", "channel")]
    assert numbers == [MISSING] * 5
    assert (columns["opened"][0], columns["closed"][0]) == (MISSING, MISSING)
    assert np.isnan(columns["score"][0])
    assert columns["merchant"] == [""]
    assert decode(event(**null)).entity_ids == {"card": ["c"], "device": [""], "pair": [""]}


def test_no_value_of_a_record_is_taken_for_a_missing_one() -> None:
    """The integer that marks it is out of range, as an infinity is no float."""
    strict = StrictDecoder(SETTINGS)
    fields = FIELDS | {"big": {"type": "integer", "optional": True}}
    decoder = Decoder(settings_of(events__fields=fields))
    value = json.dumps(event(big=MISSING)).encode()
    batch = Records("t", 0, [0, 1], [-1] * 2, [None] * 2,
                    [value, json.dumps(event(big=MISSING + 1)).encode()], 2)  # fmt: skip
    decoded = decoder.decode(batch, EventClock(10**12))
    assert [one.code for one in decoded.rejected] == ["integer_too_large"]
    assert decoded.events.columns["big"].tolist() == [MISSING + 1]  # type: ignore[union-attr]
    assert strict.decode(json.dumps(event()).encode(), None, -1)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"opened": "yesterday"}, "bad_time"),
        ({"items": 0}, "out_of_range"),
        ({"amount": "1"}, "wrong_type"),
        ({"amount": 1e300}, "integer_too_large"),
        ({"merchant": "m" * 300}, "id_too_long"),
    ],
)
def test_what_is_there_is_still_checked(fields: dict[str, Any], code: str) -> None:
    """Optional is not anything."""
    values: list[bytes | None] = [json.dumps(event(**fields)).encode()]
    decoded = DECODER.decode(Records("t", 0, [0], [-1], [None], values, 1), EventClock(10**12))
    assert [one.code for one in decoded.rejected] == [code]


def test_missing_values_have_stated_features() -> None:
    """0.0 in x, nothing in a sum or a mean; an event without an entity reads an empty history."""
    there = event(id="a", amount=6, device=7, merchant="m", channel="pos",
                  opened="2024-05-01T11:59:00Z")  # fmt: skip
    first, second, third = features(there, event(id="b"), there | {"id": "c"})
    assert first | {"card_sum_amount_1d": 6.0} == first
    assert (first["age"], first["half"], first["channel=pos"]) == (60.0, 3.0, 1.0)
    assert second == {
        "amount": 0.0, "known": 0.0, "half": 5.0, "channel=web": 0.0, "channel=pos": 0.0,
        "age": 0.0, "device_count_1d": 0.0, "device_time_since_last": -1.0, "pair_count_1d": 0.0,
        "card_sum_amount_1d": 6.0, "card_mean_amount_1d": 6.0,
    }  # fmt: skip
    assert (third["device_count_1d"], third["pair_count_1d"]) == (2.0, 2.0)
    assert third["card_sum_amount_1d"] == 12.0


def test_an_event_without_the_entity_folds_into_nobody() -> None:
    """Two events without a device are not events of one device."""
    found = features(*(event(id=str(i)) for i in range(3)))
    assert [row["device_count_1d"] for row in found] == [0.0, 0.0, 0.0]


def test_a_category_names_an_entity_by_its_values() -> None:
    """Undeclared values are one entity, a missing one is none; the order of values is no matter."""
    for values in (["web", "pos"], ["pos", "web"]):
        channel = {"type": "category", "values": values, "optional": True}
        entities = {"card": {"key": "card"}, "channel": {"key": "channel", "optional": True}}
        settings = settings_of(events__fields__channel=channel, entities=entities, features={})
        assert semantic_problems(settings) == []
        events = [event(channel=c) for c in ("web", "pos", "fax", "post", None)]
        raw: list[bytes | None] = [json.dumps(one).encode() for one in events]
        batch = Records("t", 0, list(range(5)), [-1] * 5, [None] * 5, raw, 5)
        found = Decoder(settings).decode(batch, EventClock(10**12)).events
        assert found.entity_ids["channel"] == ["web", "pos", "*", "*", ""]
    starred = {"type": "category", "values": ["*"], "optional": True}
    wrong = settings_of(events__fields__channel=starred, entities=entities, features={})
    assert [p.path for p in semantic_problems(wrong)] == [("entities", "channel", "key")]


PARTS = st.text("ab|,1\\:", min_size=1, max_size=6)


@given(st.lists(st.tuples(PARTS, PARTS), min_size=2, max_size=2, unique=True))
def test_two_pairs_never_share_an_id(pairs: list[tuple[str, str]]) -> None:
    """Whatever separators the parts hold."""
    assert joined_id(*pairs[0]) != joined_id(*pairs[1])
    columns = [list(column) for column in zip(*pairs, strict=True)]
    assert joined_ids(columns) == [joined_id(*pair) for pair in pairs]


def test_no_two_of_many_short_triples_share_an_id() -> None:
    """All triples of parts of up to three characters from "1", "|" and ","."""
    parts = ["".join(p) for n in (1, 2, 3) for p in itertools.product("1|,", repeat=n)]
    ids = {joined_id(*triple) for triple in itertools.product(parts, repeat=3)}
    assert len(ids) == len(parts) ** 3
    assert joined_ids([["a"], ["b"], ["c"]]) == [joined_id("a", "b", "c")]


@UNHURRIED
@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.sampled_from(("m", "n", None))), min_size=1, max_size=20
    )
)
def test_a_composite_entity_has_the_history_of_its_pair(
    pairs: list[tuple[str, str | None]],
) -> None:
    """Counts per pair, by counting."""
    events = [
        event(id=str(i), card=card, merchant=merchant) for i, (card, merchant) in enumerate(pairs)
    ]
    counts = [row["pair_count_1d"] for row in features(*events)]
    expected = [
        0 if pair[1] is None else pairs[: i + 1].count(pair) for i, pair in enumerate(pairs)
    ]
    assert counts == expected


@pytest.mark.parametrize(
    ("change", "path", "hint"),
    [
        ({"entities__device": {"key": "device"}}, "entities.device.optional", "device may be"),
        ({"entities__pair": {"key": ["card", "merchant"]}}, "entities.pair.optional", "merchant"),
        ({"entities__device": {"key": "card", "optional": True}}, "entities.device.optional",
         "optional: true at events.fields.card"),
        ({"entities__pair": {"key": ["card", "card"]}}, "entities.pair.key", ""),
        ({"entities__pair": {"key": ["card"]}}, "entities.pair.key", ""),
        ({"entities__pair": {"key": ["card", "merchnt"]}}, "entities.pair.key", "merchant"),
        ({"entities__pair": {"key": ["card", "amount"]}}, "entities.pair.key", ""),
        ({"events__fields__card": {"type": "string", "optional": True}},
         "events.fields.card.optional", ""),
        ({"events__fields__at": {"type": "timestamp", "optional": True}},
         "events.fields.at.optional", ""),
        ({"events__fields__score": {"type": "float", "optional": True, "default": 1}},
         "events.fields.score.optional", ""),
    ],
)  # fmt: skip
def test_a_contradiction_is_a_problem(change: dict[str, Any], path: str, hint: str) -> None:
    """Named where it is, with what to write."""
    found = {".".join(map(str, p.path)): p for p in semantic_problems(settings_of(**change))}
    assert path in found
    assert hint in found[path].hint


def test_the_example_has_no_problem_and_is_described() -> None:
    """Entities with their keys, fields that are optional, a schema that lets them be missing."""
    assert semantic_problems(SETTINGS) == []
    text = describe(SETTINGS, compile_features(SETTINGS))
    assert "pair (optional)" in text
    assert "card and merchant" in text
    assert "part of pair id" in text
    schema = json_schema("events", SETTINGS)
    assert schema["required"] == ["id", "card", "at"]
    assert schema["properties"]["device"]["type"] == ["integer", "null"]
