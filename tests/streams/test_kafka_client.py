"""What the clients log, and the reasons of a failed start."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.services.process import free_port
from worker.contracts.settings import KafkaSettings
from worker.errors import ConfigError, TransientError
from worker.streams.kafka_client import ClientLog, make_admin, make_consumer


class Kept(logging.Handler):
    """Keeps what reaches the root logger."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


@pytest.fixture
def kept() -> Iterator[Kept]:
    """Return a handler of the root logger."""
    handler = Kept()
    logging.getLogger().addHandler(handler)
    yield handler
    logging.getLogger().removeHandler(handler)


def line(name: str, text: str, *arguments: object) -> logging.LogRecord:
    """Return a warning of a logger."""
    return logging.LogRecord(name, logging.WARNING, "", 0, text, arguments, None)


def test_a_repeated_line_of_the_client_is_passed_on_once_in_ten_seconds(kept: Kept) -> None:
    """Lines of one template count as one, whatever node they name; other lines are not held."""
    now_s = 0.0
    log = ClientLog(lambda: now_s)
    for node in range(1_000):
        log.emit(line("kafka.coordinator", "Marking the coordinator dead (node %d)", node))
    log.emit(line("kafka.coordinator", "something else"))
    assert kept.texts == ["Marking the coordinator dead (node 0)", "something else"]
    now_s = 10.0
    log.emit(line("kafka.coordinator", "Marking the coordinator dead (node %d)", 7))
    assert kept.texts[2:] == ["Marking the coordinator dead (node 7)"]


def test_a_port_where_nobody_listens_is_named_with_the_reason() -> None:
    """The client says only that it was unable to bootstrap; waiting may help."""
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(TransientError, match=f"kafka {address}.*connection refused"):
        make_admin(KafkaSettings(bootstrap_servers=address, transaction_timeout="3s"))


def test_a_failed_start_is_one_error_and_no_lines_of_the_client(kept: Kept) -> None:
    """What it logs five times over is in the error already; later lines are passed on again."""
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(TransientError):
        make_admin(KafkaSettings(bootstrap_servers=address, transaction_timeout="3s"))
    assert kept.texts == []
    logging.getLogger("kafka.something").error("later")
    assert kept.texts == ["later"]


@pytest.mark.kafka
def test_tls_spoken_to_a_plaintext_port_is_a_mistake_of_the_configuration(kafka: str) -> None:
    """Waiting cannot help; the message names the setting."""
    with pytest.raises(ConfigError, match="security_protocol"):
        make_admin(
            KafkaSettings(
                bootstrap_servers=kafka, security_protocol="SSL", transaction_timeout="3s"
            )
        )


def test_a_missing_ca_file_is_found_before_any_connection(tmp_path: Path) -> None:
    """The client would retry it until its timeout."""
    missing = str(tmp_path / "ca.pem")
    with pytest.raises(ConfigError, match="ssl_cafile: expected a file"):
        make_admin(KafkaSettings(security_protocol="SSL", ssl_cafile=missing))


@pytest.mark.kafka
def test_a_consumer_asks_for_an_unknown_topic_at_once(kafka: str) -> None:
    """By itself the client lets 100 ms pass since it asked for any; it says how long it waits."""
    consumer = make_consumer(KafkaSettings(bootstrap_servers=kafka), None, None)
    try:
        cluster = consumer._manager.cluster
        cluster.request_update()
        assert cluster.ttl() <= 20
    finally:
        consumer.close()
