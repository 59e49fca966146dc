"""The commands of ``riverwatch repair``; without --yes they only say what they would do."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from worker.checkpoint import space_of
from worker.commands import kafka_of, load, redis_of
from worker.commands_data import view_of
from worker.contracts.settings import Settings
from worker.contracts.slots import transactional_id
from worker.errors import ConfigError
from worker.features.spec import FeatureSpec, compile_features
from worker.repair import (
    Reset,
    Space,
    Updates,
    begin_updates,
    check_rebuild,
    plan_reset,
    spaces,
    trimmed_updates,
)
from worker.stores import StateStore

_DRY = "nothing was done: add --yes to do it"


def run_rebuild(path: Path, partitions: Sequence[int] | None, yes: bool) -> int:
    """Drop the spaces of partitions that can be rebuilt, or of all there are with the state of a
    file, which nobody needs any more.
    """
    from worker.stores.redis import RedisStore

    settings = load(path)
    store = RedisStore(redis_of(path, settings))
    try:
        spec = compile_features(settings)
        found = list(spaces(store, settings, spec, partitions))
        absent = set(partitions or ()) - {one.partition for one in found}
        if partitions is not None and found:
            _check(settings, spec, found)
        if found or not absent:
            _drop(store, found, yes)
        for partition in sorted(absent):
            print(f"partition {partition}: {elsewhere(store, settings, spec)}")
    finally:
        store.close()
    if absent:
        return 1
    print("done" if yes else _DRY)
    return 0


def run_reset(
    path: Path, partition: int, events: int | None, labels: int | None, reason: str, yes: bool
) -> int:
    """Have a shard begin anew: write where and why into the journal, then drop its space."""
    from worker.stores.redis import RedisStore
    from worker.streams.kafka_transactions import Transactions

    settings = load(path)
    spec = compile_features(settings)
    with ExitStack() as opened:
        store = RedisStore(redis_of(path, settings))
        opened.callback(store.close)
        view, _ = view_of(settings, opened)
        if members := view.members():
            raise ConfigError(
                f"group {settings.name}", expected="no worker", got=f"slots {', '.join(members)}",
                hint="stop them first: what they commit would take the reset back",
            )  # fmt: skip
        reset = plan_reset(view, settings, spec, partition, events, labels, reason)
        print(_words(partition, reset))
        if yes:
            name = transactional_id(settings.name, "repair")
            transactions = Transactions(kafka_of(settings), name)
            opened.callback(transactions.close)
            transactions.commit([reset.output], {}, None)
        mine = space_of(settings.name, spec, partition)
        found = spaces(store, settings, spec, [partition])
        _drop(store, [one for one in found if one.name == mine], yes)
        updates = trimmed_updates(view, store, settings, spec, partition)
        if updates is not None:
            _begin(store, updates, yes)
    print("done" if yes else _DRY)
    return 0


def elsewhere(store: StateStore, settings: Settings, spec: FeatureSpec) -> str:
    """Return which partitions have what was asked for, for somebody who mistook one."""
    there = dict.fromkeys(one.partition for one in spaces(store, settings, spec, None))
    if not there:
        return "nothing is stored of any partition with these features"
    return f"nothing is stored; there is state of partitions {', '.join(map(str, there))}"


def _words(partition: int, reset: Reset) -> str:
    begin, (events, labels) = reset.begin, reset.committed
    return (
        f"partition {partition} begins anew at events {begin.events}, labels {begin.labels}; "
        f"committed were {events}, {labels}\n"
        f"{reset.skipped} offsets of events are skipped: they get no row in the journal\n"
        "what is forgotten: the features of its entities, events that wait for labels, incidents"
    )


def _check(settings: Settings, spec: FeatureSpec, found: Sequence[Space]) -> None:
    """Refuse to drop what the log cannot give back; a partition that is not there is of nobody."""
    with ExitStack() as opened:
        view, _ = view_of(settings, opened)
        there = {one.partition for one in found if one.partition < view.partitions}
        check_rebuild(view, settings, spec, sorted(there))


def _begin(store: StateStore, updates: Updates, yes: bool) -> None:
    if yes:
        begin_updates(store, updates)
    verb = "begins" if yes else "would begin"
    print(
        f"{updates.name}: {verb} anew at {updates.first}, the first row that is left, "
        f"after {updates.position}; what is forgotten: its secondary entities"
    )


def _drop(store: StateStore, found: Sequence[Space], yes: bool) -> None:
    for one in found:
        if yes:
            print(f"{one.name}: {store.drop(one.name)} keys deleted")
        elif one.meta is None:
            print(f"{one.name}: would be deleted, it says no position")
        else:
            where = f"events {one.meta.events_offset}, labels {one.meta.labels_offset}"
            print(f"{one.name}: would be deleted, it stands at {where}")
    if not found:
        print("nothing is stored")
