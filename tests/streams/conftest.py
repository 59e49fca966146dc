"""A harness of each kind of stream."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.streams.harness import KINDS, Harness, KafkaHarness


@pytest.fixture(params=[pytest.param(k, marks=[pytest.mark.kafka] * (k == "kafka")) for k in KINDS])
def harness(request: pytest.FixtureRequest) -> Iterator[Harness]:
    """Return an empty log with streams over it, once per kind."""
    made = KINDS[request.param](request)
    yield made
    made.close()


@pytest.fixture
def world(kafka: str) -> Iterator[KafkaHarness]:
    """Return fresh topics on the shared broker."""
    made = KafkaHarness(kafka)
    yield made
    made.close()
