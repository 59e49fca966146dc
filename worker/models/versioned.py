"""The set of models: one call scores a batch of events and learns the examples between them, and
one calibrates the scores.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from worker.contracts.metrics_settings import MetricsSettings
from worker.contracts.records import Float64, Int64
from worker.contracts.settings import DriftSettings, GuardSettings
from worker.errors import StateLostError
from worker.models.batch import Batch
from worker.models.calibration import Calibrator, Identity
from worker.models.canonical import state_hash
from worker.models.measures import PROBABILITY, RANK
from worker.models.plain import State
from worker.models.sampling import sampled
from worker.models.steward import Steward

Int8 = NDArray[np.int8]


@dataclass(slots=True)
class Counts:
    """What a model did not do, for the metrics; never part of its state."""

    skipped_examples: int = 0  # a feature or the weight was not finite, or absurd
    failed_examples: int = 0  # the estimator raised while it learned
    unweighted_examples: int = 0  # a weight other than 1 that the estimator cannot apply
    failed_scores: int = 0  # served as 0.0: unusable features, an exception, or a score not finite


class Model(Protocol):
    """One model that scores first and learns after. Its state changes by learning alone."""

    counts: Counts

    @property
    def heads(self) -> tuple[str, ...]:
        """Return the names of its parts that have scores of their own; most models have none."""

    @property
    def learns_from_labels(self) -> bool:
        """Return True if it learns labelled examples, False if it learns every observed event."""

    def score_learn(self, batch: Batch) -> Float64:
        """Return the score of each event, each learned-before example learned before it.

        Of shape (n,), or (n, 1 + heads) where there are heads: the score, then that of each.
        """

    def state_hash(self) -> str:
        """Return a hash of the learned state: equal wherever the same examples were learned."""

    def to_state(self) -> State:
        """Return the learned state as plain values (`worker.models.plain`), not to be changed.

        TypeError where the estimator holds what has no plain form, such as a lambda.
        """

    def restore(self, state: State) -> None:
        """Take a state of a model that was built from the same settings and features.

        StateLostError where it is of another kind or form. The model may be half changed then:
        build it anew.
        """


@dataclass(frozen=True, slots=True)
class Entry:
    """A model under its name, with the columns of X that are its features, and its calibrator."""

    name: str
    model: Model
    feature_names: tuple[str, ...]
    columns: tuple[int, ...] | None  # None: all of them, in order
    calibrator: Calibrator = field(default_factory=Identity)
    negative_rate: float = 1.0


class ModelSet:
    """Models side by side on the same events and the same log.

    Parameters
    ----------
    champion
        Whose calibrated score decides; the first model if not given.
    drift, guard, metrics
        What the steward watches for and measures, see `worker.models.steward`.

    Examples
    --------
    >>> from worker.contracts.settings import ModelSettings
    >>> from worker.models.catalogue import build_model_set
    >>> models = build_model_set({"m": ModelSettings(preset="logistic")}, ("a", "b"), seed=0)
    >>> X = np.array([[1.0, 2.0], [3.0, 4.0]])
    >>> nothing = np.empty(0, dtype=np.int64)
    >>> models.score_learn(X, X[:0], nothing.astype(np.int8), X[:0, 0], nothing).tolist()
    [[0.5], [0.5]]
    """

    def __init__(
        self,
        entries: tuple[Entry, ...],
        feature_names: tuple[str, ...],
        champion: str | None = None,
        drift: Sequence[DriftSettings] = (),
        guard: GuardSettings | None = None,
        metrics: MetricsSettings | None = None,
    ) -> None:
        self._entries = entries
        self._feature_names = feature_names
        self.champion = self.names.index(champion) if champion in self.names else 0
        self.rates = np.ones(len(entries))  # of learning: 0 freezes a model
        watched = drift, guard or GuardSettings(), metrics or MetricsSettings()
        self.steward = Steward(self, feature_names, *watched)

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the score columns: the models, then the heads as ``MODEL.HEAD``."""
        heads = [f"{entry.name}.{head}" for entry in self._entries for head in entry.model.heads]
        return (*self.model_names, *heads)

    @property
    def model_names(self) -> tuple[str, ...]:
        """Return the names of the models, in the order of their score columns."""
        return tuple(entry.name for entry in self._entries)

    @property
    def learns_from_labels(self) -> bool:
        """Return whether any model learns labelled examples."""
        return any(entry.model.learns_from_labels for entry in self._entries)

    @property
    def learns_from_events(self) -> bool:
        """Return whether any model or calibrator learns every observed event."""
        return any(
            not entry.model.learns_from_labels or entry.calibrator.learns_from_events
            for entry in self._entries
        )

    @property
    def calibrated_by_labels(self) -> tuple[int, ...]:
        """Return the models whose calibrators learn labels."""
        return tuple(i for i, e in enumerate(self._entries) if e.calibrator.learns_from_labels)

    @property
    def scales(self) -> tuple[str, ...]:
        """Return what each model's score says, see `worker.models.measures.PROBABILITY`."""
        own = [PROBABILITY if e.model.learns_from_labels else e.name for e in self._entries]
        ranked = [entry.calibrator.learns_from_events for entry in self._entries]
        return tuple(RANK if is_rank else one for one, is_rank in zip(own, ranked, strict=True))

    @property
    def samples_negatives(self) -> bool:
        """Return whether any model learns a share of the negatives only."""
        return any(entry.negative_rate < 1.0 for entry in self._entries)

    @property
    def labelled(self) -> tuple[bool, ...]:
        """Return which models learn from labels."""
        return tuple(entry.model.learns_from_labels for entry in self._entries)

    @property
    def champion_entry(self) -> Entry:
        """Return the model that decides, with what belongs to it."""
        return self._entries[self.champion]

    @property
    def champion_name(self) -> str:
        """Return the name of the model that decides."""
        return self.names[self.champion]

    @property
    def counts(self) -> Mapping[str, Counts]:
        """Return what each model skipped so far, by name of the model."""
        return {entry.name: entry.model.counts for entry in self._entries}

    @property
    def total_counts(self) -> Counts:
        """Return the sums of `counts` over the models."""
        parts = list(self.counts.values())
        return Counts(**{f.name: sum(getattr(p, f.name) for p in parts) for f in fields(Counts)})

    def __getitem__(self, name: str) -> Model:
        """Return the model called `name`; KeyError where there is none."""
        return {entry.name: entry.model for entry in self._entries}[name]

    def state_hash(self) -> str:
        """Return a hash of all names and learned states: equal on replicas of one log.

        It does not depend on what was scored, nor on the counts.
        """
        words = [
            f"{e.name}:{e.model.state_hash()}:{e.calibrator.state_hash()}:"
            f"{','.join(e.feature_names)}"
            for e in self._entries
        ]
        words.append(state_hash(self.steward.to_state()))
        return hashlib.sha256("\n".join(words).encode()).hexdigest()

    def to_state(self) -> State:
        """Return the learned states of models and calibrators as plain values.

        TypeError as `Model.to_state`.

        Examples
        --------
        >>> from worker.contracts.settings import ModelSettings
        >>> from worker.models.catalogue import build_model_set
        >>> from worker.models.plain import pack, unpack
        >>> declared = {"m": ModelSettings(preset="logistic")}
        >>> first, second = (build_model_set(declared, ("a",), seed=0) for _ in range(2))
        >>> first.learn(np.array([[1.0], [2.0]]), np.array([0, 1], np.int8), np.ones(2))
        >>> second.restore(unpack(pack(first.to_state())))
        >>> second.state_hash() == first.state_hash()
        True
        """
        models = {
            entry.name: {"features": list(entry.feature_names), **self.state_of(i)}
            for i, entry in enumerate(self._entries)
        }
        return {"models": models, "steward": self.steward.to_state()}

    def restore(self, state: State) -> None:
        """Take the state of a set that was built from the same settings and features.

        StateLostError where names, features or kinds are others. The set may be half changed then:
        build it anew.
        """
        models = state["models"]
        if list(models) != list(self.model_names):
            expected = ", ".join(self.model_names)
            raise StateLostError("the models' state", expected, ", ".join(models))
        for i, entry in enumerate(self._entries):
            part = models[entry.name]
            if part["features"] != list(entry.feature_names):
                raise StateLostError(f"state of model {entry.name}", "its features", "others")
            self.restore_one(i, part)
        self.steward.restore(state["steward"])

    def state_of(self, model: int) -> State:
        """Return one model and its calibrator as plain values."""
        entry = self._entries[model]
        return {"state": entry.model.to_state(), "calibrator": entry.calibrator.to_bytes()}

    def restore_one(self, model: int, state: State) -> None:
        """Take what `state_of` gave; StateLostError where it is of another kind."""
        self._entries[model].model.restore(state["state"])
        self._entries[model].calibrator.restore(state["calibrator"])

    def failures(self, X: Float64) -> Int64:
        """Return how many of these rows each model cannot score; the counts stay as they are."""
        before = [entry.model.counts.failed_scores for entry in self._entries]
        self.score(X)
        after = [entry.model.counts.failed_scores for entry in self._entries]
        for entry, count in zip(self._entries, before, strict=True):
            entry.model.counts.failed_scores = count
        return np.array(after, np.int64) - np.array(before, np.int64)

    def score(self, X: Float64, left_out: Collection[int] = ()) -> Float64:
        """Return the scores (n, models) of events, NaN of models left out; nothing is learned."""
        return self.score_learn(X, *_no_examples(self._feature_names), left_out=left_out)

    def serve(self, X: Float64, left_out: Collection[int]) -> tuple[Float64, Float64]:
        """Return raw and calibrated scores of events, NaN of models left out."""
        raw = self.score(X, left_out)
        calibrated = self.calibrate(raw)
        calibrated[:, list(left_out)] = np.nan
        return raw, calibrated

    def challengers(self, remembered: Collection[str]) -> tuple[int, ...]:
        """Return the models that do not decide, but for those whose scores features remember."""
        kept = {name.removeprefix("raw_").partition(".")[0] for name in remembered}
        names = enumerate(self.model_names)
        return tuple(i for i, name in names if i != self.champion and name not in kept)

    def learn(self, learn_X: Float64, learn_y: Int8, learn_weight: Float64) -> None:
        """Learn examples in order, as `score_learn` with no event to score."""
        before = np.zeros(len(learn_y), dtype=np.int64)
        self.score_learn(learn_X[:0], learn_X, learn_y, learn_weight, before)

    def score_learn(
        self,
        X: Float64,
        learn_X: Float64,
        learn_y: Int8,
        learn_weight: Float64,
        learn_before: Int64,
        draws: Float64 | None = None,
        left_out: Collection[int] = (),
    ) -> Float64:
        """Return the scores (n, names) of events, learning examples in between, in order.

        The result is the same bit for bit however a stream is cut into batches.

        Parameters
        ----------
        X
            (n, f) float64, the events, in log order.
        learn_X, learn_y, learn_weight
            (m, f), (m,), (m,): examples in log order. ``learn_y`` is 1 or 0 for a label, which
            classifiers learn, and -1 for an observed event, which anomaly detectors learn.
        learn_before
            (m,), in 0..n and not decreasing: example j is learned before event
            ``learn_before[j]`` is scored; n means after the last event.
        draws
            (m,) `sampling.draws_of` the examples, for models that learn a share of the negatives.
        """
        same = learn_X is X
        X = _plain(X)
        examples = (X if same else _plain(learn_X), learn_y, learn_weight, learn_before)
        full = Batch(self._feature_names, X, *examples)
        batches: dict[tuple[int, ...] | None, Batch] = {None: full}
        scores = np.zeros((len(X), len(self.names)))
        place = len(self._entries)  # of the next head
        for i, entry in enumerate(self._entries):
            heads = len(entry.model.heads)
            place += heads
            if i in left_out:
                scores[:, i] = scores[:, place - heads : place] = np.nan
                continue
            if entry.columns not in batches:
                batches[entry.columns] = _narrow(full, entry)
            batch = batches[entry.columns]
            if draws is not None and entry.negative_rate < 1.0:
                batch = sampled(batch, draws, entry.negative_rate)
            batch = at_rate(batch, float(self.rates[i]))
            found = entry.model.score_learn(batch).reshape(len(X), 1 + heads)
            scores[:, i] = found[:, 0]
            scores[:, place - heads : place] = found[:, 1:]
        return scores

    def calibrate(self, raw: Float64) -> Float64:
        """Return the calibrated scores (n, models) of raw ones; nothing is learned."""
        return self.calibrate_learn(raw, raw[:0], *_no_examples(())[1:])

    def calibrate_learn(
        self,
        raw: Float64,
        learn_raw: Float64,
        learn_y: Int8,
        learn_weight: Float64,
        learn_before: Int64,
    ) -> Float64:
        """Return the calibrated scores (n, models), learning examples in between, in order.

        Parameters
        ----------
        raw
            (n, models): what `score_learn` gave for the events.
        learn_raw
            (m, models): what was served, or of labels what models say today; NaN teaches nothing.
        learn_y, learn_weight, learn_before
            As in `score_learn`: a score is calibrated by the examples before it, so never by its
            own event.
        """
        out = raw.copy()  # heads are probabilities already
        for i, entry in enumerate(self._entries):
            out[:, i] = entry.calibrator.calibrate_learn(
                np.ascontiguousarray(raw[:, i]), np.ascontiguousarray(learn_raw[:, i]),
                learn_y, learn_weight, learn_before,
            )  # fmt: skip
        return out


def _plain(X: Float64) -> Float64:
    """Return X, or a copy where it is read-only or strided: kernels are compiled per kind."""
    return np.require(X, np.float64, ["C", "W"])


def _narrow(batch: Batch, entry: Entry) -> Batch:
    """Return the batch over the columns that are the features of one model."""
    columns = list(entry.columns or ())
    X = np.ascontiguousarray(batch.X[:, columns])
    learn_X = X if batch.learn_x is batch.X else np.ascontiguousarray(batch.learn_x[:, columns])
    return replace(batch, names=entry.feature_names, X=X, learn_x=learn_X)


def at_rate(batch: Batch, rate: float) -> Batch:
    """Return the batch with the weights of its examples times a rate; without them at 0."""
    if rate == 1.0:
        return batch
    if rate == 0.0:
        y, weight, before = batch.learn_y[:0], batch.learn_weight[:0], batch.learn_before[:0]
        return replace(batch, learn_x=batch.learn_x[:0], learn_y=y, learn_weight=weight,
                       learn_before=before)  # fmt: skip
    return replace(batch, learn_weight=batch.learn_weight * rate)


def _no_examples(names: tuple[str, ...]) -> tuple[Float64, Int8, Float64, Int64]:
    nothing = np.empty((0, len(names)))
    return nothing, np.empty(0, np.int8), np.empty(0), np.empty(0, np.int64)
