"""The section ``labels`` of a configuration file."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from worker.contracts.sections import Duration, Section, Topic


class SourceSettings(Section):
    """How far the labels of one source are trusted."""

    weight: float = Field(
        default=1.0, gt=0, le=1e6, description="multiplies the weight of its labels"
    )
    weight_max: float = Field(
        default=1e6, gt=0, le=1e6, description="the weight of a label after that, at most"
    )
    learn: bool = Field(
        default=True, description="whether models learn from it; measures and features always do"
    )


class LabelSettings(Section):
    """Where labels come from and how long an event waits for its label.

    ``column`` and ``delay`` serve recorded files whose rows carry the truth: a row's label becomes
    known ``delay`` after its event time. Labels with a time of their own come from ``topic`` or a
    labels file.
    """

    topic: Topic = Field(default="labels", description="key and partition count as the events'")
    column: str | None = Field(default=None, description="replay: the column with 0 or 1")
    delay: Duration | None = Field(
        default=None, description="replay: when a row's label becomes known"
    )
    horizon: Duration = Field(
        default=30 * 86_400_000, description="how long an event waits for its label"
    )
    mode: Literal["explicit", "positives_only", "none"] = Field(
        default="explicit",
        description="both classes arrive; only frauds do; or labels teach nothing and only measure",
    )
    maturity: Duration | None = Field(
        default=None,
        description="positives_only: the age at which an event without a label counts as negative",
    )
    negative_rate: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="positives_only: share of those that do, each with weight 1 / rate",
    )
    sources: dict[str, SourceSettings] = Field(
        default_factory=dict,
        description="by the labels' source; default is for those not named",
    )
    pending_max: int = Field(
        default=10_000_000,
        ge=1,
        description="events that can be found by their label, per shard; older ones give way",
    )
    cached_max: int = Field(
        default=200_000, ge=1, description="of these and of their labels, kept in memory"
    )
