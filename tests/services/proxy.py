"""A proxy in front of a broker that knows Kafka's frames and can lose or hold chosen ones."""

from __future__ import annotations

import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Literal

from kafka.protocol.producer import ProduceRequest, ProduceResponse

PRODUCE, FIND_COORDINATOR, ADD_OFFSETS, END_TXN = 0, 10, 25, 26
Action = Literal["pass", "swallow", "mute", "cut", "deny", "hold"]
"""Let a request through; lose it; lose its answer; close the connection instead; answer a produce
request as a broker that lacks replicas: none of its records is taken, and trying again may help;
keep it, and all that follows it on its connection, until `Proxy.release`."""
_NOT_ENOUGH_REPLICAS = 19
_ASK_VERSIONS = 18


def pass_all(api_key: int) -> Action:
    """Let everything through."""
    return "pass"


class Proxy:
    """Forwards connections to a broker whose ``advertised.listeners`` names this proxy.

    Attributes
    ----------
    rule
        Asked with the api key of every request.
    refuse
        While true, new connections are closed at once.
    seen
        Requests by api key.
    """

    def __init__(self, broker_port: int, port: int) -> None:
        self.rule: Callable[[int], Action] = pass_all
        self.refuse = False
        self.seen: Counter[int] = Counter()
        self.bootstrap = f"127.0.0.1:{port}"
        self._broker_port = broker_port
        self._open: set[socket.socket] = set()
        self._held: dict[socket.socket, list[bytes]] = {}
        self._listener = socket.create_server(("127.0.0.1", port))
        self._start(self._accept)

    def close(self) -> None:
        """Close every connection and stop listening."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        """Close every connection."""
        for each in list(self._open):
            _close(each)

    @property
    def holds(self) -> bool:
        """Return whether a request is held."""
        return bool(self._held)

    def release(self) -> None:
        """Send what was held, each request twice, whether its client is still there or not."""
        held, self._held = self._held, {}
        for broker, frames in held.items():
            with suppress(OSError):  # the broker has closed it
                for frame in frames:
                    broker.sendall((struct.pack(">i", len(frame)) + frame) * 2)

    def _accept(self) -> None:
        with suppress(OSError):  # the listener was closed
            while True:
                client = self._listener.accept()[0]
                if self.refuse:
                    client.close()
                    continue
                broker = socket.create_connection(("127.0.0.1", self._broker_port))
                self._open |= {client, broker}
                instead: dict[int, bytes] = {}
                ask: Callable[[bytes], bytes] = partial(self._ask, broker, instead)
                self._start(self._forward, client, broker, ask)
                self._start(self._forward, broker, client, lambda f, i=instead: _answer(f, i))

    def _ask(self, broker: socket.socket, instead: dict[int, bytes], frame: bytes) -> bytes:
        """Return what the broker gets; ``instead`` is what the client gets for its answers."""
        api_key, version, correlation = struct.unpack_from(">hhi", frame)
        self.seen[api_key] += 1
        action = self.rule(api_key)
        if action == "hold" or broker in self._held:
            self._held.setdefault(broker, []).append(frame)
            return b""
        if action == "cut":
            raise ConnectionAbortedError
        if action == "mute":
            instead[correlation] = b""
        if action == "deny":
            instead[correlation] = _denial(frame, version, correlation)
            # Asked for something else, the broker keeps the order of its answers.
            return struct.pack(">hhih", _ASK_VERSIONS, 0, correlation, -1)
        return b"" if action == "swallow" else frame

    def _forward(
        self, source: socket.socket, target: socket.socket, judge: Callable[[bytes], bytes]
    ) -> None:
        with suppress(OSError):
            while (frame := _read_frame(source)) is not None:
                if passed := judge(frame):
                    target.sendall(struct.pack(">i", len(passed)) + passed)
        for end in (source, target):
            if end not in self._held:  # what is held will still be sent
                self._open.discard(end)
                _close(end)

    def _start(self, run: Callable[..., None], *arguments: object) -> None:
        threading.Thread(target=run, args=arguments, daemon=True).start()


def _answer(frame: bytes, instead: dict[int, bytes]) -> bytes:
    (correlation,) = struct.unpack_from(">i", frame)
    return instead.pop(correlation, frame)


def _denial(frame: bytes, version: int, correlation: int) -> bytes:
    """Return the answer to a produce request of which no record is taken."""
    asked: Any = ProduceRequest.decode(frame, version=version, header=True)
    topic_of = ProduceResponse.TopicProduceResponse
    part_of = topic_of.PartitionProduceResponse
    denied = [
        topic_of(
            name=topic.name,
            partition_responses=[
                part_of(index=part.index, error_code=_NOT_ENOUGH_REPLICAS, base_offset=-1)
                for part in topic.partition_data
            ],
        )
        for topic in asked.topic_data
    ]
    answer: Any = ProduceResponse(version=version, responses=denied)
    answer.with_header(correlation_id=correlation)
    return bytes(answer.encode(header=True))


def _read_frame(source: socket.socket) -> bytes | None:
    size = _read(source, 4)
    return _read(source, struct.unpack(">i", size)[0]) if size else None


def _read(source: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count:
        part = source.recv(count - len(found))
        if not part:
            return b""
        found += part
    return found


def _close(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
