"""Three Kafka nodes, and a store with a replica, that a fault can kill and bring back."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

from kafka import KafkaAdminClient
from redis import Redis

from tests.services.kafka import KafkaServer
from tests.services.process import free_port
from tests.services.proxy import Proxy
from tests.services.valkey import ValkeyServer

NODES = (1, 2, 3)
_THREE = {
    "offsets.topic.replication.factor": "3",
    "transaction.state.log.replication.factor": "3",
    "transaction.state.log.min.isr": "2",
    "share.coordinator.state.topic.replication.factor": "3",
    "share.coordinator.state.topic.min.isr": "2",
    "min.insync.replicas": "2",
    "broker.session.timeout.ms": "4000",
    "replica.lag.time.max.ms": "5000",
    "inter.broker.listener.name": "PLAINTEXT",
}


class KafkaCluster:
    """Three nodes, each broker and controller; every node has a second way in, through a proxy.

    Attributes
    ----------
    bootstrap
        The addresses of all nodes.
    proxied
        The addresses of the proxies: who starts there talks to the nodes through them only.
    """

    def __init__(self) -> None:
        # A server dies with the thread that started it, so these threads stay.
        self._pool = ThreadPoolExecutor(len(NODES))
        voters = {node: free_port() for node in NODES}
        self.proxies: dict[int, Proxy] = {}
        self.nodes = {node: self._node(node, voters) for node in NODES}
        self.bootstrap = ",".join(node.bootstrap for node in self.nodes.values())
        self.proxied = ",".join(proxy.bootstrap for proxy in self.proxies.values())

    def start(self, *nodes: int) -> None:
        """Start nodes at the same time, all by default: one alone waits for the others."""
        list(self._pool.map(lambda node: self.nodes[node].start(), nodes or NODES))

    def leader(self, topic: str, partition: int = 0) -> int:
        """Return the node that leads a partition; of an internal topic, it is the coordinator."""
        admin = KafkaAdminClient(bootstrap_servers=self.bootstrap)
        try:
            found = admin.describe_topics([topic])[0]["partitions"]
        finally:
            admin.close()
        return next(int(p["leader_id"]) for p in found if p["partition_index"] == partition)

    def close(self) -> None:
        """End all nodes and remove what they kept."""
        for proxy in self.proxies.values():
            proxy.close()
        for node in self.nodes.values():
            node.close()
        self._pool.shutdown()

    def __enter__(self) -> KafkaCluster:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _node(self, node: int, voters: dict[int, int]) -> KafkaServer:
        port, behind = free_port(), free_port()
        self.proxies[node] = proxy = Proxy(behind, free_port())
        own, controller = f"PLAINTEXT://127.0.0.1:{port}", f"127.0.0.1:{voters[node]}"
        protocols = "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT"
        properties = {
            **_THREE,
            "node.id": str(node),
            "listeners": f"{own},PROXIED://127.0.0.1:{behind},CONTROLLER://{controller}",
            "advertised.listeners": f"{own},PROXIED://{proxy.bootstrap}",
            "listener.security.protocol.map": protocols,
            "controller.quorum.voters": ",".join(f"{n}@127.0.0.1:{p}" for n, p in voters.items()),
        }
        return KafkaServer(port, properties=properties)


class StorePair:
    """A store that keeps what it answered, its replica, and an address that can move to it."""

    def __init__(self) -> None:
        self.directory = Path(mkdtemp(prefix="stores-"))
        port = free_port()
        follow = ("--replicaof", "127.0.0.1", str(port), "--repl-diskless-sync-delay", "0")
        self.master = ValkeyServer(port)
        self.replica = ValkeyServer(free_port(), options=follow)
        self._address = self.directory / "store.sock"
        self.url = f"unix://{self._address}"

    def serve(self, server: ValkeyServer) -> None:
        """Let the address lead to this server, for connections that are made from now on."""
        beside = self._address.with_suffix(".new")
        beside.symlink_to(server.directory / "valkey.sock")
        beside.replace(self._address)

    def restore(self) -> None:
        """Make the pair what it was in the beginning, with nothing in it."""
        for server in (self.master, self.replica):
            server.restart(empty=True)
        self.serve(self.master)

    @property
    def client(self) -> Redis:
        """Return a client of what is served now."""
        return Redis.from_url(self.url)

    def close(self) -> None:
        """End both and remove what they kept."""
        self.master.close()
        self.replica.close()
        self._address.unlink(missing_ok=True)
        self.directory.rmdir()

    def __enter__(self) -> StorePair:
        self.master.start()
        self.replica.start()
        self.serve(self.master)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class Servers:
    """What faults can reach beside the workers."""

    kafka: KafkaCluster
    store: StorePair
