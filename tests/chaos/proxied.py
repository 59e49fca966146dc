"""Faults of a worker's connections: worker 0 reaches Kafka through the proxies only."""

from __future__ import annotations

import resource
from collections.abc import Callable
from functools import partial

from tests.chaos.cluster import Servers
from tests.chaos.world import World
from tests.services.proxy import Action, Proxy, pass_all

OUTAGE_S = 6.0


def starve(world: World, servers: Servers) -> None:
    """Let worker 0 open nothing more, while its connections to the store and Kafka are closed."""
    pid = world.workers["0"].pid
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (8, hard))
    servers.store.client.client_kill_filter(_type="normal")
    for proxy in servers.kafka.proxies.values():
        proxy.cut()
    world.flow(OUTAGE_S)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
    world.mark()
    world.flow(2)
    world.revive("0")


def cut_kafka(world: World, servers: Servers) -> None:
    """Close worker 0's connections to Kafka and take no new ones, for longer than its session."""
    _partition(world, servers, "cut", refuse=True)


def mute_kafka(world: World, servers: Servers) -> None:
    """Half-open connections: what worker 0 sends to Kafka is lost, for longer than its session."""
    _partition(world, servers, "swallow", refuse=False)


def deafen_kafka(world: World, servers: Servers) -> None:
    """What Kafka answers to worker 0 is lost, for longer than its session."""
    _partition(world, servers, "mute", refuse=False)


def hold_kafka(api_key: int, world: World, servers: Servers) -> None:
    """Hold a kind of requests of worker 0 for longer than its session, then send each twice."""
    for proxy in servers.kafka.proxies.values():
        proxy.rule = lambda key: "hold" if key == api_key else "pass"
    world.wait("requests held", lambda: any(p.holds for p in servers.kafka.proxies.values()), 60)
    world.mark()
    world.flow(world.session_s + 4)
    _rule(servers, "pass", refuse=False)
    for proxy in servers.kafka.proxies.values():
        proxy.release()
    world.flow(2)
    world.revive("0")


def flap_kafka(world: World, servers: Servers) -> None:
    """Close worker 0's connections to Kafka for half a second, six times."""
    world.mark()
    for _ in range(6):
        _rule(servers, "cut", refuse=True)
        world.flow(0.5)
        _rule(servers, "pass", refuse=False)
        world.flow(1)


def _partition(world: World, servers: Servers, action: Action, *, refuse: bool) -> None:
    _rule(servers, action, refuse=refuse)
    world.mark()
    world.flow(world.session_s + 4)
    _rule(servers, "pass", refuse=False)
    world.flow(2)
    world.revive("0")


def _rule(servers: Servers, action: Action, *, refuse: bool) -> None:
    for proxy in servers.kafka.proxies.values():
        _say(proxy, action, refuse=refuse)


def _say(proxy: Proxy, action: Action, *, refuse: bool) -> None:
    proxy.rule = pass_all if action == "pass" else lambda key: action
    proxy.refuse = refuse
    if action == "cut":
        proxy.cut()


_PROXIED = (starve, cut_kafka, mute_kafka, deafen_kafka, hold_kafka, flap_kafka)


def is_proxied(fault: Callable[[World, Servers], None]) -> bool:
    """Return whether a fault needs worker 0 behind the proxies."""
    return (fault.func if isinstance(fault, partial) else fault) in _PROXIED
