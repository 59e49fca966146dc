"""What is kept of the entities of one type, derived from the features that read it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from worker.contracts.settings import EntitySettings
from worker.features.aggregations import AGGREGATIONS, Register, Source
from worker.features.codes import HASHED, OPTIONAL, SIGNED
from worker.features.feature import Feature

_DAY_MS = 86_400_000
_TILES_MAX = 256  # per tile set: a short window far back must not cost a tile a second


@dataclass(frozen=True, slots=True)
class Recorded:
    """A number that is kept with each event, and what tiles keep of it beyond the ring.

    ``bits``: 256 of them, each for some of its values.
    """

    source: Source
    tiled: bool
    squares: bool
    extremes: bool
    bits: bool

    @property
    def optional(self) -> bool:
        """Return whether an event may lack it."""
        return self.source.optional

    @property
    def form(self) -> int:
        """Return how it is packed."""
        if self.source.kind == "text":
            return HASHED
        return OPTIONAL if self.optional else SIGNED


@dataclass(frozen=True, slots=True, order=True)
class Window:
    """The interval (now − delay − size, now − delay], with or without the current event."""

    include_current: bool
    delay_ms: int
    size_ms: int

    @property
    def tile_ms(self) -> int:
        """Return the length of the tiles that stand for it beyond the ring.

        >>> Window(True, 0, 86_400_000).tile_ms, Window(True, 0, 7_200_000).tile_ms
        (3600000, 600000)
        """
        parts = 24 if self.size_ms == _DAY_MS else 12
        return max(-(-self.size_ms // parts), -(-self.reach_ms // _TILES_MAX))

    @property
    def reach_ms(self) -> int:
        """Return how far back it looks."""
        return self.size_ms + self.delay_ms


@dataclass(frozen=True, slots=True)
class TileSet:
    """Tiles of one length; ``tiles`` are enough to reach back from any now to the oldest edge."""

    tile_ms: int
    tiles: int


@dataclass(frozen=True, slots=True)
class EntitySpec:
    """What is kept of each entity of one type, and which columns of X are read from it.

    ``columns`` are ascending; recorded columns that tiles keep come first; ``windows`` are sorted,
    so that those with one end are together. Events of a ``shared`` one come through any partition:
    its id does not hold the primary entity's, which chooses the partition. What became known of a
    ``labelled`` one is read at its now.
    """

    name: str
    ring: int
    primary: bool
    shared: bool
    optional: bool
    recorded: tuple[Recorded, ...]
    registers: tuple[Register, ...]
    windows: tuple[Window, ...]
    tile_sets: tuple[TileSet, ...]
    columns: tuple[int, ...]
    labelled: bool = False

    @property
    def kept(self) -> bool:
        """Return whether there is anything to keep: for features, or to tell duplicates."""
        return self.primary or self.labelled or bool(self.columns)

    def place(self, source: Source | None) -> int:
        """Return the number of a recorded column, -1 for none."""
        return -1 if source is None else [r.source for r in self.recorded].index(source)


def entity_spec(
    name: str, entity: EntitySettings, key: str, features: Sequence[Feature]
) -> EntitySpec:
    """Return what features need to have kept of one type; ``key`` is the field of Kafka's key."""
    columns = [i for i, feature in enumerate(features) if feature.entity == name]
    own = [features[i] for i in columns]
    windows = {
        Window(f.include_current, f.delay_ms, f.window_ms or 0) for f in own if _is_windowed(f)
    }
    return EntitySpec(
        name,
        entity.ring,
        entity.key == key,
        key not in entity.keys,
        entity.optional,
        _recorded(own),
        _registers(own),
        tuple(sorted(windows)),
        _tile_sets(windows),
        tuple(columns),
    )


def _recorded(features: list[Feature]) -> tuple[Recorded, ...]:
    """Return the columns that features read: their order must not depend on that of features."""
    sources = {source for f in features for source in f.sources}
    sources |= {source.judged for source in sources if source.kind == "outlier"}
    found = []
    for source in sorted(sources):
        users = [f for f in features if source in f.sources and _is_windowed(f)]
        keeps = {part for f in users for part in AGGREGATIONS[f.aggregation].keeps}
        parts = ("squares" in keeps, "extremes" in keeps, "bits" in keeps)
        found.append(Recorded(source, bool(users), *parts))
    return tuple(sorted(found, key=lambda r: not r.tiled))


def _is_windowed(feature: Feature) -> bool:
    return AGGREGATIONS[feature.aggregation].reads_of(feature.options) == "window"


def _registers(features: list[Feature]) -> tuple[Register, ...]:
    found = {register for f in features for register in f.registers}
    return tuple(sorted(found, key=lambda r: (r.holds, r.rate, r.source or Source(""))))


def _tile_sets(windows: set[Window]) -> tuple[TileSet, ...]:
    """Return one set per length of tiles; windows of one size share theirs whatever their delay.

    A reach of r touches at most ⌈r / tile⌉ + 1 tiles.
    """
    reach_ms: dict[int, int] = {}
    for window in sorted(windows):
        reach_ms[window.tile_ms] = max(reach_ms.get(window.tile_ms, 0), window.reach_ms)
    return tuple(
        TileSet(tile_ms, -(-reach // tile_ms) + 1) for tile_ms, reach in sorted(reach_ms.items())
    )
