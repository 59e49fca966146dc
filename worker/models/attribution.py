"""What each feature did to a score, by the champion as it was when it scored.

Linear and binned models and trees say it themselves (`LinearTwin.contributions`, `of_river`). Any
other is asked for its scores again (`differences`). All is said by the model at the version that
served the event, never by another.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from worker.contracts.records import Float64, Int64
from worker.models.advance import Examples
from worker.models.batch import Batch
from worker.models.contributions import Contributions, differences, of_river
from worker.models.reasons import FeatureWords, Measure, typical_values
from worker.models.river_model import RiverModel
from worker.models.sampling import draws_of, sampled
from worker.models.versioned import Entry, Int8, Model, ModelSet, at_rate


@runtime_checkable
class Explaining(Protocol):
    """A model that knows what each feature did to its score."""

    measure: Measure

    def contributions(self, x: Float64, usual: Float64) -> Float64:
        """Return what each feature of ``x`` (f,) did, compared with ``usual`` ones."""


@runtime_checkable
class Forking(Protocol):
    """A model that can be copied cheaply."""

    def fork(self) -> Model:
        """Return a copy that learns on its own."""


class Attribution:
    """The champion at the start of a batch; made before the batch is scored.

    Where learning is inline the model moves on within the batch, so a copy is kept, and taught the
    batch's examples again up to each alert. If the copy does not give the score that was served, as
    a review changed the model in between, it says nothing: no reason is of another model.
    """

    def __init__(self, models: ModelSet, *, is_inline: bool) -> None:
        self._entry: Entry = models.champion_entry
        self._column, self._rate = models.champion, float(models.rates[models.champion])
        self._is_inline = is_inline
        self._model = forked(self._entry.model) if is_inline else self._entry.model

    @property
    def measure(self) -> Measure:
        """Return what contributions are in: ``log_odds`` or ``score``."""
        return self._explanation()[0]

    def explained(
        self,
        features: Sequence[FeatureWords],
        X: Float64,
        raw: Float64,
        rows: Int64,
        mean: Float64,
        examples: Examples,
    ) -> Float64:
        """Return `of` against the usual values: each entity's own mean, else ``mean`` (k, f).

        Zeros without ``features``, where no reasons are asked for.
        """
        if not len(rows) or not features:
            return np.zeros((len(rows), X.shape[1]))
        typical = typical_values(features, X[rows], mean)
        y = examples.y.astype(np.int8)
        samples = self._is_inline and self._entry.negative_rate < 1.0
        draws = draws_of(examples.event_ids) if samples else None
        told = examples.X, y, examples.weight, examples.before, draws
        return self.of(X, raw, rows, typical, *told)

    def of(
        self,
        X: Float64,
        raw: Float64,
        rows: Int64,
        typical: Float64,
        learn_X: Float64,
        learn_y: Int8,
        learn_weight: Float64,
        learn_before: Int64,
        draws: Float64 | None = None,
    ) -> Float64:
        """Return contributions (k, f) of rows of ``X``, in order; zero for features not read.

        Parameters
        ----------
        raw
            (n, names): the raw scores of the events ``X`` as served.
        rows
            (k,), increasing.
        typical
            (k, f): the usual value of each feature before each of these events.
        learn_X, learn_y, learn_weight, learn_before, draws
            The batch's examples, as `ModelSet.score_learn` was given them.
        """
        columns = np.arange(X.shape[1]) if self._entry.columns is None else self._entry.columns
        x, usual = X[rows][:, columns], typical[:, columns]
        due = np.searchsorted(learn_before, rows, side="right") * self._is_inline
        out, done = np.zeros((len(rows), X.shape[1])), 0
        for stop in np.unique(due).tolist():
            some, learn = np.flatnonzero(due == stop), slice(done, stop)
            if stop > done:  # else the model may be the one that serves
                some_draws = None if draws is None else draws[learn]
                told = learn_y[learn], learn_weight[learn], some_draws
                self._learn(learn_X[learn][:, columns], *told)
            done = stop
            same = self._scores(x[some]) == raw[rows[some], self._column]
            _, contributions = self._explanation()
            for k in some[same].tolist():
                out[k, columns] = contributions(x[k], usual[k])
        return out

    def _learn(self, X: Float64, y: Int8, weight: Float64, draws: Float64 | None) -> None:
        names, before = self._entry.feature_names, np.zeros(len(y), np.int64)
        batch = Batch(names, X[:0], X, y, weight, before)
        if draws is not None:
            batch = sampled(batch, draws, self._entry.negative_rate)
        self._model.score_learn(at_rate(batch, self._rate))

    def _explanation(self) -> tuple[Measure, Contributions]:
        model, found = self._model, None
        if isinstance(model, Explaining):
            return model.measure, model.contributions
        if isinstance(model, RiverModel):
            found = of_river(model, self._entry.feature_names)
        return found or ("score", lambda x, usual: differences(self._scores, x, usual))

    def _scores(self, X: Float64) -> Float64:
        nothing = np.empty(0)
        none = (X[:0], nothing.astype(np.int8), nothing, nothing.astype(np.int64))
        batch = Batch(self._entry.feature_names, np.ascontiguousarray(X), *none)
        return self._model.score_learn(batch).reshape(len(X), -1)[:, 0]


def forked(model: Model) -> Model:
    """Return a copy of a model that learns on its own."""
    return model.fork() if isinstance(model, Forking) else copy.deepcopy(model)
