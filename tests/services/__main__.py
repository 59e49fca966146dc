"""Run one server in the foreground until Ctrl-C: ``python -m tests.services kafka --port 9092``."""

from __future__ import annotations

import argparse
import signal
import threading
from pathlib import Path

from tests.services.kafka import KafkaServer
from tests.services.valkey import ValkeyServer


def main() -> None:
    """Start the server that the arguments name, print its address, and wait."""
    parser = argparse.ArgumentParser(prog="python -m tests.services", description=__doc__)
    parser.add_argument("server", choices=["kafka", "valkey"])
    parser.add_argument("--port", type=int, help="default: 9092 or 6379")
    parser.add_argument("--data", type=Path, help="keep the data here (default: thrown away)")
    arguments = parser.parse_args()
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with _server(arguments.server, arguments.port, arguments.data) as server:
        address = server.bootstrap if isinstance(server, KafkaServer) else server.url
        print(f"{arguments.server} is ready at {address}; Ctrl-C stops it", flush=True)
        stop.wait()


def _server(name: str, port: int | None, data: Path | None) -> KafkaServer | ValkeyServer:
    if name == "kafka":
        return KafkaServer(port or 9092, data, long_running=True)
    return ValkeyServer(port or 6379, data)


if __name__ == "__main__":
    main()
