"""The features of entities as they stand, from Redis only: for dashboards, rules and services.

    from pathlib import Path
    from redis import Redis
    from worker.commands import load
    from worker.features.reader import Reader

    reader = Reader(load(Path("cards.yaml")), Redis(unix_socket_path="/run/valkey.sock"))
    reader.read("card", "c00302")["card_count_1h"]

What is read is the state of the worker's last flush (`runner.flush`, 300 ms): `Reading.position`
says how far. Windows are slid to the instant that is asked for. Nothing is ever written.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from worker.checkpoint import space_of, updates_space_of
from worker.contracts.settings import Settings
from worker.errors import StateLostError
from worker.features.spec import FeatureSpec, compile_features
from worker.features.standing import Standing
from worker.secondary import secondary_entities
from worker.stores.redis_view import RedisView

_PARTITIONS_MAX = 1_024  # asked once for any space that says how many there are


@dataclass(frozen=True, slots=True)
class Reading:
    """What one entity's features are at an instant.

    ``stored`` is False for an entity that the store does not hold: never seen, or silent for so
    long that it was forgotten; its features are those of a new one. ``position`` is the offset of
    the first record of ``topic`` and ``partition`` that is not in them. The topic is that of the
    events; for a secondary entity in a stream of several partitions, `entity-updates`.
    """

    features: dict[str, float]
    stored: bool
    topic: str | None = None
    partition: int | None = None
    position: int | None = None


class Reader:
    """Reads current features of entities; see the module for an example.

    Parameters
    ----------
    settings
        The configuration of the worker: from `worker.commands.load`.
    client
        A `redis.Redis` that answers in bytes (the default), with the rights ``+mget ~fs:*``, a
        connection of whose pool is kept until the reader is gone; or a `redis.RedisCluster`, which
        needs ``+command +cluster|slots`` too.
    clock_ms
        Tells the instant of a question that names none: the wall clock.

    Notes
    -----
    A question is one round trip, whatever the number of ids. Every partition is asked for an
    entity, so it does not matter how producers choose partitions: with P partitions 100 entities
    are 100 P keys, at about 0.5 µs each, and twice as many where the entity has label features. Not
    safe for use by two threads.
    """

    def __init__(
        self,
        settings: Settings,
        client: Any,  # Any: redis-py has no types worth the name
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._name = settings.name
        self._events, self._updates = settings.events.topic, settings.outputs.entity_updates
        self._spec: FeatureSpec = compile_features(settings)
        self._standing = Standing(settings, self._spec)
        self._view = RedisView(client)
        self._clock_ms = clock_ms
        self._shared = secondary_entities(self._spec)
        self._spaces: list[str] = []

    def names(self, entity: str) -> tuple[str, ...]:
        """Return the names of the features of an entity, in the order of x."""
        return self._standing.names(entity)

    def left_out(self, entity: str) -> dict[str, str]:
        """Return the features of x that no entity has by itself, each with the reason."""
        return self._standing.left_out(entity)

    def read(self, entity: str, id_: str, at_ms: int | None = None) -> dict[str, float]:
        """Return an entity's features by name at an instant (Unix ms), now by default.

        An instant before the entity's newest event is taken for that event's time. An entity that
        is not stored reads as a new one; `look_up` tells it apart.

        Raises
        ------
        ConfigError
            There is no such entity type.
        StateLostError
            Nothing is stored for these features, or what is stored is damaged.
        TransientError
            Redis is away; ask again.
        """
        return self.look_up(entity, [id_], at_ms)[0].features

    def read_many(
        self, entity: str, ids: Sequence[str], at_ms: int | None = None
    ) -> list[dict[str, float]]:
        """Return what `read` returns of each id, in one round trip."""
        return [reading.features for reading in self.look_up(entity, ids, at_ms)]

    def look_up(self, entity: str, ids: Sequence[str], at_ms: int | None = None) -> list[Reading]:
        """Return what `read` returns of each id, with whether and where it is stored."""
        names = self._standing.names(entity)
        topic, spaces = self._spaces_of(entity)
        keys = [f"{part}:{id_}" for part in self._standing.parts(entity) for id_ in ids]
        n = len(ids)
        metas, values = zip(*self._view.load([(space, keys) for space in spaces]), strict=True)
        if not any(metas):
            raise self._nothing()
        held = [_held(entity, found) for found in zip(*values, strict=True)]
        at = self._clock_ms() if at_ms is None else at_ms
        blobs = [blob for _, blob in held]
        X = self._standing.read(entity, blobs[:n], at, blobs[n:])
        return [
            Reading(
                dict(zip(names, x, strict=True)),
                blob is not None,
                None if partition is None else topic,
                partition,
                None if partition is None else _position(metas[partition]),
            )
            for x, (partition, blob) in zip(X.tolist(), held[:n], strict=True)
        ]

    def _spaces_of(self, entity: str) -> tuple[str, list[str]]:
        """Return the topic an entity type is a fold of, and where it may be.

        With several partitions others own what is shared.
        """
        spaces = self._known_spaces()
        if len(spaces) == 1 or entity not in self._shared:
            return self._events, spaces
        return self._updates, [
            updates_space_of(self._name, self._spec, p) for p in range(len(spaces))
        ]

    def _known_spaces(self) -> list[str]:
        """Return the spaces of all partitions; the first question learns how many there are."""
        if not self._spaces:
            asked = [space_of(self._name, self._spec, p) for p in range(_PARTITIONS_MAX)]
            looked = self._view.load([(space, ()) for space in asked])
            found = [meta for meta, _ in looked if meta is not None]
            if not found:
                raise self._nothing()
            self._spaces = asked[: max(meta.partitions for meta in found)]
        return self._spaces

    def _nothing(self) -> StateLostError:
        self._spaces = []
        return StateLostError(
            f"store {space_of(self._name, self._spec, 0).rpartition('.')[0]}",
            "state of these features", "none",
            "has a worker run with this file on this server; riverwatch backfill builds the state",
        )  # fmt: skip


def _held(entity: str, values: Sequence[bytes | None]) -> tuple[int | None, bytes | None]:
    """Return the partition that holds an entity, and its blob."""
    found = [(p, value) for p, value in enumerate(values) if value is not None]
    if len(found) > 1:
        raise StateLostError(
            f"stored state of a {entity}", "one partition that holds it",
            f"parts in {len(found)} partitions",
            "its key is not the topic's: see events.key in docs/configuration.md",
        )  # fmt: skip
    return found[0] if found else (None, None)


def _position(meta: Any) -> int | None:
    return None if meta is None else meta.events_offset
