"""What a label aggregate says of itself, and what its definition looks at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import ClassVar, Literal, NamedTuple

from worker.features.aggregations.base import Aggregation


class Truth(NamedTuple):
    """What is known of one event: ``weight`` is what it recorded, 1.0 where none is asked for."""

    time_ms: int
    y: int
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Known:
    """What a definition sees: the labelled events of the window by event time (of equal ones by
    the hash of their id), and how many events the entity has in the window, labelled or not.
    """

    truths: Sequence[Truth]
    now_ms: int = 0
    events: int = 0
    prior: float = 0.0
    strength: float = 0.0

    @property
    def frauds(self) -> list[Truth]:
        """Return the truths that are frauds."""
        return [truth for truth in self.truths if truth.y]

    @property
    def run(self) -> list[Truth]:
        """Return the trailing truths that are all frauds, the newest first."""
        return list(takewhile(lambda truth: truth.y, reversed(self.truths)))


class LabelAggregation(Aggregation):
    """Base of all label aggregates; subclasses say what they need and define `of_known`.

    Attributes
    ----------
    truth
        What it is of: ``fraud`` or ``genuine``: a sum over such events of a window, by tiles
        beyond the ring; ``rate``: the first by the number of events. ``first`` and ``last``: the
        time of a fraud. ``run``: the trailing labelled events of the ring.
    windows_ms
        The windows where none are given; empty where they must be.
    """

    truth: ClassVar[Literal["fraud", "genuine", "rate", "first", "last", "run"]]
    windows_ms: ClassVar[tuple[int, ...]] = ()
    types = ()
    field_count = 0
    options: ClassVar[tuple[str, ...]] = ("delay", "where")
    in_units = True

    @staticmethod
    def of_known(known: Known) -> float:
        """Return the aggregation of what is known: its definition, in plain Python."""
        raise NotImplementedError

    @classmethod
    def bounds_of(cls, sure: Known, wide: Known, tile_ms: int) -> tuple[float, float]:
        """Return the least and the greatest value that it may have beyond the ring.

        ``sure`` has the labelled events of the window without the tiles of ``tile_ms`` that its
        edges cut, ``wide`` those of the window and of these tiles.
        """
        raise NotImplementedError
