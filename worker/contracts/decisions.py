"""What was decided about a scored event: stable words, used in the journal, scores and metrics."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal


class Decision(StrEnum):
    """The decision of an event; `MEANINGS` says what each stands for. Journals hold the words."""

    PASS = "pass"  # no secret
    ALERT = "alert"
    SUPPRESSED = "suppressed"
    ALLOWED = "allowed"
    BLOCKED = "blocked"
    COLD = "cold"
    OVER_BUDGET = "over_budget"


DECISIONS = tuple(Decision)
"""The decisions in the order of their codes."""

ALERTS = (Decision.ALERT, Decision.BLOCKED)
"""Those with an alert."""

UNTAUGHT = 1e-6
"""The probability of every event while too few labels are known: not a score among others."""

Degraded = Literal["learning", "challengers"]
DEGRADED: tuple[Degraded, ...] = ("learning", "challengers")
"""What a worker leaves out under overload, the first at level 1."""

MEANINGS: dict[Decision, str] = {
    Decision.PASS: "the score is below the threshold in force",
    Decision.ALERT: "an alert was published",
    Decision.SUPPRESSED: "it would have been an alert, but its entity had one shortly before",
    Decision.ALLOWED: "it would have been an alert, but it is on an allow list",
    Decision.BLOCKED: "an alert was published, whatever the score: it is on a block list",
    Decision.COLD: "it would have been an alert, but too little is known of its entity",
    Decision.OVER_BUDGET: "it would have been an alert, but the day's budget was spent",
}
