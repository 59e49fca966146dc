"""Looking after models while they learn: metrics, drift, guards, and orders from people.

Everything is decided in *reviews*, at multiples of `REVIEW_EVERY` examples of the training log, and
by what the log says alone. So all workers do the same at the same version, and a replay too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Literal, Protocol

import numpy as np

from worker.contracts.metrics_settings import MetricsSettings
from worker.contracts.records import Float64, Int64, Served
from worker.contracts.settings import DriftSettings, GuardSettings
from worker.models.compiled import usable_rows
from worker.models.drift import DetectorMonitor, FeatureMonitor, Monitor
from worker.models.measures import ALERTS, Measured, Measures
from worker.models.plain import State, fit, pack, unpack
from worker.models.prequential import log_losses

REVIEW_EVERY = 500
"""Examples from one review to the next."""

NOTICES_MAX = 100

ACTIONS: Mapping[str, str] = {
    "alert": "it is said, and nothing is changed",
    "raise_learning_rate": "the next `examples` count `factor` times; not for a model that takes"
    " no weights",
    "reset": "the model and its calibrator begin anew",
    "freeze": "the model learns nothing until somebody thaws it",
    "roll_back": "the model and its calibrator go back to their last good state; where there is"
    " none yet the drift is only said",
}
"""What can be done about a drift."""

_LABELLED_MIN = 30  # of a review, before its loss means anything
_TRIED = 4  # of a review's rows, one of whose scores must be a number


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that a review or an order did.

    ``number`` counts from 0, ``examples`` says how many had been learned; ``kind`` is ``drift``,
    ``guard`` or ``order``; ``model`` is empty where it concerns all of them.
    """

    number: int
    examples: int
    kind: Literal["drift", "guard", "order"]
    model: str
    action: str
    text: str


@dataclass(frozen=True, slots=True)
class Report:
    """One model as people see it."""

    name: str
    role: str  # champion, challenger, or published: what decided, whoever it was
    status: str  # learning, frozen, or learning at N times the rate
    figures: tuple[Measured, ...]  # over all events, then over each segment


class Kept(Protocol):
    """The models that are looked after; `worker.models.versioned.ModelSet` is it."""

    champion: int
    rates: Float64

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the score columns: models, then heads."""

    @property
    def model_names(self) -> tuple[str, ...]:
        """Return the names of the models alone."""

    @property
    def labelled(self) -> tuple[bool, ...]:
        """Which of them learn from labels."""

    @property
    def scales(self) -> tuple[str, ...]:
        """Return what each model's score says, see `worker.models.measures.PROBABILITY`."""

    def failures(self, X: Float64) -> Int64:
        """Return per model how many rows it cannot score."""

    def state_of(self, model: int) -> State:
        """Return one model and its calibrator as plain values."""

    def restore_one(self, model: int, state: State) -> None:
        """Take what `state_of` gave."""


class Steward:
    """Reviews one set of models.

    Parameters
    ----------
    models
        As built: they have learned nothing yet.
    features
        Names of the columns of X.

    Attributes
    ----------
    notices
        The last of what reviews and orders did; ``said`` counts all there ever were.
    """

    def __init__(
        self,
        models: Kept,
        features: Sequence[str],
        drift: Sequence[DriftSettings],
        guard: GuardSettings,
        metrics: MetricsSettings,
    ) -> None:
        self._models, self._drift, self._guard = models, tuple(drift), guard
        self._monitors = [_monitor(one, features) for one in self._drift]
        self._measures = Measures(models.model_names, features, metrics)
        self._needs_rows = any(one.on == "features" for one in self._drift)
        k = len(models.model_names)
        self.learned = 0
        self._rows = np.empty((0, len(features)))
        self._raw, self._y = np.empty((0, len(models.names))), np.empty(0, np.int64)
        self._scores = self._raw
        self._raised_until = np.zeros(k, np.int64)
        self._frozen = np.zeros(k, np.bool_)
        self._trips = np.zeros(k, np.int64)
        self._replaced = np.zeros(k, np.bool_)  # within a review, by an older state
        self._good: list[bytes] = [b""] * k
        self._good_at = np.zeros(k, np.int64)
        self._champions: list[int] = []
        self.notices: deque[Notice] = deque(maxlen=NOTICES_MAX)
        self.said = 0
        # Where no model is named, whoever decides at that time is reset.
        resets = {one.model for one in self._drift if one.do == "reset"}
        self._fresh = {
            i: pack(models.state_of(i))
            for i, name in enumerate(models.model_names)
            if name in resets or None in resets
        }

    def until_review(self) -> int:
        """Return how many more examples lead to the next review, at least 1."""
        return REVIEW_EVERY - self.learned % REVIEW_EVERY

    def learn(self, X: Float64, raw: Float64, y: Int64, time_ms: Int64, served: Served) -> None:
        """Take at most `until_review` examples that were just learned; review when it is time.

        Parameters
        ----------
        X, raw, y
            (m, features), (m, models): raw scores, of today's model where they are known, else as
            served, NaN for none; (m,): 1, 0, or -1 without a label.
        time_ms, served
            (m,): of their events; see `worker.contracts.records.served_type`.
        """
        assert len(y) <= self.until_review(), (len(y), self.learned)
        # Without a monitor of features only the last rows count: no more are copied.
        rows = np.concatenate([self._rows, X if self._needs_rows else _tried(X)])
        self._rows = rows if self._needs_rows else rows[-_TRIED:]
        self._raw = np.concatenate([self._raw, raw])
        self._scores = np.concatenate([self._scores, served["scores"]])
        self._measures.add(X, y, time_ms, served)
        self._y = np.concatenate([self._y, y])
        self.learned += len(y)
        if self.learned % REVIEW_EVERY == 0 and len(y):
            self._review()

    def order(self, action: str, model: str) -> bool:
        """Carry out an order of the log; return whether it meant anything.

        ``promote MODEL`` makes it the champion, ``roll_back`` the one before; ``freeze MODEL``
        stops its learning, ``thaw MODEL`` lets it go on.
        """
        if model and model not in self._models.model_names:
            return False
        before, i = self._models.champion, self._models.model_names.index(model) if model else 0
        if action == "promote" and i != before:
            self._champions.append(before)
            self._models.champion = i
            text = f"{model} decides in the place of {self._models.model_names[before]}"
        elif action == "roll_back" and self._champions:
            self._models.champion = self._champions.pop()
            model = self._models.model_names[self._models.champion]
            text = f"{model} decides again in the place of {self._models.model_names[before]}"
        elif action in ("freeze", "thaw") and self._frozen[i] != (action == "freeze"):
            self._set_frozen(i, action == "freeze")
            text = f"{model} {'stopped' if action == 'freeze' else 'goes on'} learning"
        else:
            return False
        self._notice("order", model, action, text)
        return True

    def reports(self) -> list[Report]:
        """Return what is known of each model."""
        measured: dict[str, list[Measured]] = {}
        for one in self._measures.all(self._models.scales, self._models.champion):
            measured.setdefault(one.name, []).append(one)
        found = [Report(ALERTS, "published", "", tuple(measured[ALERTS]))]
        for i, name in enumerate(self._models.model_names):
            rate = float(self._models.rates[i])
            status = "frozen" if rate == 0 else "learning"
            status += f" at {rate:g} times the rate" if rate > 1 else ""
            role = "champion" if i == self._models.champion else "challenger"
            found.append(Report(name, role, status, tuple(measured[name])))
        return found

    def to_state(self) -> State:
        """Return everything that is not the models' own as plain values."""
        return {
            "learned": self.learned,
            "rows": self._rows.copy(),
            "raw": self._raw.copy(),
            "scores": self._scores.copy(),
            "y": self._y.copy(),
            "rates": self._models.rates.copy(),
            "raised_until": self._raised_until.copy(),
            "frozen": self._frozen.astype(np.int8),
            "trips": self._trips.copy(),
            "good": list(self._good),
            "good_at": self._good_at.copy(),
            "champion": self._models.champion,
            "champions": list(self._champions),
            "notices": [asdict(notice) for notice in self.notices],
            "said": self.said,
            "measures": self._measures.to_state(),
            "monitors": [one.to_state() for one in self._monitors],
        }

    def restore(self, state: State) -> None:
        """Take what `to_state` gave under the same settings: a snapshot of others is refused."""
        self.learned, self.said = state["learned"], state["said"]
        self._rows, self._raw, self._y = state["rows"], state["raw"], state["y"]
        self._scores = state["scores"]
        fit(state["rates"], self._models.rates)
        fit(state["raised_until"], self._raised_until)
        self._frozen = state["frozen"].astype(np.bool_)
        fit(state["trips"], self._trips)
        fit(state["good_at"], self._good_at)
        self._good = list(state["good"])
        self._models.champion = state["champion"]
        self._champions = list(state["champions"])
        self.notices = deque((Notice(**words) for words in state["notices"]), NOTICES_MAX)
        self._measures.restore(state["measures"])
        for monitor, part in zip(self._monitors, state["monitors"], strict=True):
            monitor.restore(part)

    def _review(self) -> None:
        X, raw, y, tried = self._rows, self._raw, self._y, _tried(self._rows)
        scores = self._scores
        self._rows, self._raw, self._scores, self._y = X[:0], raw[:0], scores[:0], y[:0]
        self._replaced[:] = False
        for settings, monitor in zip(self._drift, self._monitors, strict=True):
            watched = scores[:, self._place(settings)]
            for words in monitor.feed(X, watched, y):
                self._act(settings, words)
        failures = self._models.failures(tried)
        # What was replaced just now did not make these losses; what is frozen cannot go wrong.
        for i in np.flatnonzero(~(self._replaced | self._frozen)).tolist():
            is_mute = len(tried) > 0 and int(failures[i]) == len(tried)
            self._check(i, raw[:, i], y, is_mute)
        for i in np.flatnonzero(self._raised_until == self.learned).tolist():
            self._set_rate(i)

    def _act(self, settings: DriftSettings, words: str) -> None:
        i = self._place(settings)
        action = settings.do
        if action == "raise_learning_rate":
            # Raised at a review and ended at one: whole reviews.
            reviews = -(-settings.examples // REVIEW_EVERY)
            self._raised_until[i] = self.learned + reviews * REVIEW_EVERY
            self._models.rates[i] = 0.0 if self._frozen[i] else settings.factor
        elif action == "reset":
            self._models.restore_one(i, unpack(self._fresh[i]))
            self._good[i], self._good_at[i], self._trips[i] = self._fresh[i], self.learned, 0
            self._replaced[i] = True
        elif action == "freeze":
            self._set_frozen(i, True)
        elif action == "roll_back" and not self._roll_back(i):
            action = "alert"  # there is no good state yet
        is_of_all = settings.on == "features" and action == "alert"
        model = "" if is_of_all else self._models.model_names[i]
        self._notice("drift", model, action, words)

    def _check(self, i: int, raw: Float64, y: Int64, is_mute: bool) -> None:
        """Trip the guard of a model that went wrong; else keep its state now and then.

        The loss is that of raw scores: a calibrator soon hides what a model does.
        """
        known = (y >= 0) & ~np.isnan(raw)
        loss = 0.0
        if self._models.labelled[i] and known.sum() >= _LABELLED_MIN:
            loss = float(log_losses(raw[known], y[known]).mean())
        if not is_mute and loss <= self._guard.loss_max:
            if self.learned >= self._good_at[i] + self._guard.good_every or not self._good[i]:
                self._keep(i)
            return
        name = self._models.model_names[i]
        why = "gives no scores" if is_mute else f"has a mean log loss of {loss:.1f}"
        self._trips[i] += 1
        action = "roll_back" if self._roll_back(i) else "freeze"
        if self._trips[i] >= self._guard.trips_max or action == "freeze":
            self._set_frozen(i, True)
            action = "freeze"
        self._notice("guard", name, action, f"{name} {why}")

    def _keep(self, i: int) -> None:
        # A model that has no plain form has no good state: its guard freezes it at once.
        with suppress(TypeError):
            self._good[i] = pack(self._models.state_of(i))
        self._good_at[i], self._trips[i] = self.learned, 0

    def _roll_back(self, i: int) -> bool:
        """Put a model back to its last good state; return whether there is one."""
        if not self._good[i]:
            return False
        self._models.restore_one(i, unpack(self._good[i]))
        self._replaced[i] = True
        return True

    def _set_frozen(self, i: int, is_frozen: bool) -> None:
        self._frozen[i] = is_frozen
        self._trips[i] = 0
        self._set_rate(i)

    def _set_rate(self, i: int) -> None:
        self._raised_until[i] = 0
        self._models.rates[i] = 0.0 if self._frozen[i] else 1.0

    def _place(self, settings: DriftSettings) -> int:
        """Return the model that a monitor watches and acts on: the champion where none is named."""
        if settings.model is None:
            return self._models.champion
        return self._models.model_names.index(settings.model)

    def _notice(
        self, kind: Literal["drift", "guard", "order"], model: str, action: str, text: str
    ) -> None:
        self.notices.append(Notice(self.said, self.learned, kind, model, action, text))
        self.said += 1


def _tried(X: Float64) -> Float64:
    """Return the last rows that every model can score, were it well: no NaN, nothing absurd."""
    return X[np.flatnonzero(usable_rows(X))[-_TRIED:]]


def _monitor(settings: DriftSettings, features: Sequence[str]) -> Monitor:
    if settings.on == "features":
        return FeatureMonitor(features, settings.threshold, settings.window)
    words: Mapping[str, object] = settings.params
    return DetectorMonitor(settings.on, settings.model or "the champion", settings.detector, words)
