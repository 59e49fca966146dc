"""One rule of the Kafka client broken at a time: its test on a real broker must notice it.

``make mutants`` runs them behind those of the simulation, ``python -m tests.streams.mutants`` them
alone. Each test passes once with nothing broken, and then fails, or the mutant survives.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from io import StringIO
from typing import Any

import pytest
from kafka import errors

from tests.mutating import always, instead
from worker.streams import kafka_client, kafka_member
from worker.streams.kafka import KafkaStream
from worker.streams.kafka_log import KafkaLog
from worker.streams.kafka_member import Member, Membership
from worker.streams.kafka_transactions import Transactions, _send

_TESTS = "tests/streams/test_kafka_rules.py"
Breaks = Callable[[], AbstractContextManager[None]]


def _without_futures(_: Any) -> Any:
    def write(self: Any, outputs: Any) -> list[int]:
        self._producer.begin_transaction()
        for output in outputs:
            _send(self._producer, output)
        self._producer.flush(self._limit_s)
        return list(range(len(outputs)))

    return write


def _keep_producer(renew: Any) -> Any:
    def renewed(self: Any) -> None:
        if self._producer is None:
            renew(self)
        self._producer.abort_transaction()
        self._broken = False

    return renewed


def _membership_of_now(_: Any) -> Any:
    return lambda self, taken: replace(taken, metadata=self._consumer.group_metadata())


def _of_everything(current: Any) -> Any:
    def widened(self: Any, taken: Any) -> Membership | None:
        found: Membership | None = current(self, taken)
        return None if found is None else replace(found, assigned=frozenset(range(1_000)))

    return widened


def _whoever_waits(finish: Any) -> Any:
    def finished(self: Any, *arguments: Any) -> None:
        with suppress(errors.KafkaError):
            finish(self, *arguments)

    return finished


def _with(**options: Any) -> Callable[[Any], Any]:
    return lambda kind: lambda **settings: kind(**{**settings, **options})


MUTANTS: dict[str, tuple[Breaks, str]] = {
    "the client's membership at commit time": (
        partial(instead, Member, "current", _membership_of_now),
        "test_rule_a_a_commit_is_fenced_after_the_client_forgot_its_membership",
    ),
    "back in the group counts as never left": (
        partial(instead, kafka_member, "_follows", always(True)),
        "test_rule_a_a_partition_lost_and_regained_within_one_poll_is_shown_as_lost",
    ),
    "futures not checked": (
        partial(instead, Transactions, "_write", _without_futures),
        "test_rule_b_a_lost_record_is_never_committed[deny]",
    ),
    "producer kept after an error": (
        partial(instead, Transactions, "renew", _keep_producer),
        "test_rule_c_a_dead_transaction_leaves_no_offsets_for_the_next",
    ),
    "open transactions are read": (
        partial(instead, kafka_client, "KafkaConsumer", _with(isolation_level="read_uncommitted")),
        "test_rule_e_records_of_an_open_transaction_are_not_polled",
    ),
    "what a dead member left open is waited out": (
        partial(instead, KafkaLog, "end_abandoned", always(None)),
        "test_rule_e_committed_ends_what_a_dead_member_left_open",
    ),
    "what a living member has open is ended": (
        partial(instead, KafkaStream, "_slots", always(set())),
        "test_a_transaction_of_a_living_member_is_waited_for",
    ),
    "a request to a lost coordinator is lost": (
        partial(instead, kafka_client, "_retry_when_not_ready", always(None)),
        "test_rule_f_a_lost_coordinator_stalls_a_commit_and_does_not_fail_it",
    ),
    "a commit without an answer counts as done": (
        partial(instead, Transactions, "_finish", _whoever_waits),
        "test_rule_f_a_request_that_is_never_answered_ends_in_time",
    ),
    "a fenced producer goes on": (
        partial(instead, Member, "is_slot_taken", always(False)),
        "test_rule_h_a_fenced_producer_exits_where_another_process_has_its_slot",
    ),
    "the slot is never asked after": (
        partial(instead, Member, "_check_slot", always(None)),
        "test_rule_i_a_fenced_member_is_found_out_within_a_session",
    ),
    "a lost position begins anew": (
        partial(instead, kafka_client, "KafkaConsumer", _with(auto_offset_reset="earliest")),
        "test_rule_j_a_position_beyond_the_end_is_refused",
    ),
    "positions of others are committed": (
        partial(instead, Member, "current", _of_everything),
        "test_rule_a_positions_of_another_member_are_not_committed",
    ),
}
"""By name: breaks it for as long as the context lasts, and the test that must notice."""


@dataclass
class _Breaker:
    """A plugin of pytest: runs each test with a rule broken; ``failed`` are those that noticed."""

    by_test: dict[str, Breaks]
    passed: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        if (breaks := self.by_test.get(item.name)) is None:
            return (yield)
        with breaks():
            return (yield)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call":
            name = report.nodeid.partition("::")[2]
            (self.failed if report.failed else self.passed).append(name)


def caught() -> Iterator[tuple[str, str, bool]]:
    """Yield the name of each mutant, its test, and whether that fails for it and for it only."""
    tests = {test for _, test in MUTANTS.values()}
    assert len(tests) == len(MUTANTS), "a test for each"
    whole, broken = _Breaker({}), _Breaker({test: breaks for breaks, test in MUTANTS.values()})
    for plugin in (whole, broken):
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            pytest.main(["-q", *(f"{_TESTS}::{test}" for test in tests)], plugins=[plugin])
    for name, (_, test) in MUTANTS.items():
        yield name, test, test in whole.passed and test in broken.failed


def line(name: str, test: str, is_caught: bool) -> str:
    """Return the row of a mutant."""
    return f"{name:44} {'caught' if is_caught else 'SURVIVES'}, by {test}"


def main() -> int:
    """Print the table; return 1 when one survives, as a command does."""
    found = list(caught())
    for row in found:
        print(line(*row))
    return 0 if all(is_caught for _, _, is_caught in found) else 1


if __name__ == "__main__":
    sys.exit(main())
