"""What a configuration must say beyond the types of its keys: one small rule per function."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

from worker.config_decision import decision_problems
from worker.config_problems import near, shown
from worker.contracts.entity_ids import OTHER
from worker.contracts.settings import (
    EntitySettings,
    FieldSettings,
    KafkaSettings,
    LabelSettings,
    ModelSettings,
    RedisSettings,
    Settings,
    format_duration,
)
from worker.decode_fields import INT64_MAX, INT64_MIN, UNITS_MAX, time_default
from worker.errors import Problem

# Prefixes of the keys of a shard's own state in the store; see worker/shard.py.
RESERVED_ENTITIES = ("pend", "shard", "meta")

_ID_TYPES = ("string", "integer")
_ENTITY_TYPES = (*_ID_TYPES, "category")
_NUMBER_TYPES = ("integer", "float", "decimal")
_RESOLUTIONS = tuple(float(f"1e-{digits}") for digits in range(10))
_KEY_BYTES_MIN = 16  # of the key that signs snapshots
_SOURCES = ("preset", "river", "factory")
_BOOTSTRAP = re.compile(r"([^\s:/,]+|\[[0-9A-Fa-f:]+\]):0*[1-9]\d{0,4}")
_URL_SCHEMES = ("redis://", "rediss://", "unix://")


def semantic_problems(settings: Settings) -> list[Problem]:
    """Return every contradiction within a configuration whose keys and types are right.

    >>> from worker.contracts.settings import Settings
    >>> settings = Settings.model_validate({
    ...     "name": "t", "features": {}, "models": {"m": {"preset": "logistic"}},
    ...     "decision": {"model": "n", "threshold": 0.5}, "entities": {"card": {"key": "card"}},
    ...     "events": {"topic": "t", "id": "id", "key": "card", "time": {"field": "at"},
    ...                "fields": {"id": "string", "card": "string", "at": "timestamp"}}})
    >>> [(one.path, one.expected, one.got) for one in semantic_problems(settings)]
    [(('decision', 'model'), 'the name of a model', '"n"')]
    """
    rules = (
        _events, _fields, _entities, _models, decision_problems, _topics, _labels, _runner, _stream,
        _store, _snapshots,
    )  # fmt: skip
    return [problem for rule in rules for problem in rule(settings)]


def _events(settings: Settings) -> Iterator[Problem]:
    events = settings.events
    yield from _reference(settings, ("events", "id"), events.id, _ID_TYPES, is_required=True)
    yield from _reference(settings, ("events", "key"), events.key, _ID_TYPES, is_required=True)
    path = ("events", "time", "field")
    yield from _reference(settings, path, events.time.field, ("timestamp",), is_required=True)
    declared = events.fields.get(events.time.field)
    if declared and "unit" in declared.model_fields_set and declared.unit != events.time.unit:
        expected = f"the unit of the field, {declared.unit}"
        yield Problem(("events", "time", "unit"), expected, shown(events.time.unit))


def _reference(
    settings: Settings, path: tuple[str, ...], name: str, types: tuple[str, ...], is_required: bool
) -> Iterator[Problem]:
    """Yield what is wrong with naming a field at a path."""
    declared = settings.events.fields.get(name)
    if declared is None:
        hint = near(name, settings.events.fields)
        yield Problem(path, "a field of events.fields", shown(name), hint)
    elif declared.type not in types:
        yield Problem(path, f"a field of type {' or '.join(types)}", f"{name}: {declared.type}")
    elif is_required and not declared.is_required:
        option = "optional" if declared.optional else "default"
        where = ("events", "fields", name, option)
        got = shown(getattr(declared, option))
        yield Problem(where, f"no {option}: {'.'.join(path)} names it", got)


def _fields(settings: Settings) -> Iterator[Problem]:
    for name, declared in settings.events.fields.items():
        unit = settings.events.time.unit if name == settings.events.time.field else declared.unit
        for problem in (*_options(declared), *_bounds(declared), *_default(declared, unit)):
            path = ("events", "fields", name, *problem.path)
            yield Problem(path, problem.expected, problem.got, problem.hint)


def _options(declared: FieldSettings) -> Iterator[Problem]:
    """Yield options that a type needs or does not have; the paths begin at the field."""
    if declared.type == "category" and not declared.values:
        yield Problem(("values",), "at least one value", "none", "for example values: [web, chip]")
    if declared.values and len(set(declared.values)) < len(declared.values):
        yield Problem(("values",), "each value once", "one of them again")
    if declared.type == "decimal" and declared.resolution not in _RESOLUTIONS:
        expected = "a power of ten from 1e-9 to 1"
        yield Problem(("resolution",), expected, shown(declared.resolution), "0.01 for cents")
    allowed = {
        "values": ("category",), "resolution": ("decimal",), "unit": ("timestamp",),
        "min": _NUMBER_TYPES, "max": _NUMBER_TYPES,
    }  # fmt: skip
    for option, types in allowed.items():
        if option in declared.model_fields_set and declared.type not in types:
            got = f"type {declared.type}"
            yield Problem((option,), f"a field of type {' or '.join(types)}", got)


def _bounds(declared: FieldSettings) -> Iterator[Problem]:
    low, high = declared.min, declared.max
    for option, bound in (("min", low), ("max", high)):
        if bound is not None and not math.isfinite(bound):
            yield Problem((option,), "a finite number", shown(bound))
    if low is not None and high is not None and low > high:
        yield Problem(("min",), f"at most max, {high:g}", f"{low:g}")


def _default(declared: FieldSettings, unit: str) -> Iterator[Problem]:
    default = declared.default
    if default is None:
        return
    if declared.optional:
        yield Problem(("optional",), "no default, or no optional: true", "both")
    expected = _default_type(declared, default, unit)
    if expected is None:
        expected = _default_bound(declared, default)
    if expected is not None:
        yield Problem(("default",), expected, shown(default))


def _default_type(
    declared: FieldSettings, default: str | float, unit: str
) -> str | None:  # what was expected, if it is not that
    is_number = isinstance(default, int | float) and not isinstance(default, bool)
    if declared.type in ("string", "category"):
        return None if isinstance(default, str) else "a text"
    if declared.type == "boolean":
        return None if isinstance(default, bool) else "true or false"
    if declared.type == "integer":
        return None if is_number and isinstance(default, int) else "an integer"
    if declared.type == "timestamp":
        is_time = time_default(default, unit) is not None
        return None if is_time else f"a time, unit {unit}"
    return None if is_number and math.isfinite(default) else "a finite number"  # type: ignore[arg-type]


def _default_bound(declared: FieldSettings, default: str | float) -> str | None:
    if declared.type not in _NUMBER_TYPES or isinstance(default, str):
        return None
    if declared.min is not None and default < declared.min:
        return f"at least min, {declared.min:g}"
    if declared.max is not None and default > declared.max:
        return f"at most max, {declared.max:g}"
    if declared.type == "integer" and not INT64_MIN <= default <= INT64_MAX:
        return "an integer of 64 bits"
    if declared.type == "decimal" and abs(default) > UNITS_MAX * (declared.resolution or 1):
        return "at most 2**40 units of the resolution"
    return None


def _entities(settings: Settings) -> Iterator[Problem]:
    for name, entity in settings.entities.items():
        yield from _entity_key(settings, name, entity)
        if name in RESERVED_ENTITIES:
            yield Problem(("entities", name), "another name", shown(name), "it is reserved")
    key = settings.events.key
    if key in settings.events.fields and all(e.key != key for e in settings.entities.values()):
        expected = f"an entity with the key of the events, {key}"
        yield Problem(("entities",), expected, "none")


def _entity_key(settings: Settings, name: str, entity: EntitySettings) -> Iterator[Problem]:
    """Yield what is wrong with the fields of an id, and with being optional or not."""
    path = ("entities", name, "key")
    is_list = not isinstance(entity.key, str)
    if len(set(entity.keys)) < len(entity.keys) or (is_list and len(entity.keys) < 2):
        yield Problem(path, "a field, or several different ones", shown(list(entity.keys)))
        return
    for key in entity.keys:
        yield from _reference(settings, path, key, _ENTITY_TYPES, is_required=False)
    declared = [settings.events.fields.get(key) for key in entity.keys]
    if any(OTHER in (field.values or ()) for field in declared if field is not None):
        expected = f"a category without the value {OTHER}"
        yield Problem(path, expected, shown(entity.key), "it stands for undeclared values")
    missing = [
        key for key, field in zip(entity.keys, declared, strict=True)
        if field is not None and field.may_be_missing
    ]  # fmt: skip
    if missing and not entity.optional and settings.events.key not in missing:
        hint = f"{missing[0]} may be missing"
        yield Problem(("entities", name, "optional"), "true", "false", hint)
    if entity.optional and not missing and None not in declared:
        hint = f"write optional: true at events.fields.{entity.keys[-1]}"
        yield Problem(("entities", name, "optional"), "a key that may be missing", "none", hint)


def _models(settings: Settings) -> Iterator[Problem]:
    for name, model in settings.models.items():
        given = _given(model)
        if len(given) != 1:
            expected = "exactly one of preset, river and factory"
            yield Problem(("models", name), expected, " and ".join(given) or "none")
        yield from _scope(settings, ("models", name), model)


def _scope(settings: Settings, path: tuple[str, ...], model: ModelSettings) -> Iterator[Problem]:
    primary = [n for n, e in settings.entities.items() if e.key == settings.events.key]
    if model.scope == "log":
        if model.entity is not None:
            hint = "or write scope: entity"
            yield Problem((*path, "entity"), "nothing with scope: log", shown(model.entity), hint)
        return
    if model.preset != "series":
        yield Problem((*path, "preset"), "series with scope: entity", shown(model.preset or "none"))
    if primary and model.entity != primary[0]:
        hint = "the primary entity: all of its events come through one partition"
        yield Problem((*path, "entity"), shown(primary[0]), shown(model.entity or "none"), hint)
    if not model.features:
        yield Problem((*path, "features"), "the features of the series", "none")


def _given(model: ModelSettings) -> list[str]:
    return [source for source in _SOURCES if getattr(model, source) is not None]


def _topics(settings: Settings) -> Iterator[Problem]:
    outputs = settings.outputs
    topics: list[tuple[tuple[str, ...], str]] = [(("events", "topic"), settings.events.topic)]
    if settings.labels is not None:
        topics.append((("labels", "topic"), settings.labels.topic))
    names = ("journal", "alerts", "dead_letters", "training")
    topics += [(("outputs", name), getattr(outputs, name)) for name in names]
    topics.append((("outputs", "scores", "topic"), outputs.scores.topic))
    seen: dict[str, tuple[str, ...]] = {}
    for path, topic in topics:
        first = seen.setdefault(topic, path)
        if first != path:
            hint = f"{'.'.join(first)} has it"
            yield Problem(path, "a topic of its own", shown(topic), hint)


def _labels(settings: Settings) -> Iterator[Problem]:
    labels = settings.labels
    if labels is None:
        return
    if labels.column is not None and labels.delay is None:
        hint = "when a row's label becomes known, for example 7d"
        yield Problem(("labels",), "a delay beside column", "none", hint)
    if labels.column in settings.events.fields:
        expected = "a column that is no field of the events"
        yield Problem(("labels", "column"), expected, shown(labels.column), "a model could read it")
    if labels.delay is not None and labels.delay >= labels.horizon:
        expected = f"less than horizon, {format_duration(labels.horizon)}"
        yield Problem(("labels", "delay"), expected, format_duration(labels.delay))
    yield from _maturity(labels)


def _maturity(labels: LabelSettings) -> Iterator[Problem]:
    """Check that an event counts as negative where it is said to, and while it can be found."""
    is_positives_only = labels.mode == "positives_only"
    if is_positives_only and labels.maturity is None:
        hint = "how old an event is when it counts as negative, for example 30d"
        yield Problem(("labels",), "a maturity with positives_only", "none", hint)
    if labels.maturity is not None and not is_positives_only:
        expected = "no maturity, or mode positives_only"
        yield Problem(("labels", "maturity"), expected, f"mode {labels.mode}")
    if labels.negative_rate != 1.0 and not is_positives_only:
        expected = "no negative_rate, or mode positives_only"
        yield Problem(("labels", "negative_rate"), expected, f"mode {labels.mode}")
    if labels.maturity is not None and labels.maturity > labels.horizon:
        expected = f"at most horizon, {format_duration(labels.horizon)}"
        yield Problem(("labels", "maturity"), expected, format_duration(labels.maturity))


def _runner(settings: Settings) -> Iterator[Problem]:
    runner = settings.runner
    if runner.dirty_max <= runner.batch_records_max:
        expected = f"more than batch_records_max, {runner.batch_records_max}"
        yield Problem(("runner", "dirty_max"), expected, str(runner.dirty_max))
    degrade = settings.degrade
    if degrade is not None and degrade.challengers < degrade.learning:
        expected = f"at least learning, {format_duration(degrade.learning)}"
        yield Problem(("degrade", "challengers"), expected, format_duration(degrade.challengers))


def _stream(settings: Settings) -> Iterator[Problem]:
    stream = settings.stream
    if not isinstance(stream, KafkaSettings):
        return
    if settings.events.record_bytes_max >= stream.message_bytes_max:
        expected = f"less than stream.message_bytes_max, {stream.message_bytes_max}"
        got = str(settings.events.record_bytes_max)
        yield Problem(("events", "record_bytes_max"), expected, got)
    for server in stream.bootstrap_servers.split(","):
        if not _BOOTSTRAP.fullmatch(server.strip()):
            expected = "host:port, by commas"
            yield Problem(("stream", "bootstrap_servers"), expected, shown(server.strip()))
    if stream.security_protocol.startswith("SASL"):
        for name in ("sasl_mechanism", "sasl_username", "sasl_password"):
            if getattr(stream, name) is None:
                expected = f"a value with {stream.security_protocol}"
                yield Problem(("stream", name), expected, "nothing")


def _store(settings: Settings) -> Iterator[Problem]:
    store = settings.store
    if not isinstance(store, RedisSettings):
        return
    url = store.url.get_secret_value()
    if not url.startswith(_URL_SCHEMES):
        yield Problem(("store", "url"), f"one of {', '.join(_URL_SCHEMES)}", "another URL")
    elif not _has_port(url):
        hint = "for example redis://localhost:6379/0"
        yield Problem(("store", "url"), "a host, and a port from 1 to 65535", "another", hint)
    elif store.cluster and not _is_for_a_cluster(url):
        expected = "redis:// or rediss:// and no database but 0, in a cluster"
        yield Problem(("store", "url"), expected, "another", "for example redis://localhost:6379")


def _is_for_a_cluster(url: str) -> bool:
    parts = urlsplit(url)
    asked = parse_qs(parts.query).get("db", [])
    return parts.scheme != "unix" and {parts.path.strip("/"), *asked} <= {"", "0"}


def _has_port(url: str) -> bool:
    """Return whether host and port of a URL can be read; a URL without a port has the usual one."""
    try:
        return urlsplit(url).port != 0
    except ValueError:
        return False


def _snapshots(settings: Settings) -> Iterator[Problem]:
    snapshots = settings.snapshots
    if snapshots is not None and len(snapshots.key.get_secret_value().encode()) < _KEY_BYTES_MIN:
        expected = f"a key of {_KEY_BYTES_MIN} bytes or more"
        yield Problem(("snapshots", "key"), expected, "a shorter one", "openssl rand -hex 32")
