"""How fast recorded files are replayed: the handbook's stream, or the demo's where it is not there.

The whole worker in one process, journal, scores and metrics written; see examples/handbook.
"""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Any  # rows of a benchmark

import pyarrow.parquet as pq

from producers.cards import DEMO
from producers.commands import cards_to_files
from worker.commands import load
from worker.contracts.settings import MemoryStreamSettings, Settings
from worker.features.spec import compile_features
from worker.models.catalogue import build_models
from worker.replay import Recording, replay
from worker.stopping import relax_collector
from worker.telemetry import configure_logging

ROOT = Path(__file__).parents[1]
HANDBOOK = ROOT.parent / "shared" / "data" / "handbook" / "transactions.parquet"
EVENTS, QUICK_EVENTS = 500_000, 20_000
WANTED_EVENTS_PER_S = 15_000


def run(quick: bool = False) -> list[dict[str, Any]]:
    """Return the row of the replay; its ratio is to what issue and README promise."""
    configure_logging("WARNING")
    relax_collector()
    events = QUICK_EVENTS if quick else EVENTS
    with tempfile.TemporaryDirectory() as work:
        prepare = _handbook if HANDBOOK.exists() else _cards
        name, settings, recording = prepare(Path(work), events)
        value = _replay(settings, recording, Path(work) / "out")
    return [
        {
            "name": name,
            "value": value,
            "unit": "events/s",
            "ratio": value / WANTED_EVENTS_PER_S,
            "ratio_to": f"{WANTED_EVENTS_PER_S} events/s",
        }
    ]


Prepared = tuple[str, Settings, Recording]


def _handbook(work: Path, events: int) -> Prepared:
    """Return the first events of the book's stream, with labels 7 days late."""
    part, source = work / "transactions.parquet", pq.ParquetFile(HANDBOOK)
    with pq.ParquetWriter(part, source.schema_arrow) as writer:
        for batch in source.iter_batches(EVENTS // 10):
            writer.write_batch(batch[:events])
            events -= min(events, len(batch))
            if not events:
                break
    settings = load(ROOT / "examples" / "handbook" / "handbook.yaml")
    assert settings.labels is not None
    labels = settings.labels
    return "replay_handbook", settings, Recording(part, None, labels.column, labels.delay)


def _cards(work: Path, events: int) -> Prepared:
    """Return about as many generated card payments with their labels."""
    per_day = DEMO.cards * DEMO.per_card_per_day
    cards = dataclasses.replace(DEMO, cards=int(events / per_day / DEMO.days * DEMO.cards))
    cards_to_files(cards, work, replace=True)
    settings = load(ROOT / "examples" / "cards" / "cards.yaml")
    return "replay_cards", settings, Recording(work / "events.jsonl", work / "labels.jsonl")


def _replay(settings: Settings, recording: Recording, out: Path) -> float:
    """Return events/s of a replay as `riverwatch replay` does it, without its start."""
    settings = settings.model_copy(update={"stream": MemoryStreamSettings()})
    spec = compile_features(settings)
    summary = replay(settings, spec, build_models(settings, spec.names), recording, out)
    return float(str(summary["events_per_s"]))


if __name__ == "__main__":
    print(run())
