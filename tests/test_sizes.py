"""What `riverwatch check` says an entity takes, against what the server says it takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
from pydantic import SecretStr

from tests.features.label_streams import label_settings
from tests.features.streams import taken_from
from tests.features.test_label_features import declared
from tests.services.valkey import ValkeyServer
from worker.checkpoint import space_of
from worker.config import load_settings
from worker.contracts.records import Events, LabelUpdates
from worker.contracts.settings import FieldSettings, RedisSettings, Settings
from worker.features.spec import FeatureSpec, compile_features
from worker.features.table import FeatureTables
from worker.stores import Meta, Writes
from worker.stores.redis import RedisStore

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted([*ROOT.glob("examples/*/*.yaml"), ROOT / "worker" / "demo" / "cards.yaml"])
COUNT = 20_000
REDIS_BYTES = 98  # MEMORY USAGE of a key such as these with an empty value


def column_of(declared: FieldSettings, draw: np.random.Generator) -> Any:
    """Return plausible values of a field, as the decoder would."""
    if declared.type == "string":
        return [f"v{i}" for i in draw.integers(0, 50, COUNT)]
    if declared.type == "float":
        return draw.uniform(-90, 90, COUNT)
    top = {"boolean": 2, "category": len(declared.values or ()) + 1}.get(declared.type, 90_000)
    return draw.integers(0, top, COUNT)


def a_full_entity(settings: Settings, reach_ms: int) -> Events:
    """Return events of one entity of each type: more than any ring."""
    draw = np.random.default_rng(5)
    entities = settings.entities
    return Events(
        index=np.arange(COUNT),
        offsets=np.arange(COUNT),
        time_ms=1_700_000_000_000 + np.sort(draw.integers(0, reach_ms, COUNT)),
        ids=[f"e{i}" for i in range(COUNT)],
        id_hash=draw.integers(0, 2**63, COUNT).astype(np.uint64),
        entity_ids={name: ["4539578763621486"] * COUNT for name in entities},
        columns={n: column_of(f, draw) for n, f in settings.events.fields.items()},
    )


def truths(spec: FeatureSpec, events: Events) -> LabelUpdates:
    """Return what became known of them: every other one is a fraud."""
    draw = np.random.default_rng(6)
    values = {name: np.asarray(events.columns[name]) for name in spec.label_fields}
    scores = {name: draw.integers(0, 1_000_000, COUNT) for name in spec.label_scores}
    return LabelUpdates(
        before=np.full(COUNT, COUNT),
        event_ids=events.ids,
        id_hash=events.id_hash,
        time_ms=events.time_ms,
        entity_ids={name: events.entity_ids[name] for name in spec.label_entities},
        y=draw.integers(0, 2, COUNT),
        y_before=np.full(COUNT, -1),
        weight=np.ones(COUNT),
        weight_before=np.zeros(COUNT),
        values=values | scores,
    )


def blobs_of(settings: Settings, reach_ms: int) -> list[tuple[str, str, bytes]]:
    """Return all parts of one full entity of each type."""
    spec = compile_features(settings)
    tables = FeatureTables(spec, settings.primary_entity, 1_000)
    events = a_full_entity(settings, reach_ms)
    known = truths(spec, events)
    keys = [*tables.missing(events), *tables.missing_labelled(known.entity_ids)]
    tables.load(keys, [None] * len(keys))
    tables.process(events, known if spec.label_entities else None)
    return taken_from(tables)


BUSY = {
    "labels": declared(["1h"]),
    "weights": declared(["1h"], weight="$amount"),
    "genuine": {"ratio(amount)": {"windows": ["1h"], "over": "genuine"}},
    "filters": {"count": [{"windows": ["1h"], "where": "$amount > 10"}]},
    "outliers": {"sum(items)": ["1h"], "outliers(amount)": ["1h"]},
    "extremes": {"std(amount)": ["1h"], "max(amount)": ["1h"]},
}


@pytest.mark.parametrize("name", BUSY)
def test_the_estimate_of_an_entity_that_fills_its_tiles_is_near(name: str) -> None:
    """1,700 events in each tile: never too low, at most a quarter too high."""
    settings = label_settings({"card": BUSY[name]})
    spec = compile_features(settings)
    for entity, _, blob in blobs_of(settings, 3_600_000):
        size, estimate = len(blob) + REDIS_BYTES, spec.bytes_estimate(entity)
        assert size <= estimate <= 1.25 * size, (entity, size, estimate)


@pytest.mark.redis
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_the_estimate_is_an_upper_bound_and_near(path: Path) -> None:
    """MEMORY USAGE, key included, of 20,000 events: the estimate is at most 1.5 times as high."""
    settings = load_settings(path, {})
    spec = compile_features(settings)
    taken = blobs_of(settings, spec.forget_ms)
    with ValkeyServer(persistent=False) as server:
        url = SecretStr(server.url)
        store = RedisStore(RedisSettings.model_construct(url=url, timeout=5_000))
        writes = [Writes.of(f"{entity}:{id_}", blob, 10**9) for entity, id_, blob in taken]
        space = space_of(settings.name, spec, 0)
        store.flush(space, None, Meta(b"v" * 16, 1, 1, 1), writes)
        client = redis.Redis.from_url(server.url)
        for entity, id_, _ in taken:
            size = client.memory_usage(f"fs:{{{space}}}:{entity}:{id_}", samples=0)
            estimate = spec.bytes_estimate(entity)
            assert size is not None
            assert size <= estimate <= 1.5 * size, (entity, size, estimate)
        store.close()
