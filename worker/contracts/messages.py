"""What is read and published: one pydantic model per contract, the source of every JSON Schema.

Readers ignore unknown fields; new fields have defaults; ``schema_version`` counts changes of
meaning.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from worker.contracts.decisions import Decision, Degraded

Outcome = Literal["scored", "duplicate", "rejected"]


class Message(BaseModel):
    """Base of all messages: frozen, unknown fields ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class LabelMessage(Message):
    """The truth about one event, on the labels topic with the key of its event."""

    event_id: str | int
    label: Literal[0, 1]
    time: str | int | float | None = Field(
        default=None,
        description="when it became known (ISO 8601 or Unix ms); the record's timestamp if absent",
    )
    weight: float = Field(default=1.0, gt=0, le=1e6)
    source: str = Field(default="", max_length=64)


class Reason(Message):
    """Why an event scored as it did: one feature, computed from this event."""

    feature: str
    value: float
    typical: float = Field(description="this entity's or the population's usual value")
    contribution: float = Field(description="what the feature did, in units of measure; signed")
    measure: Literal["log_odds", "score", "deviations"] = Field(
        default="deviations",
        description="of the log odds, of the raw score, or standard deviations from typical",
    )
    text: str


class Alert(Message):
    """An event whose score reached the threshold that was in force, or that is on a block list.

    The topic holds `IncidentClosed` too where incidents are declared, and `ModelNotice`: ``kind``
    tells them apart.
    """

    schema_version: int = 1
    kind: Literal["alert"] = "alert"
    alert_id: str = Field(description="topic-partition-offset of the event: unique and stable")
    event_id: str
    entities: dict[str, str] = Field(description="declared entity's name to its id")
    time_ms: int = Field(description="event time, Unix ms")
    score: float
    threshold: float | None = Field(
        description="in force for this event; null for one of a block list while an alert budget "
        "has seen too few scores to have a threshold"
    )
    severity: str
    model: str
    model_version: int = Field(
        description="the training log's offset before which the model had learned"
    )
    reasons: list[Reason]
    incident_id: str | None = Field(default=None, description="alerts that belong together")
    incident_state: Literal["opened", "updated"] | None = None
    suppressed_count: int = Field(
        default=0, description="alerts of this entity that were suppressed since its last one"
    )


class IncidentClosed(Message):
    """The end of an incident, on the alerts topic with the key of the incident's first alert."""

    schema_version: int = 1
    kind: Literal["incident_closed"] = "incident_closed"
    incident_id: str = Field(description="topic-partition-offset of the event that opened it")
    entity: str = Field(description="the entity's name")
    entity_id: str
    opened_ms: int = Field(description="event time of its first alert, Unix ms")
    last_ms: int = Field(description="latest event time of its alerts, suppressed ones included")
    alerts: int
    suppressed_count: int
    score: float = Field(description="the highest")
    severity: str = Field(description="of the highest score")


class ModelNotice(Message):
    """What befell a model (drift, a guard, an order), on the alerts topic without a key."""

    schema_version: int = 1
    kind: Literal["model_notice"] = "model_notice"
    number: int = Field(description="counts from 0 over the whole training log: unique and stable")
    examples: int = Field(description="how many examples had been learned")
    cause: Literal["drift", "guard", "order"]
    model: str = Field(description="empty where it concerns all of them")
    action: str = Field(description="what was done, such as reset or freeze; alert: nothing")
    text: str


class Score(Message):
    """The score of one event, for downstream consumers."""

    schema_version: int = 1
    event_id: str
    entity: str = Field(description="id of the primary entity")
    time_ms: int
    score: float
    decision: Decision
    model: str
    model_version: int


class JournalRow(Message):
    """One input record and what became of it; the journal is Arrow IPC with these columns.

    The shared stamps (spec hash, model names, positions) are in the schema metadata of each record
    batch.
    """

    source_offset: int
    outcome: Outcome
    reason: str | None = Field(default=None, description="why a record was rejected: a stable code")
    event_id: str | None
    entity: str | None = Field(description="id of the primary entity")
    time_ms: int | None
    score: float | None = Field(description="calibrated score of the deciding model")
    decision: Decision | None
    threshold: float | None
    model_version: int | None = Field(
        description="v: the model had learned the training log before it"
    )
    labels_offset: int | None = Field(description="l: labels before it were known")
    degraded: Degraded | None = Field(
        default=None,
        description="what the worker left out under overload, with all that comes before it: "
        "learning, then challengers, whose scores are null",
    )
    raw: dict[str, float] | None = Field(description="raw score per model (a column raw_NAME each)")
    calibrated: dict[str, float] | None = Field(
        description="calibrated score per model (a column score_NAME each)"
    )
    x: list[float] | None = Field(
        description="the feature vector, in the order of the feature spec"
    )
