"""What tests share: servers, started when the first test asks for them, and a log as it was."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import structlog

from tests.services.kafka import KafkaServer
from tests.services.valkey import ValkeyCluster, ValkeyServer


@pytest.fixture(autouse=True)
def plain_logs() -> Iterator[None]:
    """Undo what a command that ran in this process made of the log."""
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def kafka() -> Iterator[str]:
    """Return the bootstrap address of a real broker: ``RIVERWATCH_TEST_KAFKA`` or our own."""
    running = os.environ.get("RIVERWATCH_TEST_KAFKA")
    if running:
        yield running
        return
    with KafkaServer() as server:
        yield server.bootstrap


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """Return the URL of a real Redis or Valkey: ``RIVERWATCH_TEST_REDIS`` or our own."""
    running = os.environ.get("RIVERWATCH_TEST_REDIS")
    if running:
        yield running
        return
    with ValkeyServer() as server:
        yield server.url


@pytest.fixture(scope="session")
def redis_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyCluster]:
    """Return a real cluster of three servers."""
    with ValkeyCluster(3, tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster
