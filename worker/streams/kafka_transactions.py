"""One transaction per commit, on a producer that is thrown away after any doubt."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from kafka import TopicPartition as KafkaPartition
from kafka import errors
from kafka.structs import OffsetAndMetadata

from worker.contracts.records import Output
from worker.contracts.settings import KafkaSettings
from worker.contracts.slots import transactional_id
from worker.errors import (
    FatalError,
    RiverwatchError,
    StateLostError,
    TransientError,
    UnansweredError,
)
from worker.streams import TopicPartition
from worker.streams.kafka_client import make_producer, wait_limit_s
from worker.streams.kafka_log import denied

_ABORT_S = 2.0
_SETTLE_S = 2.0
_INIT_MS = 15_000


class Transactions:
    """Writes outputs and positions as one unit.

    The order of `commit` is fixed; each step is there because a commit can succeed without it:

    1. begin, send. 2. Flush, look at every future: else the commit succeeds although a record was
    lost. 3. Offsets, under the membership that delivered the records. 4. Commit.

    Every wait is bounded. After any error the producer is not used again, for it may carry offsets
    and records of the dead transaction into the next one; `renew` builds another, which settles
    the dead one first. Only then the group's offsets tell whether it was committed.

    Parameters
    ----------
    transactional_id
        Of this slot. A process that initialises the same id fences this one.
    is_taken
        Whether another process has this slot. A fenced producer alone does not say so: the broker
        ends a transaction that took too long, and another worker that of a slot where nobody was.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        transactional_id: str,
        is_taken: Callable[[], bool] = lambda: True,
    ) -> None:
        self._settings = settings
        self._id = transactional_id
        self._is_taken = is_taken
        self._limit_s = wait_limit_s(settings)
        self._broken = True
        self._producer: Any = None
        self.renew()

    def renew(self) -> None:
        """Throw the producer away and build one that has settled what the last one left behind.

        Raises
        ------
        TransientError
            The coordinator does not answer: repeat it.
        FatalError
            Not allowed to use the transactional id.
        """
        self._discard()
        self._producer = make_producer(self._settings, self._id)
        try:
            result = self._manager.initialize_transactions()
            self._wake()
            _await(result, _INIT_MS / 1000, "the transactional id was not initialised")
        except errors.KafkaError as error:
            self._discard()
            raise self._translated(error, TransientError) from error
        self._broken = False

    def commit(
        self, outputs: Sequence[Output], positions: Mapping[TopicPartition, int], member: Any
    ) -> list[int]:
        """Return the offset of each output, committed together with the positions.

        Parameters
        ----------
        member
            The group metadata taken right after the poll that delivered the records.

        Raises
        ------
        StateLostError
            Not known to be committed: `renew`, then ask for the committed offsets.
        FatalError
            Another process has this slot, a record is too large, or permission is missing.
        """
        if self._broken:
            raise StateLostError(f"transaction {self._id}", got="a producer that failed before")
        self._broken = True
        try:
            offsets = self._write(outputs)
            self._finish(positions, member)
        except (errors.KafkaError, ValueError) as error:
            raise self._translated(self._settled(error), StateLostError) from error
        self._broken = False
        return offsets

    def close(self) -> None:
        """Give back the sockets. A transaction that is still open is aborted."""
        self._discard()

    def _write(self, outputs: Sequence[Output]) -> list[int]:
        producer = self._producer
        producer.begin_transaction()
        futures = [_send(producer, output) for output in outputs]
        if futures:
            producer.flush(self._limit_s)
        return [future.get(0).offset for future in futures]

    def _finish(self, positions: Mapping[TopicPartition, int], member: Any) -> None:
        offsets = {
            KafkaPartition(*place): OffsetAndMetadata(offset, "", -1)
            for place, offset in positions.items()
        }
        if offsets:
            result = self._manager.send_offsets_to_transaction(offsets, member)
            self._wake()
            _await(result, self._limit_s, "offsets were not answered")
        result = self._manager.begin_commit()
        self._wake()
        _await(result, self._limit_s, "the commit was not answered")

    @property
    def _manager(self) -> Any:
        return self._producer._transaction_manager

    def _wake(self) -> None:
        self._producer._sender.wakeup()

    def _settled(self, error: Exception) -> Exception:
        """Return what a bumped epoch really means: the client asks the broker and then knows.

        A fenced producer whose batch is on its way gets ``InvalidProducerEpochError`` first and
        ``ProducerFencedError`` when it asks for a new epoch.
        """
        if not isinstance(error, errors.InvalidProducerEpochError):
            return error
        deadline_s = time.monotonic() + _SETTLE_S
        while self._manager.is_bumping_epoch() and time.monotonic() < deadline_s:
            time.sleep(0.005)
        last: Exception | None = self._manager.last_error
        return last or error

    def _translated(self, error: Exception, otherwise: type[RiverwatchError]) -> RiverwatchError:
        """Return what the caller should do about a failed transaction."""
        causes = _causes(error)
        text = f"{type(error).__name__}: {error}"
        where = f"transaction {self._id}"
        slot = "start one worker per slot; exit and let the supervisor decide"
        if any(isinstance(c, errors.FencedInstanceIdError) for c in causes):
            return FatalError(where, "to be the only member of this slot", "another one", slot)
        if any(isinstance(c, errors.ProducerFencedError) for c in causes):
            if self._is_taken():
                return FatalError(where, "to be the only producer of this slot", text, slot)
            return StateLostError(where, "to be the last with this id", text)
        if any(isinstance(c, errors.MessageSizeTooLargeError) for c in causes):
            small = "lower stream.message_bytes_max or raise max.message.bytes of all outputs"
            return FatalError(where, "outputs that the topic takes", "a larger one", small)
        if any(isinstance(c, errors.InvalidTimestampError) for c in causes):
            hint = "set this machine's clock; message.timestamp.before.max.ms must not be set"
            return FatalError(where, "timestamps that the topic takes", text, hint)
        for cause in causes:
            if isinstance(cause, errors.AuthorizationError):
                return denied(where, cause, "Write")
        # The transaction manager keeps of a request that timed out the words alone.
        is_late = "RequestTimedOutError" in text
        if is_late or any(isinstance(c, errors.KafkaTimeoutError) for c in causes):
            otherwise = UnansweredError if otherwise is StateLostError else otherwise
            return otherwise(where, "an answer in time", text)
        return otherwise(where, got=text)

    def _discard(self) -> None:
        """End the producer and, when the broker answers soon, its open transaction."""
        producer, self._producer = self._producer, None
        self._broken = True
        if producer is None:
            return
        with suppress(errors.KafkaError):
            # Refused in every state but an open transaction; the next `renew` settles the rest.
            result = producer._transaction_manager.begin_abort()
            producer._sender.wakeup()
            result.wait(timeout_ms=_ABORT_S * 1000)
        # close() alone waits for records that a silent broker will never take.
        producer._sender.force_close()
        producer._sender.join(_SETTLE_S)
        with suppress(errors.KafkaError):
            producer.close(timeout=_SETTLE_S)


class NamedWriter:
    """Writes under a name of the group; a process that asks for the name later takes it over."""

    def __init__(self, settings: KafkaSettings, group: str, name: str) -> None:
        self._transactions = Transactions(settings, transactional_id(group, name), lambda: False)

    def write(self, outputs: Sequence[Output]) -> None:
        """Write outputs as one transaction."""
        self._transactions.commit(outputs, {}, None)

    def close(self) -> None:
        """Give back the sockets."""
        self._transactions.close()


def _send(producer: Any, output: Output) -> Any:
    # The client refuses a record without key and value: the dead letter of a bare tombstone.
    key = b"" if output.key is None and output.value is None else output.key
    return producer.send(
        output.topic,
        value=output.value,
        key=key,
        headers=list(output.headers),
        partition=output.partition,
        # A broker refuses times an hour ahead of its own, which events may be.
        timestamp_ms=min(output.timestamp_ms, time.time_ns() // 1_000_000),
    )


def _await(result: Any, limit_s: float, otherwise: str) -> None:
    """Wait for the transaction manager's answer; the public methods would wait for ever."""
    if not result.wait(timeout_ms=limit_s * 1000):
        raise errors.KafkaTimeoutError(f"{otherwise} in {limit_s:g} s")


def _causes(error: BaseException) -> list[BaseException]:
    """Return an error and those inside of it: the client puts causes into its arguments."""
    inner = [a for a in (*error.args, error.__cause__) if isinstance(a, BaseException)]
    return [error, *(cause for one in inner for cause in _causes(one))]
