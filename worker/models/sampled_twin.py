"""The compiled twin of `SampledScaler | MinMaxScaler | HalfSpaceTrees`."""

from __future__ import annotations

import copy
from typing import Any, Self  # Any: River's classes have no types

import numpy as np
from river import compose

from worker.contracts.records import Float64
from worker.models import sampled_kernels as kernels
from worker.models.batch import Batch
from worker.models.forest_twin import ForestTwin, forest_twin_of
from worker.models.plain import State, fit
from worker.models.reasons import Measure
from worker.models.sampled_scaler import SampledScaler
from worker.models.twin import CompiledTwin

_MASK = (1 << 64) - 1


class SampledTwin(CompiledTwin):
    """A scaler over flat arrays before a `ForestTwin`, bit-identical to what River runs.

    Parameters
    ----------
    scaler
        It is copied with what it has learned.
    forest
        The twin of the rest of the pipeline; it becomes part of this one.
    names
        The features of every row, in order.
    """

    kind = "sampled_twin"
    learned = ("_kept", "_scale", "_counters")
    learns_from_labels = False
    measure: Measure = "score"

    def __init__(self, scaler: SampledScaler, forest: ForestTwin, names: tuple[str, ...]) -> None:
        super().__init__()
        self._template, self._names = copy.deepcopy(scaler), names
        self._join(forest)
        self._seed = np.uint64(scaler.seed & _MASK)
        self._kept = np.zeros((scaler.size, len(names)))
        for row, kept in zip(self._kept, scaler.kept, strict=False):
            row[:] = kept
        columns = [scaler.scale.get(name, (0.0, 0.0)) for name in names]
        self._scale = np.array(columns, np.float64).T.copy()
        self._counters = np.array([scaler.count, scaler.next, len(scaler.kept)], np.int64)
        self._template.kept = []

    def score_learn(self, batch: Batch) -> Float64:
        """Return the anomaly score of each event, learning in between."""
        chosen, skipped = batch.examples(labelled=False)
        self.counts.skipped_examples += skipped
        learn_x, before = batch.learn_x[chosen], batch.learn_before[chosen]
        Z, learn_Z = np.empty(batch.X.shape), np.empty(learn_x.shape)
        kernels.scale_learn(
            np.ascontiguousarray(batch.X), learn_x, before, self._kept, self._scale,
            self._counters, self._seed, self._template.horizon, Z, learn_Z,
        )  # fmt: skip
        Z[~batch.scorable] = np.nan
        examples = learn_Z, batch.learn_y[chosen], batch.learn_weight[chosen], before
        return self._forest.score_learn(Batch(self._names, Z, *examples))

    def contributions(self, x: Float64, usual: Float64) -> Float64:
        """Return the Shapley values of the features in the score, beside a usual event."""
        z = np.empty((2, len(x)))
        for row, scaled in zip((x, usual), z, strict=True):
            kernels.squash(row, self._scale, bool(self._counters[kernels.COUNT]), scaled)
        return self._forest.contributions(*z)

    def fork(self) -> Self:
        """Return a copy that learns on its own, with counts of its own."""
        other = super().fork()
        other._join(self._forest.fork())
        return other

    def to_state(self) -> State:
        """Return what was learned: the sample, the scale, and the forest's state."""
        return {
            "kind": self.kind,
            "kept": self._kept[: self._counters[kernels.KEPT]].copy(),
            "scale": self._scale.copy(),
            "counters": self._counters.copy(),
            "forest": self._forest.to_state(),
        }

    def take(self, state: State) -> None:
        """Take a state of this kind."""
        kept = state["kept"]
        assert len(kept) == state["counters"][kernels.KEPT]
        self._kept[:] = 0.0
        fit(kept, self._kept[: len(kept)])
        fit(state["scale"], self._scale)
        fit(state["counters"], self._counters)
        self._forest.restore(state["forest"])

    def to_river(self) -> Any:
        """Return a River pipeline that goes on exactly where this twin is; the twin stays."""
        scaler = copy.deepcopy(self._template)
        scaler.count, scaler.next, kept = self._counters.tolist()
        scaler.kept = self._kept[:kept].tolist()
        if scaler.count:
            pairs = map(tuple, self._scale.T.tolist())
            scaler.scale = dict(zip(self._names, pairs, strict=True))
        return compose.Pipeline(scaler, *self._forest.to_river().steps.values())

    def _join(self, forest: ForestTwin) -> None:
        """Take a forest whose counts are those of the whole."""
        self._forest = forest
        forest.counts = self.counts


def sampled_twin_of(pipeline: Any, names: tuple[str, ...]) -> SampledTwin | None:
    """Return the twin of a pipeline, or None where it does something that the twin does not."""
    if type(pipeline) is not compose.Pipeline or len(pipeline) != 3:
        return None
    scaler, *rest = pipeline.steps.values()
    if type(scaler) is not SampledScaler or list(scaler.scale) not in ([], list(names)):
        return None
    forest = forest_twin_of(compose.Pipeline(*rest), names)
    sizes = scaler.size, scaler.horizon, scaler.seed
    is_plain = all(type(size) is int for size in sizes) and min(scaler.size, scaler.horizon) > 0
    return SampledTwin(scaler, forest, names) if forest is not None and is_plain else None
