"""From produce to alert: the real command, a paced producer, and an independent consumer."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from confluent_kafka import Consumer, TopicPartition

from benchmarks.load import PARTITIONS

_WARM_UP_S = 3.0
_START_S = 60.0


def alert_ages_ms(
    bootstrap: str,
    config: Path,
    metrics_port: int,
    topics: tuple[str, str, str],
    rate: float,
    seconds: float,
) -> list[float]:
    """Return milliseconds from the sending of each event to the receipt of its alert.

    Parameters
    ----------
    topics
        Of events, labels and alerts.
    rate, seconds
        Load in events/s, for that long after a warm-up whose alerts do not count.
    """
    with _worker(config, metrics_port), _alerts(bootstrap, topics[2]) as consumer:
        command = [sys.executable, "-m", "benchmarks.load", bootstrap, *topics[:2]]
        producer = subprocess.Popen([*command, str(rate), str(seconds + _WARM_UP_S)])
        try:
            return list(_ages_ms(consumer, producer))
        finally:
            producer.kill()
            producer.wait()


def _ages_ms(consumer: Consumer, producer: subprocess.Popen[bytes]) -> Iterator[float]:
    """Yield ages until a second after the producer has ended; event time is when it was sent."""
    first_ms, ended_s = 0, 0.0
    while not ended_s or time.monotonic() - ended_s < 1:
        if not ended_s and producer.poll() is not None:
            ended_s = time.monotonic()
        for message in consumer.consume(100, 0.01):
            now_ms = time.time_ns() / 1e6
            sent_ms = json.loads(message.value() or b"")["time_ms"]
            first_ms = first_ms or sent_ms
            if sent_ms - first_ms >= _WARM_UP_S * 1000:
                yield now_ms - sent_ms


@contextmanager
def _alerts(bootstrap: str, topic: str) -> Iterator[Consumer]:
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": uuid.uuid4().hex,
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "fetch.wait.max.ms": 10,
        }
    )
    consumer.assign([TopicPartition(topic, p, 0) for p in range(PARTITIONS)])
    try:
        yield consumer
    finally:
        consumer.close()


@contextmanager
def _worker(config: Path, metrics_port: int) -> Iterator[None]:
    """Run ``riverwatch run`` and wait until it is ready."""
    command = [sys.executable, "-m", "worker.cli", "run", "-c", str(config)]
    log = config.with_suffix(".log")
    with log.open("wb") as out:
        worker = subprocess.Popen(command, stdout=out, stderr=out)
    try:
        deadline_s = time.monotonic() + _START_S
        while not _is_ready(metrics_port):
            if worker.poll() is not None or time.monotonic() > deadline_s:
                raise RuntimeError(f"the worker did not start:\n{log.read_text()[-4_000:]}")
            time.sleep(0.1)
        yield
    finally:
        worker.terminate()
        worker.wait(30)


def _is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
