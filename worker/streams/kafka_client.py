"""Building kafka-python clients: proved settings, repairs of private parts, causes of failure.

Everything that knows the inside of kafka-python is in this module. What was measured, on
kafka-python 3.0.12 against Apache Kafka 4.3.1, is in docs/design.md, "Ten rules of the client".
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import kafka
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.errors import KafkaConnectionError, KafkaTimeoutError

from worker.contracts.settings import KafkaSettings
from worker.errors import ConfigError, RiverwatchError, TransientError
from worker.streams.kafka_batches import with_fast_rows

REPAIRED_VERSIONS: Final = ("3.0.12",)
"""Versions whose private parts the repairs were proved on.

On any other version they are left out: bounded waits still keep every promise, but a restarted
coordinator then costs a rebuild of the producer (K) and much CPU while it is down (N).
"""

_RETRY_BACKOFF_MS = 10  # slept between transactions: p50 16 ms against 118 ms with the default 100
_METADATA_AGE_MS = 15_000
_ADMIN_WAIT_MS = 4_000
_METADATA_BACKOFF_MS = 20  # without a leader it asks as often
_READER_WAIT_MS = 10
_BATCH_BYTES = 262_144
_LOOKUP_PAUSE_S = 0.1
_RECONNECT_PAUSE_S = 0.05
_REPEAT_S = 10.0

# Rows: a sign in the client's log, what it means, and whether waiting may help.
_CAUSES: Final = (
    ("SaslAuthenticationFailed", "wrong user name or password", False),
    ("CERTIFICATE_VERIFY_FAILED", "the broker's certificate is not signed by ssl_cafile", False),
    (
        "UNEXPECTED_EOF_WHILE_READING",
        "TLS spoken to a plaintext port, see security_protocol",
        False,
    ),
    ("InvalidReceiveError", "plaintext spoken to a TLS port, see security_protocol", False),
    ("socket disconnected", "the broker closed: sasl_mechanism not enabled there?", True),
    ("ECONNREFUSED", "connection refused: is the broker running?", True),
    ("DNS", "host name not found", True),
)


class ClientLog(logging.Handler):
    """Passes on what the client logs, each text at most once per 10 s, and keeps the last ones.

    A lost coordinator writes thousands of lines a second otherwise. A failed start says only
    "unable to bootstrap"; its reason is nowhere but in the log.
    """

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        super().__init__(logging.WARNING)
        self._clock_s = clock_s
        self._said_s: dict[tuple[str, str], float] = {}
        self.problems: deque[str] = deque(maxlen=20)
        self.is_told = True  # not while a client is built: an error says what is wrong

    def emit(self, record: logging.LogRecord) -> None:
        """Forward a record to the root logger's handlers unless its text was said just now."""
        if record.name == "kafka.net.selector" and record.levelno < logging.ERROR:
            return  # a busy machine, said several times a minute
        if record.name.startswith("kafka.net"):
            self.problems.append(record.getMessage())
        # The template, not the text: node ids and ports vary.
        key, now_s = (record.name, str(record.msg)[:80]), self._clock_s()
        if now_s - self._said_s.get(key, -_REPEAT_S) >= _REPEAT_S:
            if len(self._said_s) > 1_000:
                self._said_s.clear()
            self._said_s[key] = now_s
            root = logging.getLogger()
            if root.handlers and self.is_told:  # without any nobody wanted a log
                root.handle(record)


_LOG = ClientLog()


def quiet_client_logs() -> None:
    """Send the loggers below ``kafka`` through one `ClientLog`. Repeating it is harmless."""
    logger = logging.getLogger("kafka")
    if _LOG not in logger.handlers:
        logger.addHandler(_LOG)
        logger.setLevel(logging.WARNING)
        logger.propagate = False


def make_consumer(settings: KafkaSettings, group: str | None, slot: str | None) -> Any:
    """Return a consumer that sees committed records only and never moves by itself."""
    member = {}
    if group is not None:
        member = {
            "group_id": group,
            "group_instance_id": slot,
            "partition_assignment_strategy": _range_assignor(),
            "session_timeout_ms": settings.session_timeout,
            # Members hear by the next heartbeat that one of them is dead.
            "heartbeat_interval_ms": min(1_000, settings.session_timeout // 3),
        }
    consumer = _build(
        KafkaConsumer,
        settings,
        **member,
        isolation_level="read_committed",
        enable_auto_commit=False,
        auto_offset_reset="none",
        # A reader's connection is lent again, and then waits for what was asked last.
        fetch_max_wait_ms=_READER_WAIT_MS if group is None else 100,
        max_partition_fetch_bytes=2_097_152,
        request_timeout_ms=max(_request_timeout_ms(settings), settings.session_timeout + 1_000),
        retry_backoff_ms=_RETRY_BACKOFF_MS,
        metrics_enabled=False,  # nobody reads them
    )
    if _repairable():
        fetcher = consumer._fetcher
        fetcher.PartitionRecords = with_fast_rows(fetcher.PartitionRecords)
        # Repair M: the client does not hand its back-off on. Whoever asks for a topic that it does
        # not know yet waits for 100 ms since it asked for any: half a second of a start.
        consumer._manager.cluster.config["retry_backoff_ms"] = _METADATA_BACKOFF_MS
    if group is not None:
        _pace_coordinator_lookup(consumer)
    return consumer


def make_producer(settings: KafkaSettings, transactional_id: str) -> Any:
    """Return a transactional producer that was not initialised yet.

    request < delivery < transaction timeout: otherwise the broker ends a transaction while the
    client still retries its records. With the default of 30 s they are 10, 20 and 30 s.
    """
    producer = _build(
        KafkaProducer,
        settings,
        transactional_id=transactional_id,
        transaction_timeout_ms=settings.transaction_timeout,
        request_timeout_ms=_request_timeout_ms(settings),
        delivery_timeout_ms=settings.transaction_timeout * 2 // 3,
        max_block_ms=_request_timeout_ms(settings),
        retry_backoff_ms=_RETRY_BACKOFF_MS,
        linger_ms=50,  # every transaction is flushed; this lets batches fill until then
        # A batch that must be split loses the transaction, so it stays below max.message.bytes.
        batch_size=min(_BATCH_BYTES, settings.message_bytes_max),
        max_request_size=4 * 1_048_576,
        compression_type="lz4",
        metrics_enabled=False,  # nobody reads them
    )
    _retry_when_not_ready(producer)
    return producer


def make_admin(settings: KafkaSettings) -> Any:
    """Return an admin client: for people, who wait no longer than a few seconds for a broker."""
    request_timeout_ms = _request_timeout_ms(settings)
    return _build(
        KafkaAdminClient,
        settings,
        request_timeout_ms=request_timeout_ms,
        bootstrap_timeout_ms=min(request_timeout_ms, _ADMIN_WAIT_MS),
    )


def wait_limit_s(settings: KafkaSettings) -> float:
    """Return how long one step of a transaction may take: longer than a failover, 25 of 30 s."""
    return settings.transaction_timeout / 1000 * 5 / 6


def needs_rejoin(consumer: Any) -> bool:
    """Return whether the next poll will join the group, or go on with a join that took too long."""
    coordinator = getattr(consumer, "_coordinator", None)
    ask = getattr(coordinator, "need_rejoin", None)
    return ask is not None and (bool(ask()) or _is_joining(coordinator))


def join_group(consumer: Any, timeout_ms: int) -> int:
    """Join the group, within that time; return how long the next poll must last for its sake.

    It must not be cut short: a join that is given up half way is mostly repeated, and each costs
    every member a rebalance. By itself a poll that joins waits out its time although it has joined,
    for what is new is parked. And it forgets a join that took longer, where the reason to join was
    that topics changed: it is "rebalancing" for ever, without heartbeats. So it is asked for again.
    """
    if not _repairable():
        return timeout_ms
    coordinator = consumer._coordinator
    if _is_joining(coordinator):
        coordinator.request_rejoin()
    coordinator.poll(timeout_ms=timeout_ms)
    return 0


def _is_joining(coordinator: Any) -> bool:
    return getattr(coordinator, "_join_task", None) is not None


def release_drained(consumer: Any) -> None:
    """Let a consumer take parked records up again; to be called before every poll.

    A partition that is paused while it is partly consumed has its records parked. They come back
    only when nothing is in line, and a drained partition stays in line for ever: after a pause
    0 of 400 records came back in 5 s, with this all of them.
    """
    fetcher = consumer._fetcher
    if _repairable() and not fetcher._next_partition_records:  # None, or drained
        fetcher._next_partition_records = None


def ask_ahead(consumer: Any) -> None:
    """Send what the first poll after a seek would send, where the topic's leader is known."""
    if _repairable():
        consumer._fetcher.send_fetches()


def _request_timeout_ms(settings: KafkaSettings) -> int:
    return settings.transaction_timeout // 3


def _range_assignor() -> list[Any]:
    """Return the assignor that gives events-p and labels-p to one member when counts are equal."""
    from kafka.coordinator.assignors.range import RangePartitionAssignor

    return [RangePartitionAssignor]


def _build(kind: Any, settings: KafkaSettings, **options: Any) -> Any:
    """Return a connected client.

    Raises
    ------
    ConfigError
        Waiting cannot help: wrong password, TLS, missing file.
    TransientError
        Nobody answers there, for now.
    """
    quiet_client_logs()
    _check_ca_file(settings)
    _LOG.problems.clear()
    _LOG.is_told = False
    try:
        return kind(
            **_connection(settings),
            **{"bootstrap_timeout_ms": _request_timeout_ms(settings), **options},
            metadata_max_age_ms=_METADATA_AGE_MS,
        )
    except (KafkaTimeoutError, KafkaConnectionError) as error:
        raise _cause(settings, list(_LOG.problems)) from error
    finally:
        _LOG.is_told = True


def _connection(settings: KafkaSettings) -> dict[str, Any]:
    password = settings.sasl_password
    options = {
        "bootstrap_servers": [one.strip() for one in settings.bootstrap_servers.split(",")],
        "security_protocol": settings.security_protocol,
        "sasl_mechanism": settings.sasl_mechanism,
        "sasl_plain_username": settings.sasl_username,
        "sasl_plain_password": None if password is None else password.get_secret_value(),
        "ssl_cafile": settings.ssl_cafile,
    }
    return {name: value for name, value in options.items() if value is not None}


def _check_ca_file(settings: KafkaSettings) -> None:
    # The client would retry a missing file until its timeout.
    if settings.ssl_cafile is not None and not Path(settings.ssl_cafile).is_file():
        raise ConfigError("stream.ssl_cafile", expected="a file", got=settings.ssl_cafile)


def _cause(settings: KafkaSettings, problems: list[str]) -> RiverwatchError:
    """Return the error for a failed start, with the reason that the client only logged."""
    where = f"kafka {settings.bootstrap_servers}"
    for sign, meaning, may_pass in _CAUSES:
        if any(sign in problem for problem in problems):
            return (TransientError if may_pass else ConfigError)(where, got=meaning)
    return TransientError(where, "an answer", problems[0][:200] if problems else "none in time")


def _repairable() -> bool:
    return kafka.__version__ in REPAIRED_VERSIONS


def _retry_when_not_ready(producer: Any) -> None:
    """Repair K: make a transactional request wait for its coordinator instead of being lost.

    The sender takes a request from its queue and calls ``await_ready(coordinator)``, which raises
    where it cannot connect; the request is then dropped and commit, abort and offsets never
    answer, also after a graceful restart of a broker. When ``await_ready`` answers False instead,
    the sender looks the coordinator up and queues the request again: a stall, no error.
    """
    if not _repairable():
        return
    client = producer._sender._client
    await_ready = client.await_ready

    def answer(node_id: object, timeout_ms: int = 30_000) -> bool:
        try:
            return bool(await_ready(node_id, timeout_ms=timeout_ms))
        except KafkaConnectionError:
            time.sleep(_RECONNECT_PAUSE_S)  # this is the sender's own thread
            return False

    client.await_ready = answer


def _pace_coordinator_lookup(consumer: Any) -> None:
    """Repair N: keep two lookups of the group's coordinator at least 0.1 s apart.

    While the coordinator is down the client looks it up again at once: up to 1,900 lookups a
    second and 70 % of a core.
    """
    if not _repairable():
        return
    coordinator = consumer._coordinator
    lookup, net = coordinator._send_group_coordinator_request, coordinator._net
    last_s = -_LOOKUP_PAUSE_S

    async def paced() -> Any:
        nonlocal last_s
        wait_s = last_s + _LOOKUP_PAUSE_S - time.monotonic()
        if wait_s > 0:
            await net.sleep(wait_s)
        last_s = time.monotonic()
        return await lookup()

    coordinator._send_group_coordinator_request = paced
