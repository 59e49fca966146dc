"""The section ``decision`` of a configuration."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from worker.contracts.sections import Duration, Name, Section


class SuppressSettings(Section):
    """One alert per entity and time; what would be another one is counted in the next."""

    entity: Name = Field(description="which entity of the event")
    within: Duration = Field(description="after an alert, by event time")


class IncidentSettings(Section):
    """Alerts of one entity that follow each other share an incident id until it is quiet."""

    entity: Name = Field(description="which entity of the event")
    quiet: Duration = Field(
        default=86_400_000,
        validate_default=False,
        description="an incident is closed by an event this much later than its last alert",
    )


class EvidenceSettings(Section):
    """The cold start: what must be known of an entity before a score about it is an alert."""

    feature: str = Field(description="name of a feature, such as card_count_30d")
    at_least: float = Field(description="its value from which on an entity is known")
    threshold: float | None = Field(
        default=None, description="a score from which on a cold one alerts all the same"
    )


class ListSettings(Section):
    """Values of an entity's id or of a field, written here or in a file with one a line."""

    field: str = Field(description="an entity, or a field: string, integer or category")
    values: tuple[str | int, ...] = Field(default=(), description="what is on the list")
    file: str | None = Field(
        default=None, description="more values; a relative path starts at this file's directory"
    )


class DecisionSettings(Section):
    """When a score is an alert: from a ``threshold``, or so that a budget holds (a share of events,
    or so many a day); what else decides is in docs/models.md.
    """

    model: Name = Field(description="whose score decides; the others' go to the journal only")
    threshold: float | None = Field(default=None, description="alert at this score or above")
    alert_rate: float | None = Field(default=None, gt=0, le=0.5, description="share of events")
    alerts_per_day: int | None = Field(
        default=None,
        ge=1,
        description="alerts a day of event time, at most; each partition has an even share",
    )
    severity: dict[Literal["low", "medium", "high", "critical"], float] = Field(
        default_factory=dict, description="the score from which on an alert has this severity"
    )
    suppress: SuppressSettings | None = None
    incidents: IncidentSettings | None = None
    evidence: EvidenceSettings | None = None
    allow: tuple[ListSettings, ...] = Field(default=(), description="never alerted")
    block: tuple[ListSettings, ...] = Field(
        default=(), description="alerted whatever the score; stronger than allow"
    )
    reasons_max: int = Field(default=5, ge=0, le=5, description="reasons in an alert, at most")
