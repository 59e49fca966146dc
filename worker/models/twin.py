"""What all compiled twins share."""

from __future__ import annotations

import copy
from typing import ClassVar, Self

import numpy as np

from worker.contracts.records import Float64, Int64
from worker.models.batch import Batch
from worker.models.canonical import state_hash
from worker.models.plain import State, reading
from worker.models.versioned import Counts


class CompiledTwin:
    """A model over flat arrays: copied, hashed and restored by what it learned.

    A twin says what that is: `to_state` gives it, `take` takes it again, and ``learned`` names the
    attributes that learning changes, each with a method ``copy``.
    """

    kind: ClassVar[str]
    learned: ClassVar[tuple[str, ...]]
    learns_from_labels: ClassVar[bool] = True

    def __init__(self) -> None:
        self.counts = Counts()

    @property
    def heads(self) -> tuple[str, ...]:
        """Return the names of its parts that have scores of their own: none."""
        return ()

    def fork(self) -> Self:
        """Return a copy that learns on its own, with counts of its own."""
        other = copy.copy(self)
        other.counts = Counts()
        for name in self.learned:
            setattr(other, name, getattr(self, name).copy())
        return other

    def state_hash(self) -> str:
        """Return a hash of everything learned; the same for any history of scoring."""
        return state_hash(self.to_state())

    def to_state(self) -> State:
        """Return what was learned as plain values, with ``kind``."""
        raise NotImplementedError

    def restore(self, state: State) -> None:
        """Take what `to_state` gave, in a twin that was built from the same settings."""
        with reading(self.kind, state):
            self.take(state)

    def take(self, state: State) -> None:
        """Take a state of this kind; any exception says that it is not one of these settings."""
        raise NotImplementedError

    def examples(self, batch: Batch) -> Int64:
        """Return the examples to learn; those that are not usable are counted."""
        chosen, skipped = batch.examples(self.learns_from_labels)
        self.counts.skipped_examples += skipped
        if not self.learns_from_labels:  # a detector takes no weights
            self.counts.unweighted_examples += int((batch.learn_weight[chosen] != 1.0).sum())
        return chosen

    def served(self, scores: Float64) -> Float64:
        """Return scores (n,) or (n, 1 + heads), 0.0 and counted where the kernel gave none."""
        failed = ~np.isfinite(scores if scores.ndim == 1 else scores[:, 0])
        self.counts.failed_scores += int(failed.sum())
        scores[failed] = 0.0
        return scores
