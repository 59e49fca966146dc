"""What a configuration file may say: one pydantic model per section, the file's root is `Settings`.

Durations are written as ``10m`` or ``7d`` and held as milliseconds. Unknown keys are errors.
"""

from __future__ import annotations

from math import isfinite
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, field_validator, model_validator

from worker.contracts.decision_settings import (
    DecisionSettings,
    EvidenceSettings,
    IncidentSettings,
    ListSettings,
    SuppressSettings,
)
from worker.contracts.label_settings import LabelSettings, SourceSettings
from worker.contracts.metrics_settings import MetricsSettings
from worker.contracts.sections import (
    Duration,
    Name,
    Section,
    Topic,
    format_duration,
    parse_duration,
)
from worker.contracts.target_means import TYPES, entity_of_target, parse_target_mean

__all__ = [
    "DecisionSettings", "Duration", "EvidenceSettings", "IncidentSettings", "LabelSettings",
    "ListSettings", "Name", "Section", "SourceSettings", "SuppressSettings", "Topic",
    "format_duration", "parse_duration",
]  # fmt: skip


class FieldSettings(Section):
    """One declared field of an event. Missing or null becomes the ``default``, or stays missing
    where the field is ``optional``.
    """

    type: Literal["string", "integer", "float", "decimal", "boolean", "category", "timestamp"] = (
        Field(description="how its JSON value is checked and held")
    )
    default: str | bool | int | float | None = Field(
        default=None,
        description="the value of an event without this field, which makes it optional",
    )
    optional: bool = Field(
        default=False, description="it may be missing or null, and stays missing: is_missing($x)"
    )
    min: float | None = Field(default=None, description="smallest value accepted (inclusive)")
    max: float | None = Field(default=None, description="largest value accepted (inclusive)")
    resolution: float | None = Field(
        default=None,
        description="decimals only: the unit of the fixed-point integer, a power of ten",
    )
    values: tuple[str, ...] | None = Field(
        default=None, description="categories only: the known values"
    )
    unit: Literal["iso", "s", "ms", "us"] = Field(default="iso", description="timestamps only")

    @property
    def is_required(self) -> bool:
        """Return whether an event must have it."""
        return self.default is None and not self.optional

    @property
    def may_be_missing(self) -> bool:
        """Return whether an event may be without it, as an id: an empty text is none."""
        return self.optional or self.default == ""

    @model_validator(mode="before")
    @classmethod
    def _expand_shorthand(cls, value: Any) -> Any:  # Any: raw YAML
        return {"type": value} if isinstance(value, str) else value


class TimeSettings(Section):
    """Where the event time is: ISO 8601 (no offset means UTC) or a number of units since 1970."""

    field: str = Field(description="a declared field of the event")
    unit: Literal["iso", "s", "ms", "us"] = Field(default="iso", description="how it is written")


class EventSettings(Section):
    """The input topic and the schema of its JSON objects."""

    topic: Topic = Field(description="where events come from")
    id: str = Field(description="the field that names an event; unique")
    key: str = Field(description="the field that is the Kafka key: the primary entity")
    time: TimeSettings
    timezone: str = Field(default="UTC", description="of hour, weekday and the like: Europe/Paris")
    fields: dict[str, FieldSettings] = Field(description="what is not declared is ignored")
    ahead_max: Duration = Field(
        default=86_400_000,
        validate_default=False,
        description="how far an event may be ahead of the shard's event time",
    )
    record_bytes_max: int = Field(
        default=65_536, ge=64, le=1_000_000, description="a larger record is rejected"
    )


class EntitySettings(Section):
    """What features belong to: the field with its id, and the number of events its ring holds.

    The ids of several fields are joined: a composite entity is a pair, such as card and merchant.
    """

    key: str | tuple[str, ...] = Field(description="the field with its id, or a list of fields")
    optional: bool = Field(default=False, description="an event may be without it")
    ring: int = Field(default=32, ge=1, le=1024, description="last events kept one by one")

    @property
    def keys(self) -> tuple[str, ...]:
        """Return the fields with its id."""
        return (self.key,) if isinstance(self.key, str) else self.key


class CalibrationSettings(Section):
    """What a model's score means once it is served; see docs/models.md."""

    kind: Literal["none", "probability", "tail"] | None = Field(
        default=None,
        description="by default probability for what learns labels, else tail",
    )
    window: int = Field(
        default=10_000, ge=1_000, le=1_000_000, description="examples that count; older ones fade"
    )

    @model_validator(mode="before")
    @classmethod
    def _expand_shorthand(cls, value: Any) -> Any:  # Any: raw YAML
        return {"kind": value} if isinstance(value, str) else value


class ModelSettings(Section):
    """One model: exactly one of ``preset``, ``river`` (dotted paths) or ``factory``."""

    preset: str | None = Field(default=None, description="a name such as logistic")
    river: (
        str
        | dict[str, dict[str, Any] | None]
        | tuple[str | dict[str, dict[str, Any] | None], ...]
        | None
    ) = Field(default=None, description="an estimator or a pipeline of them, by path below river")
    factory: str | None = Field(
        default=None, description="module:function that returns a River estimator"
    )
    params: dict[str, Any] = Field(
        default_factory=dict, description="arguments of the preset, estimator or factory"
    )
    features: tuple[str, ...] | None = Field(
        default=None, description="names of features; all by default"
    )
    compiled: bool = Field(
        default=True, description="use the bit-identical compiled twin where there is one"
    )
    negative_rate: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="share of negative labels that it learns, by the event's id, as 1 / rate each",
    )
    scope: Literal["log", "entity"] = Field(
        default="log",
        description="entity: the primary entity's own, in its state; preset series only",
    )
    entity: Name | None = Field(default=None, description="scope: entity: whose, the primary one")
    calibration: CalibrationSettings = CalibrationSettings()


class ScoreSettings(Section):
    """The topic of scores and which are published: all, none, or those at or above a score."""

    topic: Topic = Field(default="scores", description="where they are published")
    publish: Literal["all", "none"] | dict[Literal["above"], float] = Field(
        default="none", description="which ones; {above: 0.5} includes 0.5"
    )

    @field_validator("publish", mode="before")
    @classmethod
    def _is_publish(cls, value: object) -> object:
        """Say of all that is wrong what is right: of a union pydantic names each part."""
        least = value.get("above") if isinstance(value, dict) and len(value) == 1 else None
        is_flag = isinstance(least, bool)
        is_score = isinstance(least, int | float) and not is_flag and isfinite(least)
        if is_score or value in ("all", "none"):
            return value
        raise ValueError("all, none, or from which score on, as in {above: 0.5}")


class OutputSettings(Section):
    """The topics that the worker writes."""

    journal: Topic = Field(default="journal", description="a row for every event")
    alerts: Topic = Field(default="alerts", description="alerts with their reasons")
    dead_letters: Topic = Field(default="dead-letters", description="rejected records, unchanged")
    training: Topic = Field(
        default="training", description="examples: the models' only way to learn"
    )
    entity_updates: Topic = Field(
        default="entity-updates",
        description="rows of secondary entities for their owners; not used with one partition",
    )
    scores: ScoreSettings = ScoreSettings()


class KafkaSettings(Section):
    """How to reach Kafka. The time limits were proved together; see docs/design.md."""

    kind: Literal["kafka"] = Field(default="kafka", description="a real broker")
    bootstrap_servers: str = Field(default="localhost:9092", description="host:port, by commas")
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        default="PLAINTEXT", description="as the broker's listener has it"
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = Field(
        default=None, description="needed with SASL"
    )
    sasl_username: str | None = Field(default=None, description="needed with SASL")
    sasl_password: SecretStr | None = Field(default=None, description="write ${NAME}, never itself")
    ssl_cafile: str | None = Field(default=None, description="PEM file of the authority to trust")
    session_timeout: Duration = Field(
        default=10_000, description="silence after which a worker's partitions go to others"
    )
    transaction_timeout: Duration = Field(
        default=30_000, description="after which the broker ends a dead worker's transaction"
    )
    message_bytes_max: int = Field(
        default=900_000,
        ge=10_000,
        description="outputs are split below this; at most max.message.bytes",
    )


class MemoryStreamSettings(Section):
    """A log in this process: for tests and the embedded run."""

    kind: Literal["memory"] = Field(default="memory", description="no broker")
    partitions: int = Field(default=1, ge=1, le=1024, description="partition pairs")


class RedisSettings(Section):
    """How to reach Redis or Valkey: ``redis://``, ``rediss://`` or ``unix://``."""

    kind: Literal["redis"] = Field(default="redis", description="a Redis or Valkey server")
    url: SecretStr = Field(
        default=SecretStr("redis://localhost:6379/0"), description="with a password: write ${NAME}"
    )
    cluster: bool = Field(
        default=False, description="the URL is of any node of a Redis or Valkey cluster"
    )
    timeout: Duration = Field(default=2_000, description="for an answer, then it is tried again")


class MemoryStoreSettings(Section):
    """State in this process, lost with it: for tests and the embedded run."""

    kind: Literal["memory"] = Field(default="memory", description="no server")


class RunnerSettings(Section):
    """Bounds of the loop. Nothing in a worker grows beyond one of these."""

    batch_records_max: int = Field(
        default=5_000,
        ge=1,
        le=100_000,
        description="events that make a transaction, and the most of one partition in it",
    )
    poll: Duration = Field(default=100, description="how long a poll waits for records")
    flush: Duration = Field(default=300, description="how often dirty state goes to the store")
    dirty_max: int = Field(
        default=50_000, ge=1, description="unflushed keys before input is paused"
    )
    entities_max: int = Field(
        default=1_000_000, ge=100, description="entities of one type kept in memory per shard"
    )
    metrics_port: int | None = Field(
        default=9464, ge=0, le=65_535, description="of metrics and health; null for none"
    )


class DriftSettings(Section):
    """One thing that is watched for drift, and what is done when it is found."""

    on: Literal["features", "score", "error"] = Field(
        description="features by PSI; a model's scores; its errors, once labels come"
    )
    model: Name | None = Field(
        default=None, description="whose score or error, and who is acted on"
    )
    detector: Literal["adwin", "page_hinkley", "kswin"] = Field(
        default="adwin", description="River's detector of scores or errors"
    )
    params: dict[str, Any] = Field(default_factory=dict, description="of the detector")
    threshold: float = Field(default=0.25, gt=0, description="features: the PSI that is a drift")
    window: int = Field(default=5_000, ge=100, description="features: examples that are compared")
    do: Literal["alert", "raise_learning_rate", "reset", "freeze", "roll_back"] = Field(
        default="alert", description="what happens, beside an alert"
    )
    factor: float = Field(
        default=5.0, gt=1, le=100, description="raise_learning_rate: weight of the next examples"
    )
    examples: int = Field(default=2_000, ge=1, description="raise_learning_rate: for how many")


class GuardSettings(Section):
    """When a model that went wrong goes back to its last good state."""

    loss_max: float = Field(
        default=4.0, gt=0, description="mean log loss between two reviews, in nats, that is too bad"
    )
    good_every: int = Field(
        default=10_000, ge=500, description="examples from one good state to the next"
    )
    trips_max: int = Field(
        default=3, ge=1, description="trips without a good state between, then it is frozen"
    )


class DegradeSettings(Section):
    """What a worker leaves out that does not keep up, step by step; every score says so."""

    learning: Duration = Field(
        default=30_000, description="behind for so long, models learn nothing; later they catch up"
    )
    challengers: Duration = Field(
        default=60_000, description="behind for so long, only the deciding model scores"
    )
    recover: Duration = Field(
        default=10_000, description="not behind for so long, one step is taken back"
    )


class SnapshotSettings(Section):
    """Signed snapshots of the learned models, so that a start learns only what is newer."""

    directory: str = Field(description="of the files; workers may share it")
    key: SecretStr = Field(description="signs and checks them, 16 bytes or more; write ${NAME}")
    every: int = Field(default=100_000, ge=1, description="examples from one to the next")
    keep: int = Field(default=5, ge=1, description="newest ones that are kept")


class Settings(Section):
    """One configuration file."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")] = Field(
        description="consumer group, and the first part of every key in the store"
    )
    seed: int = Field(default=0, ge=0, description="every random draw of a model follows from it")
    events: EventSettings
    labels: LabelSettings | None = None
    entities: dict[Name, EntitySettings]
    features: dict[str, Any] = Field(description="see docs/features.md")
    models: dict[Name, ModelSettings]
    decision: DecisionSettings
    outputs: OutputSettings = OutputSettings()
    stream: KafkaSettings | MemoryStreamSettings = Field(
        default=KafkaSettings(), discriminator="kind"
    )
    store: RedisSettings | MemoryStoreSettings = Field(
        default=RedisSettings(), discriminator="kind"
    )
    runner: RunnerSettings = RunnerSettings()
    snapshots: SnapshotSettings | None = None
    drift: tuple[DriftSettings, ...] = ()
    guard: GuardSettings = GuardSettings()
    metrics: MetricsSettings = MetricsSettings()
    degrade: DegradeSettings | None = None

    @model_validator(mode="after")
    def _declare_targets(self) -> Settings:
        """Declare the entities that ``target_mean($FIELD)`` needs."""
        for target in filter(None, map(parse_target_mean, self.features.values())):
            field = self.events.fields.get(target.field)
            name = entity_of_target(target, {n: e.key for n, e in self.entities.items()})
            if field is not None and field.type in TYPES and name not in self.entities:
                self.entities[name] = EntitySettings(
                    key=target.field, optional=field.may_be_missing
                )
        return self

    @property
    def named_entities(self) -> tuple[str, ...]:
        """Return the entities of the file: those that ``target_mean($FIELD)`` declares are none."""
        implied = {
            target.entity for target in map(parse_target_mean, self.features.values()) if target
        }
        return tuple(name for name in self.entities if name not in implied)

    @property
    def primary_entity(self) -> str:
        """Return the name of the entity whose id is the Kafka key; the first where none is."""
        keys = {e.key: n for n, e in reversed(self.entities.items())}
        return keys.get(self.events.key) or next(iter(self.entities))
