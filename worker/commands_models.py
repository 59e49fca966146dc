"""Commands about learned models: ``models``, ``snapshot list``, ``show`` and ``verify``."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import msgspec

from worker.commands import kafka_of, load, snapshots_of
from worker.contracts.records import Output
from worker.contracts.settings import Settings
from worker.contracts.slots import transactional_id
from worker.contracts.text import aligned, shown
from worker.errors import ConfigError, StateLostError
from worker.features.spec import compile_features
from worker.models.prequential import Figures
from worker.models.steward import Report
from worker.models.versioned import ModelSet
from worker.progress import ProgressBar
from worker.snapshots import Snapshots
from worker.telemetry import configure_logging

ORDERS = ("promote", "roll_back", "freeze", "thaw")
_ORDERS_OF_ONE = ("promote", "freeze", "thaw")
_NOTICES = 10


def run_models(path: Path, order: str | None, model: str | None) -> int:
    """List the models with their metrics as the training log has them; or write an order to it."""
    settings = load(path)
    if order is None:
        configure_logging("WARNING")  # what is printed is the table
        _print_models(_learned(settings))
        return 0
    words = order.replace("-", "_")
    if words not in ORDERS:
        known = ", ".join(ORDERS).replace("_", "-")
        raise ConfigError("models", expected=f"one of {known}", got=order)
    if (words in _ORDERS_OF_ONE) != (model is not None):
        expected = "the name of a model" if words in _ORDERS_OF_ONE else "no model"
        raise ConfigError(f"models {order}", expected=expected, got=model or "none")
    if model is not None and model not in settings.models:
        raise ConfigError(
            f"models {order}", expected=f"one of {', '.join(settings.models)}", got=model
        )
    if words in ("freeze", "thaw") and model and settings.models[model].scope == "entity":
        expected = "a model that learns from the training log"
        raise ConfigError(f"models {order}", expected=expected, got=f"{model} of scope entity")
    version = _write_order(settings, words, model or "")
    print(f"{order} {model or ''}".rstrip() + f" is in the training log: from version {version} on")
    return 0


def _write_order(settings: Settings, order: str, model: str) -> int:
    """Write an order as a transaction of its own; return the version from which it holds."""
    from worker.arrow import order_record
    from worker.streams.kafka_transactions import Transactions

    value = order_record(order, model)
    output = Output(settings.outputs.training, 0, None, value, time.time_ns() // 1_000_000)
    transactions = Transactions(kafka_of(settings), transactional_id(settings.name, "order"))
    try:
        (offset,) = transactions.commit([output], {}, None)
    finally:
        transactions.close()
    return offset + 1


def _learned(settings: Settings) -> ModelSet:
    """Return the models after everything that is in the training log now."""
    import structlog

    from worker.models.catalogue import build_models
    from worker.streams.kafka_view import KafkaView
    from worker.training import TrainingFollower

    spec = compile_features(settings)
    models = build_models(settings, spec.names)
    topics = [settings.events.topic, settings.outputs.journal]
    view = KafkaView(kafka_of(settings), settings.name, topics)
    try:
        follower = TrainingFollower(
            view, settings.outputs.training, models, spec.spec_hash,
            snapshots_of(settings, spec), structlog.get_logger(), writes=False,
        )  # fmt: skip
        with ProgressBar("learning", "learned") as bar:
            end = view.log_range(settings.outputs.training, 0)[1]
            follower.catch_up(
                lambda: bar.update(follower.version, end, "records", follower.learned)
            )
        follower.close()
    finally:
        view.close()
    return models


def _print_models(models: ModelSet) -> None:
    reports = models.steward.reports()
    heads = ["", *(one.name for one in reports)]
    print(aligned([heads, ["role", *(r.role for r in reports)],
                   ["status", *(r.status for r in reports)], *_figures(reports, 0)]))  # fmt: skip
    for i, measured in enumerate(reports[0].figures[1:], start=1):
        print(f"\n{measured.segment}")
        print(aligned([heads, *_figures(reports, i)]))
    print("\nfigures are of all labelled examples / of the last whole 10,000, or seven days")
    for notice in list(models.steward.notices)[-_NOTICES:]:
        words = f"{notice.text} ({notice.kind}: {notice.action})"
        print(f"after {notice.examples} examples: {words}")


def _figures(reports: Sequence[Report], segment: int) -> list[list[str]]:
    """Return a line for each figure, with a cell for each model."""
    both = [(r.figures[segment].total, r.figures[segment].recent) for r in reports]
    return [
        [
            field.name.replace("_", " "),
            *(
                f"{shown(getattr(t, field.name))} / {shown(getattr(r, field.name))}"
                for t, r in both
            ),
        ]
        for field in fields(Figures)
    ]


def run_snapshot_list(path: Path) -> int:
    """List the snapshots of a configuration."""
    found = list(_snapshots(path).found())
    for one in found:
        if one.header is None:
            print(f"{one.path.name}  refused: {one.refused}")
        else:
            print(f"{one.path.name}  version {one.header.version}, {one.header.examples} examples")
    if not found:
        print("no snapshots")
    return 0


def run_snapshot_show(path: Path, file: Path) -> int:
    """Print the header of a snapshot as JSON."""
    header = _snapshots(path).read(file).header
    print(json.dumps(msgspec.to_builtins(header), indent=2))
    return 0


def run_snapshot_verify(path: Path, file: Path | None) -> int:
    """Try snapshots as a start would. Returns 1 where one is refused."""
    snapshots = _snapshots(path)
    files = [one.path for one in snapshots.found()] if file is None else [file]
    refused = 0
    for one in files:
        try:
            snapshots.proved(one)
        except StateLostError as error:
            refused += 1
            print(f"{one.name}  refused: {error}")
        else:
            print(f"{one.name}  good")
    return 1 if refused else 0


def _snapshots(path: Path) -> Snapshots:
    settings = load(path)
    found = snapshots_of(settings, compile_features(settings))
    if found is None:
        raise ConfigError(str(path), expected="a section snapshots", got="none")
    return found
