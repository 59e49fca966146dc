"""What a configuration means, in words and tables; and the JSON Schema of each contract."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any  # JSON Schema

from pydantic import TypeAdapter

from worker.config_problems import near
from worker.contracts.messages import (
    Alert,
    IncidentClosed,
    JournalRow,
    LabelMessage,
    ModelNotice,
    Score,
)
from worker.contracts.settings import (
    DecisionSettings,
    FieldSettings,
    KafkaSettings,
    ModelSettings,
    RedisSettings,
    Settings,
    format_duration,
)
from worker.decode_fields import ID_BYTES_MAX
from worker.errors import ConfigError
from worker.features.sizes import VALUE_MAX, bytes_estimate, without_range
from worker.features.spec import FeatureSpec
from worker.secondary import secondary_entities

_CONTRACTS: dict[str, TypeAdapter[Any]] = {
    "config": TypeAdapter(Settings),
    "labels": TypeAdapter(LabelMessage),
    "alerts": TypeAdapter(Alert | IncidentClosed | ModelNotice),
    "scores": TypeAdapter(Score),
    "journal": TypeAdapter(JournalRow),
}
CONTRACTS = ("config", "events", "labels", "alerts", "scores", "journal")

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_JSON_TYPES = {
    "string": "string",
    "integer": "integer",
    "float": "number",
    "decimal": "number",
    "boolean": "boolean",
    "category": "string",
}
_UNIT_WORDS = {"s": "seconds", "ms": "milliseconds", "us": "microseconds"}


def describe(settings: Settings, spec: FeatureSpec) -> str:
    """Return what a configuration means as plain text, the same for the same file.

    Topics with their keys, fields, features in the order of x, entities with the memory each
    takes, models, decision, stream and store. No secret is in it.
    """
    hashes = f"spec {spec.spec_hash[:12]}, state {spec.state_hash[:16]}"
    summary = f"{settings.name}: {len(spec.names)} features, {hashes}"
    tables = (
        _table("topics", ("topic", "what", "key"), _topics(settings, spec)),
        _table("fields", ("field", "type", "use", "rules"), _fields(settings)),
        _table("features", ("#", "feature", "meaning"), _features(spec)),
        _table(
            "entities", ("entity", "key", "ring", "bytes each, at most"), _entities(settings, spec)
        ),
        _table("models", ("model", "what", "features"), _models(settings)),
        "\n".join(["decision", *_decision(settings)]),
        "\n".join(["runs on", *_places(settings)]),
    )
    return "\n\n".join((summary, *tables))


def json_schema(what: str, settings: Settings | None = None) -> dict[str, Any]:
    """Return the JSON Schema of a contract; ``events`` follows from the settings.

    Raises
    ------
    ConfigError
        There is no such contract, or ``events`` was asked for without settings.

    Examples
    --------
    >>> json_schema("labels")["required"]
    ['event_id', 'label']
    """
    if what not in CONTRACTS:
        raise ConfigError(
            "schema",
            expected=f"one of {', '.join(CONTRACTS)}",
            got=what,
            hint=near(what, CONTRACTS),
        )
    if what != "events":
        return {"$schema": _DIALECT, "type": "object", **_CONTRACTS[what].json_schema()}
    if settings is None:
        raise ConfigError(
            "schema events", expected="a configuration", got="none", hint="add -c FILE"
        )
    return _events_schema(settings)


def _table(title: str, header: Sequence[str], rows: Iterator[tuple[str, ...]]) -> str:
    cells = [tuple(header), *rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = (
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in cells
    )
    return "\n".join([title, *(line.rstrip() for line in lines)])


def _topics(settings: Settings, spec: FeatureSpec) -> Iterator[tuple[str, ...]]:
    entity, outputs = settings.primary_entity, settings.outputs
    yield settings.events.topic, "events in", f"{entity} ({settings.events.key})"
    if settings.labels is not None:
        yield settings.labels.topic, "labels in, as many partitions", f"{entity}, as its event"
    yield outputs.journal, "out: a row per event", "none; partition of the event"
    yield outputs.alerts, "out: alerts", entity
    if outputs.scores.publish != "none":
        yield outputs.scores.topic, f"out: {_published(settings)}", entity
    shared = secondary_entities(spec)
    if shared:
        what = f"out and in: rows of {', '.join(shared)}, for their owners; not with 1 partition"
        yield outputs.entity_updates, what, "none"
    yield outputs.dead_letters, "out: rejected records, unchanged", "as it came"
    yield outputs.training, "out and in: examples, 1 partition", "none"


def _published(settings: Settings) -> str:
    publish = settings.outputs.scores.publish
    return f"scores from {publish['above']:g}" if isinstance(publish, dict) else "all scores"


def _fields(settings: Settings) -> Iterator[tuple[str, ...]]:
    for name, declared in settings.events.fields.items():
        yield name, declared.type, _use(settings, name), _rules(settings, name, declared)


def _use(settings: Settings, name: str) -> str:
    uses = [
        f"{e} id" if len(entity.keys) == 1 else f"part of {e} id"
        for e, entity in settings.entities.items()
        if name in entity.keys
    ]
    if name == settings.events.id:
        uses.insert(0, "event id")
    if name == settings.events.time.field:
        uses.insert(0, "event time")
    return ", ".join(uses)


def _rules(settings: Settings, name: str, declared: FieldSettings) -> str:
    rules = []
    if declared.type == "timestamp":
        unit = settings.events.time.unit if name == settings.events.time.field else declared.unit
        rules.append("ISO 8601" if unit == "iso" else f"{_UNIT_WORDS[unit]} since 1970")
    if declared.resolution is not None:
        rules.append(f"in units of {declared.resolution:g}")
    if declared.values:
        rules.append(f"known: {', '.join(declared.values)}")
    if declared.min is not None:
        rules.append(f"at least {declared.min:g}")
    if declared.max is not None:
        rules.append(f"at most {declared.max:g}")
    if declared.default is not None:
        rules.append(f"optional, else {declared.default}")
    if declared.optional:
        rules.append("optional")
    return "; ".join(rules)


def _features(spec: FeatureSpec) -> Iterator[tuple[str, ...]]:
    for i, feature in enumerate(spec.features):
        yield str(i), feature.name, feature.words


def _entities(settings: Settings, spec: FeatureSpec) -> Iterator[tuple[str, ...]]:
    known = {part.name.partition("~")[0]: part for part in spec.label_parts}
    for name, entity in settings.entities.items():
        kind = " (primary)" if name == settings.primary_entity else ""
        kind += " (optional)" if entity.optional else ""
        yield (
            name + kind,
            " and ".join(entity.keys),
            str(entity.ring),
            _bytes(settings, spec, name),
        )
        if name in known:
            part = known[name]
            size = _bytes(settings, spec, part.name)
            yield part.name, "what became known", str(part.ring), size


def _bytes(settings: Settings, spec: FeatureSpec, part: str) -> str:
    """Return the size of an entity, and what was assumed of fields that declare no range."""
    size = str(bytes_estimate(settings, spec, part))
    assumed = ", ".join(without_range(settings, spec, part))
    return f"{size}, if {assumed} <= {VALUE_MAX - 1:,} units" if assumed else size


def _models(settings: Settings) -> Iterator[tuple[str, ...]]:
    for name, model in settings.models.items():
        chosen = model.features
        yield name, _model(model), "all" if chosen is None else ", ".join(chosen)


def _model(model: ModelSettings) -> str:
    if model.preset is not None:
        words = f"preset {model.preset}"
    elif model.factory is not None:
        words = f"factory {model.factory}"
    else:
        steps = model.river if isinstance(model.river, tuple) else (model.river,)
        words = " | ".join(s if isinstance(s, str) else next(iter(s or {"?": None})) for s in steps)
    return f"{words} with {', '.join(sorted(model.params))}" if model.params else words


def _decision(settings: Settings) -> Iterator[str]:
    decision = settings.decision
    if decision.threshold is not None:
        yield f"  alert when {decision.model} scores {decision.threshold:g} or more"
    elif decision.alerts_per_day is not None:
        yield f"  at most {decision.alerts_per_day} alerts a day, by {decision.model}"
    else:
        yield f"  alert on {100 * (decision.alert_rate or 0):g} % of events, by {decision.model}"
    yield from _conditions(decision)
    levels = sorted(decision.severity.items(), key=lambda item: item[1])
    if levels:
        yield "  severity " + ", ".join(f"{name} from {score:g}" for name, score in levels)
    if decision.incidents is not None:
        quiet = format_duration(decision.incidents.quiet)
        yield f"  alerts of one {decision.incidents.entity} are an incident until {quiet} of quiet"
    yield f"  at most {decision.reasons_max} reasons an alert"


def _conditions(decision: DecisionSettings) -> Iterator[str]:
    for kind, words in (("block", "always alert"), ("allow", "never alert")):
        for one in getattr(decision, kind):
            yield f"  {words} on {len(one.values)} values of {one.field}"
    if decision.evidence is not None:
        evidence = decision.evidence
        score = evidence.threshold
        unless = "" if score is None else f", unless the score is {score:g} or more"
        yield f"  no alert while {evidence.feature} is below {evidence.at_least:g}{unless}"
    if decision.suppress is not None:
        within = format_duration(decision.suppress.within)
        yield f"  one alert per {decision.suppress.entity} within {within}"


def _places(settings: Settings) -> Iterator[str]:
    stream, store, runner = settings.stream, settings.store, settings.runner
    if isinstance(stream, KafkaSettings):
        yield f"  stream kafka at {stream.bootstrap_servers}, {stream.security_protocol}"
    else:
        yield f"  stream memory, {stream.partitions} partitions"
    yield "  store redis" if isinstance(store, RedisSettings) else "  store memory"
    yield f"  at most {runner.batch_records_max} events a transaction"
    yield f"  state to the store every {format_duration(runner.flush)}"
    if (degrade := settings.degrade) is not None:
        yield f"  behind for {format_duration(degrade.learning)}: no learning"
        yield f"  behind for {format_duration(degrade.challengers)}: no challengers either"
    if settings.labels is not None:
        yield f"  an event waits {format_duration(settings.labels.horizon)} for its label"


def _events_schema(settings: Settings) -> dict[str, Any]:
    fields = settings.events.fields
    return {
        "$schema": _DIALECT,
        "title": f"an event of {settings.events.topic}",
        "type": "object",
        "properties": {n: _field_schema(settings, n, declared) for n, declared in fields.items()},
        "required": [name for name, declared in fields.items() if declared.is_required],
        "additionalProperties": True,
    }


def _field_schema(settings: Settings, name: str, declared: FieldSettings) -> dict[str, Any]:
    schema = _type_schema(settings, name, declared)
    for keyword, bound in (("minimum", declared.min), ("maximum", declared.max)):
        if bound is not None:
            schema[keyword] = bound
    if not declared.is_required:
        # A null stands for the default, or is missing, as a field that is not there.
        schema["type"] = [schema["type"], "null"]
        schema["default"] = declared.default
    words = "; ".join(
        part for part in (_use(settings, name), _rules(settings, name, declared)) if part
    )
    return {**schema, "description": words} if words else schema


def _type_schema(settings: Settings, name: str, declared: FieldSettings) -> dict[str, Any]:
    if declared.type == "timestamp":
        unit = settings.events.time.unit if name == settings.events.time.field else declared.unit
        if unit == "iso":
            return {"type": "string", "format": "date-time"}
        return {"type": "number" if unit == "s" else "integer"}
    schema: dict[str, Any] = {"type": _JSON_TYPES[declared.type]}
    if declared.type == "category":
        schema["examples"] = list(declared.values or ())
    if declared.type == "string" and _use(settings, name):
        schema |= {"minLength": 0 if declared.may_be_missing else 1, "maxLength": ID_BYTES_MAX}
    return schema
