"""What `riverwatch check` and `riverwatch schema` say."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.corpus import CORPUS, settings_values
from worker.contracts.settings import Settings
from worker.describe import CONTRACTS, describe, json_schema
from worker.errors import ConfigError
from worker.features.sizes import bytes_estimate
from worker.features.spec import compile_features

SETTINGS = Settings.model_validate(settings_values())
SPEC = compile_features(SETTINGS)


def test_everything_that_is_declared_is_described() -> None:
    """Topics, fields, features in their order, entities, models and the decision."""
    text = describe(SETTINGS, SPEC)
    outputs = SETTINGS.outputs
    for word in (
        "transactions", outputs.journal, outputs.alerts, outputs.dead_letters, outputs.training,
        *SETTINGS.events.fields, *SPEC.names, "card (primary)", "terminal", "half_space_trees",
        "alert when odd scores 0.99 or more", SPEC.spec_hash[:12],
    ):  # fmt: skip
        assert word in text
    places = [text.index(f"  {feature.name} ") for feature in SPEC.features]
    assert places == sorted(places)
    assert all(feature.words in text for feature in SPEC.features)
    assert str(bytes_estimate(SETTINGS, SPEC, "card")) in text


def test_a_size_says_what_it_assumes_of_fields_without_a_range() -> None:
    """In its own line; of a field that declares its largest value nothing is assumed."""
    values = settings_values()
    values["features"] = {"card": {"mean(amount)": ["1d"]}, "terminal": {"count": ["1d"]}}
    lines = []
    for largest in ({}, {"max": 999.99}):
        values["events"]["fields"]["amount"] = {"type": "decimal", "resolution": 0.01, **largest}
        settings = Settings.model_validate(values)
        text = describe(settings, compile_features(settings)).partition("entities")[2]
        lines.append({line.split()[0]: line for line in text.splitlines() if line.strip()})
    assert lines[0]["card"].endswith(" if amount <= 99,999 units")
    assert "amount" not in lines[1]["card"] + lines[0]["terminal"]


def test_no_table_line_ends_in_blanks_and_columns_are_aligned() -> None:
    """Plain text that can be compared and copied."""
    lines = describe(SETTINGS, SPEC).splitlines()
    assert all(line == line.rstrip() for line in lines)
    header = next(i for i, line in enumerate(lines) if line.startswith("  topic"))
    starts = [line.index(word) for line, word in zip(
        lines[header : header + 2], ("what", "events in"), strict=True)]  # fmt: skip
    assert starts[0] == starts[1]


def test_a_description_holds_no_secret() -> None:
    """Passwords of Kafka and Redis stay out of the terminal."""
    stream = {
        "kind": "kafka", "security_protocol": "SASL_SSL", "sasl_mechanism": "PLAIN",
        "sasl_username": "u", "sasl_password": "hunter2",
    }  # fmt: skip
    store = {"kind": "redis", "url": "redis://:hunter2@localhost"}
    settings = Settings.model_validate(settings_values(stream=stream, store=store))
    assert "hunter2" not in describe(settings, SPEC)


def test_an_alert_budget_is_said_as_a_share() -> None:
    """The other kind of decision, with severities in ascending order."""
    decision = {"model": "odd", "alert_rate": 0.005, "severity": {"high": 0.9, "low": 0.2}}
    text = describe(Settings.model_validate(settings_values(decision=decision)), SPEC)
    assert "alert on 0.5 % of events, by odd" in text
    assert "severity low from 0.2, high from 0.9" in text


@pytest.mark.parametrize("what", CONTRACTS)
def test_every_contract_has_a_json_schema(what: str) -> None:
    """Each is JSON, names its dialect and describes an object."""
    schema = json.loads(json.dumps(json_schema(what, SETTINGS)))
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["type"] == "object"
    kinds = [one["$ref"].rpartition("/")[2] for one in schema.get("anyOf", [])]
    assert all(schema["$defs"][kind]["properties"]["kind"] for kind in kinds)
    assert kinds == (["Alert", "IncidentClosed", "ModelNotice"] if what == "alerts" else [])
    assert kinds or schema["properties"]


def test_an_unknown_contract_is_refused_with_the_nearest() -> None:
    """The usual typing mistake."""
    with pytest.raises(ConfigError, match="did you mean alerts"):
        json_schema("alert")
    with pytest.raises(ConfigError, match="add -c FILE"):
        json_schema("events")


def test_the_schema_of_events_agrees_with_the_decoder_on_the_corpus() -> None:
    """What the decoder accepts is valid; what is missing, mistyped or out of range is not."""
    schema = json_schema("events", SETTINGS)
    assert schema["additionalProperties"] is True
    checked = 0
    for case in CORPUS:
        if case.code in (None, "missing_field", "wrong_type", "out_of_range"):
            event = json.loads(case.value or b"", parse_int=lambda text: int(text[:40]))
            assert valid(schema, event) == (case.code is None), case.name
            checked += 1
    assert checked > 40


TYPES: dict[str, Any] = {
    "string": lambda v: isinstance(v, str),
    "integer": lambda v: isinstance(v, int) and not isinstance(v, bool),
    "number": lambda v: isinstance(v, int | float) and not isinstance(v, bool),
    "boolean": lambda v: isinstance(v, bool),
    "null": lambda v: v is None,
}


def valid(schema: dict[str, Any], event: dict[str, Any]) -> bool:
    declared = schema["properties"]
    return set(schema["required"]) <= set(event) and all(
        valid_field(declared[name], value) for name, value in event.items() if name in declared
    )


def valid_field(schema: dict[str, Any], value: Any) -> bool:
    types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    if not any(TYPES[kind](value) for kind in types):
        return False
    is_number = isinstance(value, int | float)
    return not (
        (is_number and value < schema.get("minimum", value))
        or (is_number and value > schema.get("maximum", value))
        or (isinstance(value, str) and len(value) < schema.get("minLength", 0))
    )
