"""A right that is missing in Kafka is named: which operation, on what."""

from __future__ import annotations

import pytest
from kafka import errors

from worker.errors import FatalError
from worker.streams.kafka_log import denied, reading_failed


@pytest.mark.parametrize(
    ("error", "right"),
    [
        (errors.TopicAuthorizationFailedError({"journal"}), "Read on the topic"),
        (errors.GroupAuthorizationFailedError("cards"), "Read on the group"),
    ],
)
def test_a_right_to_read_is_named(error: errors.KafkaError, right: str) -> None:
    """It is fatal: waiting gives nobody a right."""
    found = reading_failed("input of cards", error)
    assert isinstance(found, FatalError)
    assert str(found).startswith(f"input of cards: expected the right {right}, got ")
    assert "docs/operations.md, Rights in Kafka" in str(found)


@pytest.mark.parametrize(
    ("error", "right"),
    [
        (errors.TopicAuthorizationFailedError("alerts"), "Write on the topic"),
        (errors.TransactionalIdAuthorizationFailedError("w.0"), "Write on the transactional id"),
        (errors.GroupAuthorizationFailedError("w"), "Read on the group"),
        (errors.ClusterAuthorizationFailedError("x"), "IdempotentWrite on the cluster"),
    ],
)
def test_a_right_to_write_is_named(error: errors.KafkaError, right: str) -> None:
    """With the client's own words, which have the topic."""
    found = str(denied("transaction w.0", error, "Write"))
    assert found.startswith(f"transaction w.0: expected the right {right}, got {error}")
