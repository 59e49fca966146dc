"""The faults: what is done to a stream that flows. Each returns when what it broke is whole again.

A fault marks the moment from which the time to live again is counted: the death of a worker, or the
end of an outage.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from kafka import KafkaAdminClient
from redis import Redis
from redis.exceptions import ResponseError

from tests.chaos.cluster import Servers
from tests.chaos.proxied import (
    OUTAGE_S,
    cut_kafka,
    deafen_kafka,
    flap_kafka,
    hold_kafka,
    mute_kafka,
    starve,
)
from tests.chaos.worker import INSIDE, POINTS
from tests.chaos.world import World
from tests.services.proxy import END_TXN, PRODUCE
from tests.simulation.world import LONGER, MORE, VERSIONS

_PASSES = 3


Fault = Callable[[World, Servers], None]


def nothing(world: World, _: Servers) -> None:
    """Do nothing: what the figures are without a fault."""
    world.mark()
    world.flow(2)


def kill_at(point: str, world: World, _: Servers | None = None) -> None:
    """Kill worker 0 at a fault point and start it again in its slot."""
    worker = world.workers["0"]
    if point.startswith("acquire_"):
        worker.kill()
        worker.order(point)
        worker.start()
    else:
        worker.order(point, _PASSES)
    world.wait_dead("0")
    world.mark()
    worker.start()
    world.wait_ready("0")


def kill_at_random(world: World, _: Servers) -> None:
    """Kill a worker at any moment, five times, and start it again in its slot."""
    for _ in range(5):
        slot = world.random.choice(("0", "1"))
        world.flow(world.random.uniform(0.0, 1.0))
        world.workers[slot].kill()
        world.mark()
        world.workers[slot].start()
        world.wait_ready(slot)


def fail_over(point: str, world: World, _: Servers) -> None:
    """Kill worker 0 at a point; the other one takes its partitions."""
    world.workers["0"].order(point, _PASSES)
    world.wait_dead("0")
    world.mark()
    world.wait("live stream", lambda: world.live_s() is not None, 90)


def zombie(world: World, _: Servers | None = None) -> None:
    """Stop worker 0 for longer than the session timeout; it goes on when others took over."""
    world.workers["0"].freeze()
    world.mark()
    world.flow(world.session_s + 3)
    world.workers["0"].thaw()
    world.flow(2)
    world.revive("0")


def slow_consumer(world: World, _: Servers) -> None:
    """Hold worker 0 in a batch for twice the session timeout, while another worker joins."""
    world.workers["0"].order("processed", _PASSES, 2 * world.session_s)
    world.wait("order obeyed", lambda: world.workers["0"].obeyed, 60)
    world.mark()
    world.worker("2").start()
    world.wait_ready("2")
    world.revive("0")


def slower_than_the_poll_interval(world: World, _: Servers) -> None:
    """Hold worker 0 in a batch for 310 s: longer than max.poll.interval (300 s)."""
    world.workers["0"].order("processed", _PASSES, 310)
    world.wait("order obeyed", lambda: world.workers["0"].obeyed, 60)
    world.mark()
    world.flow(315)
    world.revive("0")


def terminate(world: World, _: Servers) -> None:
    """Stop worker 0 by SIGTERM and start it again."""
    world.mark()
    world.exits_s.append(world.workers["0"].stop())
    world.workers["0"].start()
    world.wait_ready("0")


def terminate_each(world: World, servers: Servers) -> None:
    """Stop every worker by SIGTERM and start it again, one after the other: a rolling restart."""
    for slot in ("0", "1"):
        world.mark()
        world.exits_s.append(world.workers[slot].stop())
        world.workers[slot].start()
        world.wait_ready(slot)


def terminate_without_store(world: World, servers: Servers) -> None:
    """Stop worker 0 by SIGTERM while the store answers nothing; start it again when it does."""
    servers.store.master.freeze()
    world.flow(OUTAGE_S)
    world.exits_s.append(world.workers["0"].stop())
    servers.store.master.thaw()
    world.mark()
    world.workers["0"].start()
    world.wait_ready("0")


def terminate_without_kafka(world: World, servers: Servers) -> None:
    """Stop worker 0 by SIGTERM while two of three nodes are gone; start it again with them."""
    servers.kafka.nodes[1].kill()
    servers.kafka.nodes[2].kill()
    world.flow(OUTAGE_S)
    world.exits_s.append(world.workers["0"].stop(may_leave=True))
    servers.kafka.start(1, 2)
    world.mark()
    world.workers["0"].start()
    world.wait_ready("0")


def deploy(version: int, world: World, _: Servers) -> None:
    """Give workers other features, one after the other: there, back, and there again."""
    for slot, one in (("0", version), ("0", 0), ("0", version), ("1", version)):
        world.exits_s.append(world.workers[slot].stop())
        world.workers[slot].deploy(one)
        world.mark()
        world.workers[slot].start()
        if version == VERSIONS.index(MORE) or one == 0:  # else it waits for the other worker
            world.wait_ready(slot)
        world.flow(3)
    world.wait_ready("0", "1")
    world.flow(2)
    assert len(set(world.watch.specs)) == 2, "rows of both"


def forget_group(world: World, servers: Servers) -> None:
    """Stop all workers and delete their group, as the broker does when its offsets expire."""
    world.mark()
    for slot in ("0", "1"):
        world.exits_s.append(world.workers[slot].stop())
    admin = KafkaAdminClient(bootstrap_servers=servers.kafka.bootstrap)
    admin.delete_groups([world.name])
    admin.close()
    for slot in ("0", "1"):
        world.workers[slot].start()
    world.wait_ready("0", "1")


def fill_disk(world: World, _: Servers) -> None:
    """Let worker 0 write no file, neither log nor snapshot."""
    worker = world.workers["0"]
    worker.limit_files(0)
    world.flow(OUTAGE_S)
    assert worker.running, worker.said[-2000:]
    worker.limit_files()
    world.mark()
    world.flow(2)


def storm(world: World, _: Servers) -> None:
    """Let workers join and leave, in order and killed: 2, 4, 3, 2, 3, 2."""
    two, three = world.worker("2"), world.worker("3")
    two.start()
    world.flow(2)
    three.start()
    world.flow(4)
    two.kill()
    world.flow(2)
    world.exits_s.append(world.workers["1"].stop())
    world.flow(2)
    world.mark()
    world.workers["1"].start()
    world.wait_ready("0", "1")
    world.exits_s.append(three.stop())


def flush_store(world: World, servers: Servers) -> None:
    """FLUSHALL."""
    world.mark()
    servers.store.client.flushall()
    world.flow(2)


def restart_store(world: World, servers: Servers, *, empty: bool) -> None:
    """Kill the store and start it again, with its data or with none, after a while."""
    servers.store.master.kill()
    world.flow(1.5)
    servers.store.master.restart(empty=empty)
    world.mark()
    world.flow(2)


def promote(world: World, servers: Servers) -> None:
    """Kill the store; its replica, which lacks the writes of two seconds, takes its place."""
    with Redis.from_url(f"unix://{servers.store.replica.directory}/valkey.sock") as replica:
        replica.replicaof("NO", "ONE")
    world.flow(2)
    servers.store.master.kill()
    servers.store.serve(servers.store.replica)
    world.mark()
    world.flow(2)


def stall_store(world: World, servers: Servers) -> None:
    """Stop the store from running, for longer than the worker waits for an answer."""
    servers.store.master.freeze()
    world.flow(OUTAGE_S)
    servers.store.master.thaw()
    world.mark()
    world.flow(2)


def fill_store(world: World, servers: Servers) -> None:
    """Let the store refuse writes for want of memory."""
    client = servers.store.client
    client.config_set("maxmemory", "1mb")
    world.flow(OUTAGE_S)
    client.config_set("maxmemory", "0")
    world.mark()
    world.flow(2)


def fill_disk_of_store(world: World, servers: Servers) -> None:
    """Let the store append nothing more to its file."""
    servers.store.master.limit_files(0)
    world.flow(OUTAGE_S)
    servers.store.master.limit_files()
    world.mark()
    world.flow(2)


def freeze_writes(world: World, servers: Servers) -> None:
    """Make the store a replica that takes no writes, then a master again."""
    client = servers.store.client
    client.replicaof("127.0.0.1", "1")  # nobody is there
    world.flow(OUTAGE_S)
    client.replicaof("NO", "ONE")
    world.mark()
    world.flow(2)


def slow_store(world: World, servers: Servers) -> None:
    """Let the store answer within 0.8 s only, six times."""
    world.mark()
    for _ in range(6):
        servers.store.client.client_pause(800)
        world.flow(1)


def occupy_store(world: World, servers: Servers) -> None:
    """Keep the store busy with a script: it answers BUSY to all else."""
    client = servers.store.client
    client.config_set("busy-reply-threshold", 100)
    script = threading.Thread(target=_spin, args=(servers.store.client,))
    script.start()
    world.flow(OUTAGE_S)
    client.script_kill()
    script.join()
    world.mark()
    world.flow(2)


def _spin(client: Redis) -> None:
    with suppress(ResponseError):  # it was killed
        client.eval("while true do end", 0)


def cut_store(world: World, servers: Servers) -> None:
    """Close the workers' connections to the store, ten times."""
    world.mark()
    for _ in range(10):
        servers.store.client.client_kill_filter(_type="normal")
        world.flow(0.2)


def kill_node(topic: str, world: World, servers: Servers) -> None:
    """Kill the node that leads a partition of a topic; it comes back after a while."""
    name = topic if topic.startswith("__") else world.prefix + topic
    node = servers.kafka.leader(name)
    servers.kafka.nodes[node].kill()
    world.mark()
    world.flow(OUTAGE_S)
    servers.kafka.start(node)
    world.flow(2)


def freeze_node(world: World, servers: Servers) -> None:
    """Half-open connections: the leader of a partition says nothing and closes nothing."""
    node = servers.kafka.nodes[servers.kafka.leader(world.prefix + "journal")]
    node.freeze()
    world.mark()
    world.flow(2 * OUTAGE_S)
    node.thaw()
    world.flow(2)


def kill_two_nodes(world: World, servers: Servers) -> None:
    """Kill two of three nodes: nothing can be written until they are back."""
    servers.kafka.nodes[1].kill()
    servers.kafka.nodes[2].kill()
    world.flow(OUTAGE_S)
    servers.kafka.start(1, 2)
    world.mark()
    world.flow(2)


def restart_nodes(world: World, servers: Servers) -> None:
    """Kill all nodes, one after the other."""
    for node in (1, 2, 3):
        world.mark()
        servers.kafka.nodes[node].kill()
        world.flow(1)
        servers.kafka.start(node)
        world.flow(6)


FAULTS: dict[str, Fault] = {
    "nothing": nothing,
    **{f"kill -9 at {point}": partial(kill_at, point) for point in POINTS},
    "kill -9 at random": kill_at_random,
    "failover": partial(fail_over, "polled"),
    **{f"failover, open at {point}": partial(fail_over, point) for point in INSIDE},
    "zombie": zombie,
    "slow consumer": slow_consumer,
    "SIGTERM and restart": terminate,
    "SIGTERM and restart of each": terminate_each,
    "SIGTERM while the store is frozen": terminate_without_store,
    "SIGTERM while two of three nodes are gone": terminate_without_kafka,
    "rolling deploy, one feature more": partial(deploy, VERSIONS.index(MORE)),
    "rolling deploy, one window more": partial(deploy, VERSIONS.index(LONGER)),
    "no descriptors": starve,
    "disk full": fill_disk,
    "offsets of the group expired": forget_group,
    "rebalance storm": storm,
    "store: FLUSHALL": flush_store,
    "store: restart empty": partial(restart_store, empty=True),
    "store: restart": partial(restart_store, empty=False),
    "store: promotion without last writes": promote,
    "store: stall": stall_store,
    "store: slow": slow_store,
    "store: busy": occupy_store,
    "store: out of memory": fill_store,
    "store: disk full": fill_disk_of_store,
    "store: read-only": freeze_writes,
    "store: connections cut": cut_store,
    "kafka: leader killed": partial(kill_node, "journal"),
    "kafka: group coordinator killed": partial(kill_node, "__consumer_offsets"),
    "kafka: transaction coordinator killed": partial(kill_node, "__transaction_state"),
    "kafka: two of three killed": kill_two_nodes,
    "kafka: each node killed": restart_nodes,
    "kafka: leader frozen": freeze_node,
    "kafka: worker cut off": cut_kafka,
    "kafka: worker's words lost": mute_kafka,
    "kafka: answers to a worker lost": deafen_kafka,
    "kafka: records late and twice": partial(hold_kafka, PRODUCE),
    "kafka: end of a transaction late and twice": partial(hold_kafka, END_TXN),
    "kafka: connections flap": flap_kafka,
}
SLOW: dict[str, Fault] = {"slower than the poll interval": slower_than_the_poll_interval}
"""Those that run only when they are named."""
