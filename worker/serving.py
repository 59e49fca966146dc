"""How events are served: scored by every model, calibrated, and decided about.

What came of it is kept with each event (`worker.contracts.records.served_type`), so that its label
judges the score that was served and no later one.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from worker.contracts.records import Bool, Events, Float64, Served
from worker.decisions import Decided, Decider, Scores
from worker.learning import Join
from worker.models.advance import advance
from worker.models.catalogue import ModelSet
from worker.waiting import Scored


@dataclass(frozen=True, slots=True)
class Recorded:
    """What the journal says of a committed batch.

    ``scored`` tells per valid event whether it was scored; the rest is of the scored ones: how each
    was served (without its entity), raw scores, x (None where the rows are of another spec), the
    champion.
    """

    scored: Bool
    served: Served
    raw: Float64
    X: Float64 | None
    champion: str = ""


class Serving:
    """Serves the events of one shard.

    Parameters
    ----------
    remembered
        Names of the scores that features remember: their models are never left out.
    learns_inline
        As of `worker.shard.Shard`.
    """

    def __init__(
        self,
        models: ModelSet,
        decider: Decider,
        remembered: Collection[str],
        partition: int,
        *,
        learns_inline: bool,
    ) -> None:
        self._models, self._decider = models, decider
        self._remembered, self._partition = remembered, partition
        self._learns_inline = learns_inline

    def serve(
        self, topic: str, events: Events, scored: Scored, join: Join, degraded: int
    ) -> Decided:
        """Fill in what every model says of each event, and decide; the embedded run learns in
        between.

        Calibrators learn from raw scores as they were served, those of this batch included.
        """
        models, said = self._models, []

        def served(part: slice, raw: Float64, calibrated: Float64) -> Served:
            scored.raw, scored.calibrated, served = raw, calibrated, scored.served
            scored.score = np.ascontiguousarray(calibrated[:, models.champion])
            decided = self._decide(topic, events, scored, part, models.champion_name)
            served["score"][part], served["scores"][part] = scored.score[part], calibrated[part]
            served["threshold"][part], served["alert"][part] = decided.threshold, decided.alert
            said.append(decided)
            return served

        if self._learns_inline:
            advance(models, scored.X, join.examples, join.rows, served)
        else:
            left_out = models.challengers(self._remembered) if degraded > 1 else ()
            served(slice(None), *models.serve(scored.X, left_out))
            join.fill(scored)
        return Decided.joined(said)

    def redo(self, topic: str, events: Events, scored: Scored, recorded: Recorded) -> Decided:
        """Take what the journal says of each event, and decide again as it was decided."""
        scored.score, scored.raw = recorded.served["score"], recorded.raw
        for name in ("score", "threshold", "alert", "scores"):
            scored.served[name] = recorded.served[name]
        return self._decide(topic, events, scored, slice(None), recorded.champion)

    def _decide(
        self, topic: str, events: Events, scored: Scored, part: slice, champion: str
    ) -> Decided:
        rows, score, X = scored.rows[part], scored.score[part], scored.X[part]
        place = f"{topic}-{self._partition}"
        return self._decider.decide(Scores(events, rows, score, X, place, champion))
