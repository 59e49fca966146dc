"""The worker beside the obvious loop: same events, same broker, same Redis, in turns in one run.

The variants take turns and the median of the rounds counts, so that a slow minute of the machine
hits all of them. A round that is not counted comes first: until then the broker's own code is not
compiled, which doubles what it costs. Rows named ``pipeline_…`` are of the worker with compiled
twins, those with ``_river`` of the worker with River's own models. ``pipeline_ceiling`` is how fast
the worker would be if nothing but the transport and the models cost anything and no core were ever
idle: CPU of the worker's calls of both clients (`benchmarks.transport`), of its models, and of both
servers.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any  # rows of a benchmark, and a configuration as YAML has it

import yaml

from benchmarks import load
from benchmarks.latency import alert_ages_ms
from benchmarks.obvious import ALERTS
from tests.services.kafka import KafkaServer
from tests.services.process import free_port
from tests.services.valkey import ValkeyServer

ROUNDS = 3
# Events a run: some seconds of each variant at least.
OBVIOUS, IN_PROCESS, COMPILED, RIVER = 20_000, 20_000, 100_000, 20_000
WORKER_TOPICS = ("journal", "alerts", "dead_letters", "scores", "training", "entity_updates")
Figures = dict[str, Any]
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Servers:
    """The broker and the Redis of a run."""

    bootstrap: str
    redis_url: str
    work: Path
    pids: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured."""

    rounds: int = ROUNDS
    scale: float = 1.0
    latency_s: float = 15.0


def run(quick: bool = False) -> list[Row]:
    """Return the rows of the comparison, the stages, the latency, memory and start."""
    plan = Plan(rounds=1, scale=0.1, latency_s=5.0) if quick else Plan()
    with _servers() as servers:
        load.fill_topics(servers.bootstrap, int(COMPILED * plan.scale))
        _worker(servers, "warm-up", int(COMPILED * plan.scale), compiled=True)
        rounds = [_round(servers, plan, number) for number in range(plan.rounds)]
        names = rounds[0].keys()
        figures = {name: _middle([one[name] for one in rounds]) for name in names}
        rows = _rows(figures)
        rate = _rate(figures["compiled"]) / 2
        rows += _latency_rows(servers, rate, plan.latency_s)
    return rows


@contextmanager
def _servers() -> Iterator[Servers]:
    with ExitStack() as stack:
        kafka = stack.enter_context(KafkaServer(long_running=True))
        valkey = stack.enter_context(ValkeyServer(free_port(), persistent=False))
        work = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        load.create_topics(kafka.bootstrap, [load.EVENTS, load.LABELS, ALERTS])
        yield Servers(kafka.bootstrap, valkey.url, work, (kafka.pid, valkey.pid))


def _round(servers: Servers, plan: Plan, number: int) -> dict[str, Figures]:
    def count(events: int) -> int:
        return int(events * plan.scale)

    return {
        "obvious": _obvious(servers, servers.redis_url, count(OBVIOUS)),
        "compiled": _worker(servers, f"compiled-{number}", count(COMPILED), compiled=True),
        "transport": _transport(servers, f"taped-{number}", count(COMPILED)),
        "in_process": _obvious(servers, "-", count(IN_PROCESS)),
        "river": _worker(servers, f"river-{number}", count(RIVER), compiled=False),
    }


def _obvious(servers: Servers, redis_url: str, count: int) -> Figures:
    return _child("benchmarks.obvious", servers.bootstrap, redis_url, str(count))


def _worker(servers: Servers, name: str, count: int, *, compiled: bool) -> Figures:
    with worker_config(servers, name, compiled=compiled) as path:
        figures = _child("benchmarks.worker_run", str(path), str(count), str(time.monotonic()))
        if compiled:
            figures["recovery"] = _child("benchmarks.recovery", str(path))
    return figures


def _transport(servers: Servers, name: str, count: int) -> Figures:
    with worker_config(servers, name) as path, worker_config(servers, f"{name}-again") as beside:
        words = (str(path), str(beside), str(count), *map(str, servers.pids))
        return _child("benchmarks.transport", *words)


def _child(module: str, *arguments: str) -> Figures:
    """Run a module in a process of its own and return the JSON that it prints last."""
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        raise RuntimeError(f"{module} failed:\n{done.stderr[-4_000:]}")
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


@contextmanager
def worker_config(servers: Servers, name: str, **words: Any) -> Iterator[Path]:
    """Write a configuration with topics of its own, which go when the run is over."""
    topics = {kind: f"{name}-{kind}".replace("_", "-") for kind in WORKER_TOPICS}
    document = yaml.safe_load(Path(__file__).with_name("pipeline.yaml").read_text())
    for model in document["models"].values():
        model["compiled"] = words.get("compiled", True)
    document |= {
        "name": name,
        "stream": {"kind": "kafka", "bootstrap_servers": servers.bootstrap},
        "store": {"kind": "redis", "url": servers.redis_url},
        "runner": {"metrics_port": words.get("metrics_port")},
        "outputs": {
            **{k: topics[k] for k in WORKER_TOPICS if k != "scores"},
            "scores": {"topic": topics["scores"], "publish": "none"},
        },
    }
    document["decision"]["alert_rate"] = words.get("alert_rate", 0.005)
    document["events"]["topic"] = words.get("events", load.EVENTS)
    document["labels"]["topic"] = words.get("labels", load.LABELS)
    path = servers.work / f"{name}.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    load.create_topics(servers.bootstrap, [t for k, t in topics.items() if k != "training"])
    load.create_topics(servers.bootstrap, [topics["training"]], 1)
    try:
        yield path
    finally:
        load.delete_topics(servers.bootstrap, list(topics.values()))


def _middle(rounds: list[Figures]) -> Figures:
    """Return the round with the median speed."""
    return sorted(rounds, key=_rate)[len(rounds) // 2]


def _rate(figures: Figures) -> float:
    rate: float = figures["events"] / figures["seconds"]
    return rate


def _us(figures: Figures, seconds: float) -> float:
    events: int = figures["events"]
    return seconds / max(1, events) * 1e6  # a quick run may end within its warm-up


def _rows(figures: dict[str, Figures]) -> list[Row]:
    base = _rate(figures["obvious"])
    compiled, river = figures["compiled"], figures["river"]
    modelling = {**river, "seconds": river["stages"].get("model") or river["seconds"]}

    def speed(name: str, one: Figures) -> Row:
        return _row(name, _rate(one), "events/s", _rate(one) / base, "obvious_loop")

    return [
        _row("obvious_loop", base, "events/s"),
        speed("obvious_loop_in_process", figures["in_process"]),
        speed("pipeline", compiled),
        speed("pipeline_river", river),
        # As fast as the worker would be with River's own models if all the rest were free.
        speed("pipeline_river_models_alone", modelling),
        *_not_model("pipeline", compiled),
        *_not_model("pipeline_river", river),
        *_stages(compiled),
        *_ceiling(compiled, figures["transport"], base),
        *_recovery(compiled),
        *(
            _row(f"{name}_memory", one["memory_mb"], "MB")
            for name, one in (("obvious_loop", figures["obvious"]), ("pipeline", compiled))
        ),
        _row("pipeline_start_to_first_commit", compiled["startup_s"], "s"),
    ]


def _not_model(name: str, one: Figures) -> list[Row]:
    """Return time an event outside of the models: elapsed, and CPU of all threads."""
    stages = one["stages"]
    return [
        _row(f"{name}_not_model", _us(one, one["seconds"] - stages.get("model", 0.0)), "us/event"),
        _row(
            f"{name}_not_model_cpu",
            _us(one, one["cpu_seconds"] - stages.get("model_cpu", 0.0)),
            "us/event",
        ),
    ]


def _stages(one: Figures) -> list[Row]:
    """Return where the elapsed time goes; what is left is decode, features and outputs."""
    stages = {k: v for k, v in sorted(one["stages"].items()) if not k.endswith("_cpu")}
    rest_s = one["seconds"] - sum(stages.values())
    return [
        _row(f"pipeline_stage_{name}", _us(one, seconds), "us/event")
        for name, seconds in {**stages, "core": rest_s}.items()
    ]


def _recovery(compiled: Figures) -> list[Row]:
    """Return how fast one shard of the worker comes back, and all of them together.

    Live, a shard has its part of what the worker processes.
    """
    every, live = compiled["recovery"], _rate(compiled)
    one, shard = every["one"], live / every["partitions"]
    return [
        _row("pipeline_a_shard", shard, "events/s"),
        _row("recovery_of_a_shard", _rate(one), "events/s", _rate(one) / shard, "pipeline_a_shard"),
        _row("recovery_of_all_shards", _rate(every), "events/s", _rate(every) / live, "pipeline"),
    ]


def _ceiling(compiled: Figures, transport: Figures, base: float) -> list[Row]:
    """Return CPU an event of what no worker in Python does without, and what that allows."""
    parts = {
        "transport": _us(transport, transport["cpu_seconds"]),
        "model": _us(compiled, compiled["stages"].get("model_cpu", 0.0)),
        "kafka": _us(transport, transport["servers"][0]),
        "store": _us(transport, transport["servers"][1]),
    }
    rate = len(os.sched_getaffinity(0)) * 1e6 / sum(parts.values())
    return [
        _row("pipeline_cpu", _us(compiled, compiled["cpu_seconds"]), "us/event"),
        *(_row(f"pipeline_cpu_{name}", cpu_us, "us/event") for name, cpu_us in parts.items()),
        _row("pipeline_ceiling", rate, "events/s", rate / base, "obvious_loop"),
    ]


def _latency_rows(servers: Servers, rate: float, seconds: float) -> list[Row]:
    events, labels = "latency-events", "latency-labels"
    load.create_topics(servers.bootstrap, [events, labels])
    port = free_port()
    with worker_config(servers, "latency", events=events, labels=labels, metrics_port=port) as path:
        ages = alert_ages_ms(
            servers.bootstrap, path, port, (events, labels, "latency-alerts"), rate, seconds
        )
    ages.sort()
    return [
        _row("pipeline_half_load", rate, "events/s"),
        _row("pipeline_alerts_timed", len(ages), "alerts"),
        _row("pipeline_latency_p50", median(ages), "ms"),
        _row("pipeline_latency_p99", ages[int(len(ages) * 0.99)], "ms"),
    ]


def _row(
    name: str, value: float, unit: str, ratio: float | None = None, ratio_to: str | None = None
) -> Row:
    return {"name": name, "value": value, "unit": unit, "ratio": ratio, "ratio_to": ratio_to}


if __name__ == "__main__":
    for row in run(quick="--quick" in sys.argv):
        print(row)
