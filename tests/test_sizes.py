"""What `riverwatch check` says an entity takes, against what the server says it takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
from pydantic import SecretStr

from tests.services.valkey import ValkeyServer
from worker.checkpoint import space_of
from worker.config import load_settings
from worker.contracts.records import Events
from worker.contracts.settings import FieldSettings, RedisSettings, Settings
from worker.features.spec import compile_features
from worker.features.table import FeatureTables
from worker.stores import Meta, Write
from worker.stores.redis import RedisStore

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted([*ROOT.glob("examples/*/*.yaml"), ROOT / "worker" / "demo" / "cards.yaml"])
COUNT = 20_000


def column_of(declared: FieldSettings, draw: np.random.Generator) -> Any:
    """Return plausible values of a field, as the decoder would."""
    if declared.type == "string":
        return [f"v{i}" for i in draw.integers(0, 50, COUNT)]
    if declared.type == "float":
        return draw.uniform(-90, 90, COUNT)
    top = {"boolean": 2, "category": len(declared.values or ()) + 1}.get(declared.type, 90_000)
    return draw.integers(0, top, COUNT)


def a_full_entity(settings: Settings) -> Events:
    """Return events of one entity of each type: more than any ring, over the longest reach."""
    draw = np.random.default_rng(5)
    reach_ms = compile_features(settings).forget_ms
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


@pytest.mark.redis
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_the_estimate_is_an_upper_bound_and_near(path: Path) -> None:
    """MEMORY USAGE, key included, of the fullest entity: at most the estimate, at least half."""
    settings = load_settings(path, {})
    spec = compile_features(settings)
    tables = FeatureTables(spec, settings.primary_entity, 1_000)
    events = a_full_entity(settings)
    missing = tables.missing(events)
    tables.load(missing, [None] * len(missing))
    tables.process(events)
    with ValkeyServer(persistent=False) as server:
        url = SecretStr(server.url)
        store = RedisStore(RedisSettings.model_construct(url=url, timeout=5_000))
        taken = tables.take_dirty()
        writes = [Write(f"{entity}:{id_}", blob, 10**9) for entity, id_, blob in taken]
        space = space_of(settings.name, spec, 0)
        store.flush(space, None, Meta(b"v" * 16, 1, 1, 1), writes)
        client = redis.Redis.from_url(server.url)
        for entity, id_, _ in taken:
            size = client.memory_usage(f"fs:{{{space}}}:{entity}:{id_}", samples=0)
            estimate = spec.bytes_estimate(entity)
            assert size is not None
            assert size <= estimate <= 2 * size, (entity, size, estimate)
        store.close()
