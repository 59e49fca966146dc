"""Servers that tests share: started once per run, when the first test asks for them."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.services.kafka import KafkaServer
from tests.services.valkey import ValkeyServer


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
