"""The section ``metrics`` of a configuration: how models are measured as labels arrive."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from worker.contracts.sections import Name, Section


class SegmentSettings(Section):
    """Events that are measured on their own too: a feature lies in [at_least, below)."""

    feature: str = Field(description="name of a feature, such as card_count_30d")
    at_least: float | None = Field(default=None, description="its least value")
    below: float | None = Field(default=None, description="what it stays below")

    @model_validator(mode="after")
    def _bound(self) -> Self:
        if self.at_least is None and self.below is None:
            raise ValueError("expected at_least, below or both")
        return self


class MetricsSettings(Section):
    """How models are measured as labels arrive; see docs/models.md."""

    top: int = Field(
        default=100, ge=1, le=10_000, description="k of precision at k: scores, or entities, a day"
    )
    days: int = Field(
        default=35, ge=7, le=400,
        description="for how many days labels are waited for; later ones miss the figures by day",
    )  # fmt: skip
    segments: dict[Name, SegmentSettings] = Field(
        default_factory=dict, description="measured on their own; each costs what a model's do"
    )
