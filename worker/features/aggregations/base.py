"""What every aggregation says of itself, and what its definition looks at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

EXACT_TYPES = ("integer", "boolean", "decimal")
"""Types of fields that are integers of a resolution: their sums are exact."""

Reads = Literal["window", "ring", "register", "since"]


@dataclass(frozen=True, slots=True, order=True)
class Source:
    """Where a recorded column comes from, and of which events.

    ``kind`` is ``one`` (1 for every event), ``field`` (in units of its resolution, or the index of
    its category), ``text`` (64 bits that stand for a string), ``degrees`` (a float in millionths),
    or ``outlier`` (1 where the field lay beyond ``beyond`` spreads of the ring before it, else 0).
    An event for which ``where`` is false lacks the value; so do those of an ``optional`` column.
    """

    kind: str
    field: str = ""
    where: str = ""
    beyond: float = 0.0
    robust: bool = False
    optional: bool = False

    @property
    def is_bit(self) -> bool:
        """Return whether it is 0 or 1 for every event that has it."""
        return not self.field or bool(self.beyond)

    @property
    def judged(self) -> Source:
        """Return the column whose outliers this one marks."""
        return replace(self, kind="field", beyond=0.0, robust=False)


@dataclass(frozen=True, slots=True)
class Register:
    """A number of an entity that is folded in the order of the log.

    ``holds`` is a code of `worker.features.codes`, ``rate`` its decay in 1 / ms, ``source`` the
    column that it folds, None for every event.
    """

    holds: int
    rate: float = 0.0
    source: Source | None = None


@dataclass(frozen=True, slots=True)
class Field:
    """What an aggregation must know of a field: ``optional`` where an event may lack it."""

    name: str
    type: str
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Options:
    """What stands after an aggregation: of one feature, so one window, count or duration.

    ``window_ms`` 0 is everything that the ring holds, ``last`` 0 all of its events. ``over`` is
    ``genuine`` where only events known to be genuine are compared with, else empty.
    """

    window_ms: int = 0
    last: int = 0
    half_life_ms: int = 0
    gap_ms: int = 0
    delay_ms: int = 0
    include_current: bool = True
    where: str = ""
    robust: bool = False
    beyond: float = 0.0
    over: str = ""
    weight: str = ""
    prior: float = 0.0
    strength: float = 0.0


@dataclass(frozen=True, slots=True)
class Past:
    """What a definition sees: the events of the window by time (ties by arrival), and the event.

    ``values`` are None where an event lacks the value (or the filter leaves it out). Without the
    event in the window, ``values`` and ``times_ms`` lack it; ``own`` and ``time_ms`` are of it.
    """

    values: Sequence[Any]  # numbers, texts, or pairs of numbers
    times_ms: Sequence[int] = ()
    now_ms: int = 0
    own: Any = None
    time_ms: int = 0
    options: Options = field(default_factory=Options)

    @property
    def known(self) -> list[Any]:
        """Return the values that are there."""
        return [v for v in self.values if v is not None]

    @property
    def known_times_ms(self) -> list[int]:
        """Return the times of the values that are there."""
        return [t for t, v in zip(self.times_ms, self.values, strict=True) if v is not None]


class Aggregation:
    """Base of all aggregations; subclasses say what they need and define `of`.

    A new one is a subclass in this package, its entry in `AGGREGATIONS`, and a code that the
    kernels know (`worker.features.codes`). The checks find it by its entry.

    Attributes
    ----------
    reads
        ``window``: moments of a window, ring and tiles. ``ring``: what the ring holds, nothing
        else. ``register``: numbers of the entity that are folded in the order of the log.
        ``since``: the newest time.
    each
        What there is a feature for each of: ``windows`` (needed), ``ring`` (windows, or the whole
        ring where none is given), ``last`` (numbers of events), ``half_life`` or ``gap``
        (durations), or ``nothing``.
    types, field_count
        Types of the fields that it takes, and how many.
    options
        Other options that it takes, of `Options`.
    include_current
        Whether the event itself is inside where nothing is said.
    keeps
        What tiles keep besides sums: ``squares``, ``extremes``, ``bits``.
    in_units
        Whether it is in the units of its field.
    compares
        Whether it is about the event's own value, so that there is none without an event.
    empty
        Its value where there is nothing to read.
    tolerance
        Relative error where it is exact by definition: of the last roundings.
    """

    name: ClassVar[str]
    reads: ClassVar[Reads] = "window"
    code: ClassVar[int] = -1
    each: ClassVar[Literal["windows", "ring", "last", "half_life", "gap", "nothing"]] = "windows"
    types: ClassVar[tuple[str, ...]] = EXACT_TYPES
    field_count: ClassVar[int] = 1
    options: ClassVar[tuple[str, ...]] = ("delay", "include_current", "where")
    include_current: ClassVar[bool] = True
    keeps: ClassVar[tuple[str, ...]] = ()
    in_units: ClassVar[bool] = False
    compares: ClassVar[bool] = False
    empty: ClassVar[float] = 0.0
    tolerance: ClassVar[float] = 0.0
    words: ClassVar[str]

    @classmethod
    def sources(cls, fields: Sequence[Field], options: Options) -> tuple[Source, ...]:
        """Return the recorded columns that it reads of its fields."""
        return tuple(source_of(field, options.where) for field in fields)

    @classmethod
    def registers(cls, sources: tuple[Source, ...], options: Options) -> tuple[Register, ...]:
        """Return the registers that it reads."""
        return ()

    @classmethod
    def reads_of(cls, options: Options) -> Reads:
        """Return where it reads, which may hang on its options."""
        return cls.reads

    @classmethod
    def code_of(cls, options: Options) -> int:
        """Return the op that reads it."""
        return cls.code

    @classmethod
    def parameter(cls, options: Options) -> float:
        """Return the number that its op needs besides windows."""
        return 0.0

    @staticmethod
    def of(past: Past) -> float:
        """Return the aggregation of the events in a window: its definition, in plain Python."""
        raise NotImplementedError

    @staticmethod
    def bounds(sure: Past, inside: Past, wide: Past) -> tuple[float, float]:
        """Return the least and the greatest value that it may have beyond the ring.

        ``inside`` are the events of the window; ``sure`` is without those of the tiles that its
        edges cut, ``wide`` with all events of these tiles. Where ``sure`` is empty, its value may
        also be that of nothing.
        """
        raise NotImplementedError


def source_of(field: Field, where: str) -> Source:
    """Return the column that records a field as it is."""
    kind = {"string": "text", "float": "degrees"}.get(field.type, "field")
    return Source(kind, field.name, where, optional=bool(where) or field.optional)


def passing(options: Options) -> tuple[Source, ...]:
    """Return a column that is 1 where an event passes the filter, nothing without a filter."""
    return (Source("one", where=options.where, optional=True),) if options.where else ()
