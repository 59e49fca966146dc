"""Is there a broker, and has it the topic: asked first, because a client would only time out."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable
from typing import Any

from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError

from worker.errors import TransientError

_CONNECT_SECONDS = 5.0
_ATTEMPTS, _WAIT_SECONDS = 6, 0.2


def count_partitions(bootstrap: str, topics: Iterable[str]) -> dict[str, int]:
    """Return the number of partitions of each topic.

    Raises
    ------
    TransientError
        No broker answers at ``bootstrap`` (``host:port``, or several by comma), or a topic is not
        there: start it or create it, then try again.
    """
    _reach(bootstrap)
    names = sorted(set(topics))
    try:
        admin = KafkaAdminClient(
            bootstrap_servers=bootstrap, bootstrap_timeout_ms=10_000, request_timeout_ms=10_000
        )
        try:
            counts = _described(admin, names)
        finally:
            admin.close()
    except KafkaError as error:
        raise away(bootstrap, error) from error
    for name in names:
        if not counts.get(name):
            hint = "riverwatch topics -c FILE --create"
            raise TransientError(f"topic {name}", "an existing topic", "none of this name", hint)
    return counts


def _described(admin: Any, names: list[str]) -> dict[str, int]:  # Any: kafka-python ships no types
    """Return the partition counts that the broker knows, asking again where it knows none.

    A topic that was created a moment ago may not be in the broker's own metadata yet.
    """
    counts: dict[str, int] = {}
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(_WAIT_SECONDS)
        counts = {t["name"]: len(t["partitions"]) for t in admin.describe_topics(names)}
        if all(counts.get(name) for name in names):
            break
    return counts


def away(bootstrap: str, error: Exception) -> TransientError:
    """Return the error of a broker that does not answer."""
    return TransientError(
        f"kafka at {bootstrap}", "a broker", type(error).__name__, "is it running there?"
    )


def _reach(bootstrap: str) -> None:
    """Return when any of the addresses takes a connection."""
    problem: OSError = ConnectionError()
    for address in bootstrap.split(","):
        host, _, port = address.strip().rpartition(":")
        if not host or not port.isdigit():
            raise ValueError(f"--bootstrap: expected host:port, got {address!r}")
        try:
            socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()
        except OSError as error:
            problem = error
        else:
            return
    raise away(bootstrap, problem) from problem
