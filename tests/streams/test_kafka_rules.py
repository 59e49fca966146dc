"""The ten rules of `worker.streams.kafka`, each on a real broker, some behind a lossy proxy."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from typing import Any

import kafka
import pytest
from kafka import TopicPartition
from kafka.structs import MemberState, OffsetAndMetadata

from tests.services.kafka import KafkaServer
from tests.services.process import free_port
from tests.services.proxy import ADD_OFFSETS, END_TXN, FIND_COORDINATOR, PRODUCE, Action, Proxy
from tests.streams.harness import (
    KafkaHarness,
    join,
    journal,
    polls,
    read,
    start,
    together,
    visible,
)
from worker.contracts.records import Output
from worker.contracts.slots import transactional_id
from worker.errors import FatalError, StateLostError, UnansweredError
from worker.streams import kafka_client
from worker.streams.kafka import KafkaStream
from worker.streams.kafka_member import _JOIN_MS

pytestmark = pytest.mark.kafka


@pytest.fixture(scope="module")
def proxy() -> Iterator[Proxy]:
    """Return a proxy in front of a broker of its own."""
    port = free_port()
    properties = {"advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}"}
    with KafkaServer(properties=properties) as server:
        made = Proxy(server.port, port)
        yield made
        made.close()


@pytest.fixture
def lossy(proxy: Proxy) -> Iterator[KafkaHarness]:
    """Return fresh topics behind the proxy, with a transaction timeout of 6 s."""
    made = KafkaHarness(proxy.bootstrap, transaction_timeout="6s")
    yield made
    proxy.rule, proxy.refuse = lambda key: "pass", False
    made.close()


def lose(proxy: Proxy, api_key: int, action: Action) -> None:
    """Apply an action to every request of one kind from now on."""
    proxy.rule = lambda key: action if key == api_key else "pass"


def heal(proxy: Proxy) -> None:
    """Let everything through again."""
    proxy.rule = lambda key: "pass"


def forget_membership(world: KafkaHarness, stream: KafkaStream) -> None:
    """Evict a member and wait, without a poll, until its client has heard of it."""
    world.evict("0")
    client = stream._member._consumer
    deadline_s = time.monotonic() + 20
    while client.group_metadata().generation_id > 0:
        assert time.monotonic() < deadline_s


def test_rule_a_a_commit_is_fenced_after_the_client_forgot_its_membership(
    world: KafkaHarness,
) -> None:
    """The client's own metadata then says "no member", which an empty group accepts unfenced."""
    stream = world.stream()
    generation = start(stream).generation
    forget_membership(world, stream)
    other = world.stream("1")
    other.commit(start(other).generation, [], {(world.events, 0): 100})
    other.close()
    with pytest.raises(StateLostError):
        stream.commit(generation, [journal(world)], {(world.events, 0): 25})
    stream.recover()
    assert stream.committed(0) == (100, 0)
    assert visible(stream, world.outputs.journal) == []


def test_rule_a_positions_of_another_member_are_not_committed(world: KafkaHarness) -> None:
    """The broker checks that the member is one, not what it owns."""
    one, two = world.stream("0"), world.stream("1")
    found = together([one, two], lambda found: all(len(p.assigned) == 1 for p in found))
    (foreign,) = found[1].assigned
    with pytest.raises(StateLostError, match="assigned"):
        one.commit(found[0].generation, [journal(world)], {(world.events, foreign): 7})
    assert two.committed(foreign) is None


def test_rule_a_a_partition_lost_and_regained_within_one_poll_is_shown_as_lost(
    world: KafkaHarness,
) -> None:
    """The member joins again under another name: what others did in between is not known."""
    world.append(world.events, 0, [b"a"])
    stream = world.stream()
    start(stream)
    read(stream, 1)
    forget_membership(world, stream)
    seen = [stream.poll(50, 100) for _ in range(3)]
    assert any(0 not in p.assigned for p in seen)
    world.append(world.events, 0, [b"b"])
    join(stream)
    assert not any(stream.poll(50, 100).records for _ in range(5))


@pytest.mark.parametrize("action", ["swallow", "deny"])
def test_rule_b_a_lost_record_is_never_committed(
    lossy: KafkaHarness, proxy: Proxy, action: Action
) -> None:
    """A flush ends normally although a record was lost; its future tells, and nothing commits.

    After a silence the client may find something else wrong, too; a denial only its future tells.
    """
    stream = lossy.stream()
    generation = start(stream).generation
    lose(proxy, PRODUCE, action)
    with pytest.raises(StateLostError):
        stream.commit(generation, [journal(lossy)], {(lossy.events, 0): 5})
    heal(proxy)
    stream.recover()
    assert stream.committed(0) is None
    assert visible(stream, lossy.outputs.journal) == []


def test_rule_b_a_record_without_an_answer_is_written_once(
    lossy: KafkaHarness, proxy: Proxy
) -> None:
    """The record is in the log, its transaction is aborted, and the second try is the only one."""
    stream = lossy.stream()
    generation = start(stream).generation
    lose(proxy, PRODUCE, "mute")
    with pytest.raises(StateLostError):
        stream.commit(generation, [journal(lossy, b"row")], {(lossy.events, 0): 5})
    heal(proxy)
    stream.recover()
    assert stream.committed(0) is None
    stream.commit(join(stream).generation, [journal(lossy, b"row")], {(lossy.events, 0): 5})
    assert visible(stream, lossy.outputs.journal) == [b"row"]


def test_rule_c_a_dead_transaction_leaves_no_offsets_for_the_next(world: KafkaHarness) -> None:
    """Its positions do not ride along under the valid membership of the next commit."""
    stream = world.stream()
    stale = start(stream).generation
    world.evict("0")
    with pytest.raises(StateLostError):
        stream.commit(stale, [journal(world, b"dead")], {(world.events, 0): 30})
    with pytest.raises(StateLostError, match="failed before"):
        stream.commit(stale, [], {(world.events, 0): 30})
    stream.recover()
    next(p for p in polls(stream) if p.assigned == set())
    stream.commit(join(stream).generation, [journal(world, b"new")], {(world.events, 1): 1})
    assert stream.committed(0) is None
    assert stream.committed(1) == (1, 0)
    assert visible(stream, world.outputs.journal) == [b"new"]


def test_rule_d_time_limits_are_nested(world: KafkaHarness) -> None:
    """A record gives up before its transaction is ended by the broker, a request before that."""
    config = world.stream()._transactions._producer.config
    limits = [config[n] for n in ("request_timeout_ms", "delivery_timeout_ms")]
    assert limits == [4_000, 8_000]
    assert config["transaction_timeout_ms"] == 12_000
    assert config["retry_backoff_ms"] <= 10
    assert config["batch_size"] < world.settings.message_bytes_max + 1


def test_rule_d_large_and_small_outputs_commit_together(world: KafkaHarness) -> None:
    """No batch has to be split, which would lose the transaction."""
    stream = world.stream()
    generation = start(stream).generation
    noise = random.Random(1).randbytes(world.settings.message_bytes_max - 1_000)
    sizes = (10, len(noise), 3_000, len(noise), 200_000, 200_000)
    outputs = [journal(world, noise[:size]) for size in sizes]
    assert stream.commit(generation, outputs, {(world.events, 0): 1}) == list(range(6))


def test_rule_d_an_output_that_the_topic_refuses_is_fatal(world: KafkaHarness) -> None:
    """Trying again would fail for ever; the message names the two settings."""
    stream = world.stream()
    generation = start(stream).generation
    too_large = journal(world, random.Random(1).randbytes(1_200_000))
    with pytest.raises(FatalError, match=r"message_bytes_max.*max\.message\.bytes"):
        stream.commit(generation, [too_large], {})


def test_rule_e_committed_waits_for_an_open_transaction(world: KafkaHarness) -> None:
    """The answer is the new offset, never the one before it."""
    stream = world.stream()
    start(stream)
    foreign = world.producer(f"{world.group}.x")
    foreign.begin_transaction()
    places = {TopicPartition(world.events, 0): OffsetAndMetadata(42, "", -1)}
    foreign.send_offsets_to_transaction(places, world.group)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(stream.committed, 0)
        assert not wait([answer], timeout=1.5).done
        foreign.commit_transaction()
        assert answer.result(timeout=10) == (42, 0)


def test_rule_e_committed_ends_what_a_dead_member_left_open(world: KafkaHarness) -> None:
    """Not after the transaction's timeout of 12 s: its slot has no member any more."""
    stream = world.stream()
    start(stream)
    dead = world.producer(f"{world.group}.dead")
    dead.begin_transaction()
    dead.send(world.outputs.journal, b"row", partition=0)
    places = {TopicPartition(world.events, 0): OffsetAndMetadata(42, "", -1)}
    dead.send_offsets_to_transaction(places, world.group)
    dead.flush()
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(stream.committed, 0).result(timeout=6) is None
    assert visible(stream, world.outputs.journal) == []


def test_rule_e_records_of_an_open_transaction_are_not_polled(world: KafkaHarness) -> None:
    """They come when it is committed, and those of an aborted one never."""
    stream = world.stream()
    start(stream)
    foreign = world.producer(f"{world.group}.x")
    for value, end in ((b"no", foreign.abort_transaction), (b"yes", foreign.commit_transaction)):
        foreign.begin_transaction()
        foreign.send(world.events, value, partition=0)
        foreign.flush()
        open_polls = [stream.poll(20, 100) for _ in range(5)]
        assert not any(p.records for p in open_polls)
        end()
    assert [row[3] for row in read(stream, 1)[0]] == [b"yes"]


def test_rule_f_a_lost_coordinator_stalls_a_commit_and_does_not_fail_it(
    lossy: KafkaHarness, proxy: Proxy
) -> None:
    """Its connection breaks and cannot be made for a second: stock, commit never returns."""
    stream = lossy.stream()
    generation = start(stream).generation

    def broken(api_key: int) -> Action:
        if api_key != END_TXN or proxy.refuse:
            return "pass"
        proxy.refuse = True
        threading.Timer(1.0, lambda: setattr(proxy, "refuse", False)).start()
        proxy.rule = lambda key: "pass"
        return "cut"

    proxy.rule = broken
    stream.commit(generation, [journal(lossy, b"row")], {(lossy.events, 0): 5})
    assert stream.committed(0) == (5, 0)
    assert visible(stream, lossy.outputs.journal) == [b"row"]


def test_rule_f_a_request_that_is_never_answered_ends_in_time(
    lossy: KafkaHarness, proxy: Proxy
) -> None:
    """Offsets that get no answer raise within the bound, where the client would wait for ever."""
    stream = lossy.stream()
    generation = start(stream).generation
    lose(proxy, ADD_OFFSETS, "swallow")
    began_s = time.monotonic()
    with pytest.raises(UnansweredError):
        stream.commit(generation, [journal(lossy)], {(lossy.events, 0): 5})
    assert time.monotonic() - began_s < kafka_client.wait_limit_s(lossy.settings) + 1
    heal(proxy)
    stream.recover()
    assert stream.committed(0) is None


def test_rule_f_lookups_of_a_lost_coordinator_are_paced(lossy: KafkaHarness, proxy: Proxy) -> None:
    """However often the client asks, the broker is asked at most every tenth of a second."""
    consumer = kafka_client.make_consumer(lossy.settings, lossy.group, "paced")
    before, until_s = proxy.seen[FIND_COORDINATOR], time.monotonic() + 1.0
    while time.monotonic() < until_s:
        lookup = consumer._coordinator._send_group_coordinator_request
        consumer._coordinator._net.run(lookup)
    asked = proxy.seen[FIND_COORDINATOR] - before
    consumer.close()
    assert 5 <= asked <= 12


def test_the_repairs_are_proved_for_the_installed_client() -> None:
    """Another version of the client leaves them out: prove them there, then add it to the list."""
    assert kafka.__version__ in kafka_client.REPAIRED_VERSIONS


def test_rule_g_a_commit_without_an_answer_may_have_happened(
    lossy: KafkaHarness, proxy: Proxy
) -> None:
    """It raises; after recovery the committed offsets say that it took place, exactly once."""
    stream = lossy.stream()
    generation = start(stream).generation
    lose(proxy, END_TXN, "mute")
    with pytest.raises(UnansweredError):
        stream.commit(generation, [journal(lossy, b"row")], {(lossy.events, 0): 5})
    heal(proxy)
    stream.recover()
    assert stream.committed(0) == (5, 0)
    assert visible(stream, lossy.outputs.journal) == [b"row"]


def test_rule_g_a_commit_that_never_arrived_did_not_happen(
    lossy: KafkaHarness, proxy: Proxy
) -> None:
    """The same error, the other truth: recovery ends the transaction and nothing is committed."""
    stream = lossy.stream()
    generation = start(stream).generation
    lose(proxy, END_TXN, "swallow")
    with pytest.raises(StateLostError):
        stream.commit(generation, [journal(lossy, b"row")], {(lossy.events, 0): 5})
    heal(proxy)
    stream.recover()
    assert stream.committed(0) is None
    assert visible(stream, lossy.outputs.journal) == []


def test_rule_h_a_fenced_producer_exits_where_another_process_has_its_slot(
    world: KafkaHarness,
) -> None:
    """Of two workers in one slot the later one stays, whoever fences whom."""
    first, second = world.stream("0"), world.stream("0")
    start(first)
    polled = start(second)
    with pytest.raises(FatalError):
        first.commit(first._member.membership(), [journal(world)], {})
    first.recover()
    with pytest.raises(StateLostError, match="to be the last with this id"):
        second.commit(polled.generation, [journal(world)], {})


def test_rule_h_a_producer_that_was_fenced_where_nobody_has_its_slot_goes_on(
    world: KafkaHarness,
) -> None:
    """A worker that was paused beyond its session: others ended what it had left open."""
    stream = world.stream("0")
    polled = start(stream)
    world.producer(f"{world.group}.0")
    with pytest.raises(StateLostError):
        stream.commit(polled.generation, [journal(world)], {})
    stream.recover()
    for partition in (0, 1):
        stream.seek(partition, 0, 0)
    polled = next(p for p in polls(stream) if p.generation is not None)
    assert stream.commit(polled.generation, [journal(world)], {})


def test_a_worker_that_was_never_polled_takes_no_partitions(world: KafkaHarness) -> None:
    """It learns the whole training log first: the others serve them meanwhile."""
    first, second = world.stream("0"), world.stream("1")
    start(first)
    second._member._polled_s -= 60  # long ago
    second.keep_alive()
    members = first._member.members() or []
    assert [member["group_instance_id"] for member in members] == ["0"]
    found = together([first, second], lambda found: all(len(p.assigned) == 1 for p in found))
    assert len(found) == 2


def test_rule_i_a_fenced_member_is_found_out_within_a_session(world: KafkaHarness) -> None:
    """The client would go on polling without any error."""
    settings = world.settings.model_copy(update={"session_timeout": 2_000})
    stream = world.stream(settings=settings)
    start(stream)
    usurper = kafka_client.make_consumer(settings, world.group, "0")
    usurper.subscribe([world.events, world.labels])
    with pytest.raises(FatalError, match="slot"), ThreadPoolExecutor(1) as pool:
        stopped = threading.Event()
        other = pool.submit(_poll_until, usurper, stopped)
        try:
            for _ in polls(stream):
                assert not other.done()
        finally:
            stopped.set()
    usurper.close()


def _poll_until(consumer: Any, stopped: threading.Event) -> None:
    while not stopped.is_set():
        with suppress(kafka.errors.NoOffsetForPartitionError):
            consumer.poll(50)


def test_rule_j_a_position_beyond_the_end_is_refused(world: KafkaHarness) -> None:
    """A log that is shorter than it was is not read again from its beginning."""
    world.append(world.events, 0, [b"a", b"b"])
    stream = world.stream()
    join(stream)
    stream.seek(0, 1_000, 0)
    with pytest.raises(FatalError):
        for _ in polls(stream):
            pass


def test_a_transaction_that_a_dead_slot_left_open_is_ended_at_once(world: KafkaHarness) -> None:
    """Its timeout is a minute; nobody is in its slot, so `settle` ends it."""
    dead = world.producer(f"{world.group}.7")
    dead.begin_transaction()
    dead.send(world.outputs.journal, b"torn", partition=0)
    dead.flush()
    stream = world.stream()
    join(stream)
    began_s = time.monotonic()
    assert stream.settle(world.outputs.journal, 0) == 2  # the record and the marker of its end
    assert time.monotonic() - began_s < 10
    assert visible(stream, world.outputs.journal) == []


def test_a_member_knows_before_it_polls_that_the_group_is_rebalancing(world: KafkaHarness) -> None:
    """So a commit under way can end under the membership that it was taken for."""
    first, second = world.stream("0"), world.stream("1")
    polled = start(first)
    assert not first.is_rebalancing
    with ThreadPoolExecutor(1) as pool:
        joining = pool.submit(second.poll, 0, 1)
        until_s = time.monotonic() + 20
        while not first.is_rebalancing:
            assert time.monotonic() < until_s
            time.sleep(0.02)
        assert first.commit(polled.generation, [journal(world)], {}) == [0]
        first.poll(0, 1)
        joining.result()
    together([first, second], lambda two: {len(p.assigned) for p in two} == {1})
    assert not first.is_rebalancing


def test_a_poll_that_joins_ends_when_it_has_joined(world: KafkaHarness) -> None:
    """What it was assigned is parked and brings no record, yet nobody waits for one."""
    took_s = []
    for slot in "012":
        stream = world.stream(slot)
        began_s = time.monotonic()
        join(stream)
        took_s.append(time.monotonic() - began_s)
        stream.close()
    assert min(took_s) < _JOIN_MS / 1000


def test_a_join_that_a_poll_left_under_way_is_completed(world: KafkaHarness) -> None:
    """Topics had changed; the client makes the assignment and would not fetch its own."""
    stream = world.stream()
    start(stream)
    consumer = stream._member._consumer
    coordinator = consumer._coordinator
    coordinator._metadata_snapshot = {}
    consumer.poll(0)
    until_s = time.monotonic() + 20
    while not coordinator._join_task.is_done:
        assert time.monotonic() < until_s
        time.sleep(0.01)
    assert stream.is_rebalancing
    stream.poll(0, 1)
    join(stream)
    assert consumer.group_metadata().state == MemberState.STABLE
    assert not stream.is_rebalancing


def test_a_transaction_of_a_living_member_is_waited_for(world: KafkaHarness) -> None:
    """What its owner commits in the meantime is kept."""
    stream, owner = world.stream("0"), world.stream("1")
    start(owner)
    # The owner's transaction, opened from outside under the same id.
    foreign = world.producer(f"{world.group}.1")
    foreign.begin_transaction()
    foreign.send(world.outputs.journal, b"row", partition=0)
    foreign.flush()
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(stream.settle, world.outputs.journal, 0)
        assert not wait([answer], timeout=1.5).done
        foreign.commit_transaction()
        assert answer.result(timeout=10) == 2
    assert visible(stream, world.outputs.journal) == [b"row"]


def test_a_transaction_is_left_alone_while_nobody_knows_who_is_alive(
    world: KafkaHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The group's coordinator does not answer: its owner may live."""
    foreign = world.producer(transactional_id(world.group, "7"))
    foreign.begin_transaction()
    foreign.send(world.outputs.journal, b"row", partition=0)
    foreign.flush()
    stream = world.stream("0")
    join(stream)
    monkeypatch.setattr(stream._member, "members", lambda: None)
    stream._log.end_abandoned(world.outputs.journal, 0)
    foreign.commit_transaction()
    assert visible(stream, world.outputs.journal) == [b"row"]


def test_a_transaction_of_a_group_with_a_longer_name_is_left_alone(world: KafkaHarness) -> None:
    """Two groups may share an output topic, and one name may begin with the other."""
    foreign = world.producer(transactional_id(f"{world.group}-shadow", "0"))
    foreign.begin_transaction()
    foreign.send(world.outputs.journal, b"row", partition=0)
    foreign.flush()
    stream = world.stream("0")
    join(stream)
    stream._log.end_abandoned(world.outputs.journal, 0)
    foreign.commit_transaction()
    assert visible(stream, world.outputs.journal) == [b"row"]


def test_outputs_keep_their_key_time_and_partition(world: KafkaHarness) -> None:
    """An independent reader finds the record as it was meant."""
    from confluent_kafka import Consumer
    from confluent_kafka import TopicPartition as Place

    stream = world.stream()
    alert = Output(world.outputs.alerts, 1, b"card", b"{}", 1_600_000_000_123, (("h", b"1"),))
    stream.commit(start(stream).generation, [alert], {})
    reader = Consumer(
        {
            "bootstrap.servers": world.settings.bootstrap_servers,
            "group.id": "independent",
            "isolation.level": "read_committed",
        }
    )
    reader.assign([Place(world.outputs.alerts, 1, 0)])
    message = reader.poll(10)
    reader.close()
    assert message is not None
    assert (message.key(), message.value()) == (b"card", b"{}")
    assert message.timestamp()[1] == 1_600_000_000_123
    assert message.headers() == [("h", b"1")]
