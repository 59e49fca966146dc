"""What `riverwatch check` says an entity takes, against what the server says it takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis

from tests.features.label_streams import label_settings
from tests.features.streams import settings_of, taken_from
from tests.features.test_label_features import declared
from tests.services.valkey import ValkeyServer
from worker.config import load_settings
from worker.contracts.records import Events, LabelUpdates
from worker.contracts.settings import FieldSettings, Settings
from worker.features.sizes import FULL_EVENTS, VALUE_MAX, bytes_estimate
from worker.features.spec import FeatureSpec, compile_features
from worker.features.table import FeatureTables

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted([*ROOT.glob("examples/*/*.yaml"), ROOT / "worker" / "demo" / "cards.yaml"])
DAY_MS = 86_400_000


def column_of(declared: FieldSettings, draw: np.random.Generator, count: int) -> Any:
    """Return values over the range that a field declares, as the decoder would."""
    if declared.type == "string":
        return [f"v{i}" for i in draw.integers(0, 2**31, count)]
    if declared.type == "float":
        return draw.uniform(-90, 90, count)
    if declared.type in ("boolean", "category"):
        return draw.integers(0, len(declared.values or (0,)) + 1, count)
    if declared.max is None:
        return draw.integers(0, VALUE_MAX, count)
    unit = declared.resolution or 1
    return draw.integers(int((declared.min or 0) / unit), int(declared.max / unit), count)


def an_entity(settings: Settings, reach_ms: int, count: int) -> Events:
    """Return events of one entity of each type, evenly spread."""
    draw = np.random.default_rng(5)
    entities = settings.entities
    return Events(
        index=np.arange(count),
        offsets=np.arange(count),
        time_ms=1_700_000_000_000 + np.sort(draw.integers(0, reach_ms, count)),
        ids=[f"e{i}" for i in range(count)],
        id_hash=draw.integers(0, 2**63, count).astype(np.uint64),
        entity_ids={name: ["4539578763621486"] * count for name in entities},
        columns={n: column_of(f, draw, count) for n, f in settings.events.fields.items()},
    )


def truths(spec: FeatureSpec, events: Events) -> LabelUpdates:
    """Return what became known of them: every other one is a fraud."""
    draw, count = np.random.default_rng(6), len(events)
    values = {name: np.asarray(events.columns[name]) for name in spec.label_fields}
    scores = {name: draw.integers(0, 1_000_000, count) for name in spec.label_scores}
    return LabelUpdates(
        before=np.full(count, count),
        event_ids=events.ids,
        id_hash=events.id_hash,
        time_ms=events.time_ms,
        entity_ids={name: events.entity_ids[name] for name in spec.label_entities},
        y=draw.integers(0, 2, count),
        y_before=np.full(count, -1),
        weight=np.ones(count),
        weight_before=np.zeros(count),
        values=values | scores,
    )


def blobs_of(
    settings: Settings, reach_ms: int, count: int = FULL_EVENTS
) -> list[tuple[str, str, bytes]]:
    """Return all parts of one full entity of each type."""
    spec = compile_features(settings)
    tables = FeatureTables(spec, settings.primary_entity, 1_000)
    events = an_entity(settings, reach_ms, count)
    known = truths(spec, events)
    keys = [*tables.missing(events), *tables.missing_labelled(known.entity_ids)]
    tables.load(keys, [None] * len(keys))
    tables.process(events, known if spec.label_entities else None)
    return taken_from(tables)


WINDOWS = ["1h", "6h", "1d", "3d", "7d", "30d"]
OF_ONE = ("count", *(f"{name}(amount)" for name in ("mean", "std", "min", "max")))
OF_TWO = (*OF_ONE, *(f"{name}(items)" for name in ("mean", "std", "min", "max")))
FIELDS = {
    "id": "string", "card_id": "string", "terminal_id": "string", "at": "timestamp",
    "amount": {"type": "decimal", "resolution": 0.01}, "country": "string",
    "items": {"type": "integer", "min": 0, "max": 20},
    "channel": {"type": "category", "values": ["web", "pos"]},
    "worth": {"type": "decimal", "resolution": 0.01, "min": -1e9, "max": 1e9},
}  # fmt: skip


def of_a_card(*aggregations: str, windows: Sequence[str] = WINDOWS) -> Settings:
    """Return a configuration with some aggregations of a card."""
    features = {"card": {key: list(windows) for key in aggregations}}
    return settings_of(features, 32, FIELDS)


CONFIGURATIONS = {
    "count": lambda: of_a_card("count"),
    "one count": lambda: of_a_card("count", windows=["30d"]),
    "two sums": lambda: of_a_card("count", "mean(amount)", "sum(items)"),
    "one field": lambda: of_a_card(*OF_ONE),
    "two fields": lambda: of_a_card(*OF_TWO),
    "large": lambda: of_a_card("count", "std(worth)", "max(worth)"),
    "few values": lambda: of_a_card("count", "distinct(channel)"),
    "many values": lambda: of_a_card("count", "distinct(country)"),
    "one window": lambda: of_a_card(*OF_ONE, windows=["30d"]),
    "short windows": lambda: of_a_card(*OF_TWO, windows=["1m", "1h"]),
    "labels": lambda: label_settings({"card": declared(["1h"])}),
    "weights": lambda: label_settings({"card": declared(["1h"], weight="$amount")}),
    "filters": lambda: label_settings(
        {"card": {"count": [{"windows": ["1h"], "where": "$amount > 10"}]}}
    ),
    "outliers": lambda: label_settings(
        {"card": {"sum(items)": ["1h"], "outliers(amount)": ["1h"]}}
    ),
    **{f"{p.parent.name}-{p.stem}": partial(load_settings, p, {}) for p in EXAMPLES},
}


@pytest.fixture(scope="module")
def usage() -> Iterator[Callable[[str, bytes], int]]:
    """Return a function that tells the MEMORY USAGE of a blob, its key included."""
    with ValkeyServer(persistent=False) as server:
        client = redis.Redis.from_url(server.url)

        def of(part: str, blob: bytes) -> int:
            key = f"fs:{{cards.0123456789abcdef.0}}:{part}:4539578763621486"
            client.set(key, blob, px=10**9)
            size = client.memory_usage(key, samples=0)
            assert size is not None
            return int(size)

        yield of


@pytest.mark.redis
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_the_estimate_of_a_full_entity_is_near(
    name: str, usage: Callable[[str, bytes], int]
) -> None:
    """Never too low, at most 15 % too high: 20,000 events over its longest window."""
    settings = CONFIGURATIONS[name]()
    spec = compile_features(settings)
    reach_ms = max(window.reach_ms for part in spec.parts for window in part.windows)
    for entity, _, blob in blobs_of(settings, reach_ms):
        size, estimate = usage(entity, blob), bytes_estimate(settings, spec, entity)
        assert size <= estimate <= 1.15 * size, (entity, size, estimate)


@pytest.mark.redis
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_no_entity_is_larger_than_the_estimate(
    name: str, usage: Callable[[str, bytes], int]
) -> None:
    """With as many events as its ring holds, and with ten times more, again and again."""
    settings = CONFIGURATIONS[name]()
    spec = compile_features(settings)
    reach_ms = max(window.reach_ms for part in spec.parts for window in part.windows)
    for count in (32, 320, 3_200):
        for entity, _, blob in blobs_of(settings, reach_ms, count):
            assert usage(entity, blob) <= bytes_estimate(settings, spec, entity), (entity, count)


@pytest.mark.redis
def test_which_entities_fit_in_2500_bytes(usage: Callable[[str, bytes], int]) -> None:
    """A ring of 32 and six windows: nine aggregations of two fields of five digits, not of three;
    whatever the number of events.
    """
    large = {**FIELDS, "items": {"type": "integer", "min": 0, "max": 99_999}}
    settings = settings_of({"card": dict.fromkeys(OF_TWO, WINDOWS)}, 32, large)
    estimate = bytes_estimate(settings, compile_features(settings), "card")
    for count in (32, 320, 1_000, 3_200, 10_000, 20_000):
        ((entity, _, blob),) = blobs_of(settings, 30 * DAY_MS, count)
        assert usage(entity, blob) <= estimate <= 2_500
    third = [f"{name}(worth)" for name in ("mean", "std", "min", "max")]
    ((entity, _, blob),) = blobs_of(of_a_card(*OF_TWO, *third), 30 * DAY_MS)
    assert usage(entity, blob) > 2_500


@pytest.mark.redis
def test_a_card_of_a_month_fits_in_600_bytes(usage: Callable[[str, bytes], int]) -> None:
    """20 events of two fields in 30 days, with their ids and the key."""
    settings = of_a_card("mean(amount)", "sum(items)", windows=["1d", "7d", "30d"])
    ((entity, _, blob),) = blobs_of(settings, 30 * DAY_MS, 20)
    assert usage(entity, blob) <= 600
