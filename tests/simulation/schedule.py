"""One schedule: workers, their faults and their input, all decided by one seed.

Each worker is a greenlet, a stack of its own in the one thread: at every call of a stream or a
store the scheduler decides who goes on. So a seed gives the same schedule again.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import structlog

from tests.simulation.faults import (
    EVENTS,
    GROUP,
    LABELS,
    OPEN,
    Chances,
    FaultyStore,
    FaultyStream,
    OpenLog,
    Server,
    Torn,
)
from tests.simulation.process import Process
from tests.simulation.snapshots import Disk
from tests.simulation.world import Item, config, items, spec
from tests.worlds import Late, new_log
from worker.contracts.settings import Settings
from worker.errors import FatalError
from worker.faults import FAULTS, set_hook
from worker.models.catalogue import build_models
from worker.runner import Parts, Runner
from worker.snapshots import Snapshots
from worker.stores import StateStore
from worker.stores.memory import MemoryStore
from worker.streams import Stream
from worker.streams.memory import MemoryStream
from worker.telemetry import Telemetry

STEPS_MAX = 30_000
WHOLE = 1000  # more events than a schedule has
SLOTS = ("0", "1", "2")
KINDS = (
    "fails", "commit_fails", "start", "kill", "hold", "doom", "evict", "lose", "repeat", "damage",
    "lag",
)  # fmt: skip
"""Kinds of faults that a schedule can do without."""

_TELEMETRY = Telemetry(lambda: 0.0)  # one for all: nothing here asks it, and to make one takes long
_TELEMETRY.log = structlog.wrap_logger(
    None, wrapper_class=structlog.make_filtering_bound_logger("critical")
)


class StuckError(AssertionError):
    """After the last fault the workers do not come to rest: liveness is broken."""


@dataclass
class Plan:
    """What a seed chooses before it begins."""

    partitions: int
    events: int
    batch: int
    flush_every: float
    fails: float
    commit_fails: float
    trouble: float
    is_crowded: bool  # two workers that read each other's states, from a replica that lags

    @classmethod
    def of(cls, draw: random.Random) -> Plan:
        """Draw one."""
        is_crowded = draw.random() < 0.2
        return cls(
            draw.choice((1, 2, 2, 3)), draw.randrange(6, 26),
            2 if is_crowded else draw.choice((3, 8, 20)),
            draw.choice((0.0, 0.0, 30.0, 100.0, 600.0)), draw.choice((0.0, 0.03, 0.1)),
            draw.choice((0.0, 0.1, 0.3)), 0.0 if is_crowded else draw.choice((0.0, 0.03, 0.08)),
            is_crowded,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Cut:
    """What of a seed's schedule is left out: kinds of faults, and the input after so many items."""

    without: frozenset[str] = frozenset()
    items_max: int | None = None


@dataclass
class Schedule:
    """A world under way, and what is left of it in the end: the log and the store."""

    seed: int
    cut: Cut = Cut()
    log: OpenLog = field(init=False)
    server: Server = field(default_factory=Server)
    told: list[str] = field(default_factory=list)
    steps: int = 0

    def __post_init__(self) -> None:
        self._draw = random.Random(self.seed)
        self.plan = Plan.of(self._draw)
        self.log = OpenLog(new_log(self.plan.partitions).partitions)
        whole = items(self._draw, self.plan.partitions, self.plan.events)
        self.input: list[Item] = whole[: self.cut.items_max]
        cut = self.cut.without
        fails = 0.0 if "fails" in cut else self.plan.fails
        commit_fails = 0.0 if "commit_fails" in cut else self.plan.commit_fails
        lags = 0.4 if self.plan.is_crowded and "lag" not in cut else 0.0
        self._chances = Chances(self._draw, fails, commit_fails, lags)
        self._torn: list[Torn] = []
        self._alive: list[Process] = []
        self._started = 0
        self._given = 0
        self._skipped_s = self._hurry_s = 0.0
        self._seen = (0, 0, 0)
        self._snapshots: Disk | None = None

    def run(self) -> Schedule:
        """Run to rest: faults while there is input, then calm.

        Raises
        ------
        StuckError
            It does not come to rest.
        FatalError
            A worker refused to go on that should have.
        """
        set_hook(self._at_fault)
        directory = tempfile.TemporaryDirectory() if self.seed % 3 == 1 else nullcontext("")
        with directory as path:
            self._snapshots = Disk(path) if path else None
            self._run()
        return self

    def _run(self) -> None:
        try:
            for slot in SLOTS[: 2 * self.plan.is_crowded]:
                self._start(slot)
            while self._given < len(self.input) or self._draw.random() < 0.95:
                self._tell_input()
                self._act()
            self._calm()
        finally:
            for one in self._alive:
                one.kill()
            set_hook(None)

    def undisturbed(self) -> MemoryStore:
        """Return what one worker stores of the same input when nothing ever fails."""
        log, store = new_log(self.plan.partitions), MemoryStore()
        for item in self.input:
            item.append_to(log)
        stream = MemoryStream(log, group=GROUP, slot="0", events_topic=EVENTS, labels_topic=LABELS)
        runner = _runner(config(WHOLE), stream, store, "0", flush_every_s=0.0)
        idle_steps = 0
        while idle_steps < 2:  # shared entities follow one step later
            idle_steps = 0 if runner.step() else idle_steps + 1
        return store

    def _act(self) -> None:
        """Do one thing: mostly, let some worker go on to its next calls."""
        often, draw = self.plan.trouble, self._draw
        acts: dict[str, tuple[float, Callable[[], None]]] = {
            "go_on": (1.0, self._go_on), "start": (0.03, self._start_any),
            "kill": (0.02 + often, self._kill_any), "hold": (often / 2, self._hold_any),
            "doom": (often, self._doom_any), "wake": (0.05, self._wake_any),
            "evict": (0.01, self._evict_any), "lose": (2 * often, self._lose),
            "repeat": (often, self._repeat), "torn": (0.05, self._end_torn),
            "time_out": (0.02, self._time_out), "damage": (2 * often, self._damage),
        }  # fmt: skip
        chances = [0.0 if name in self.cut.without else acts[name][0] for name in acts]
        draw.choices([act for _, act in acts.values()], chances)[0]()

    def _go_on(self) -> None:
        """One goes on for a while: the others stand still, as those that were stopped do."""
        awake = [one for one in self._alive if not one.is_held]
        if awake:
            self._let(self._draw.choice(awake), self._draw.choice((1, 3, 30)))
        else:
            self._start_any()

    def _doom_any(self) -> None:
        """Have one be killed or held when it comes to a place of the shipped code, or at once."""
        if self._alive:
            one = self._draw.choice(self._alive)
            one.doom = self._draw.choice(FAULTS)
            self._say(f"{one.name} will not pass {one.doom}")

    def _meet_doom(self, one: Process) -> None:
        one.doom = None
        if self._draw.random() < 0.3:
            self._say(f"{one.name} is killed")
            one.killed = True
        else:
            self._hold(one)
        one.stops_left = 0

    def _hold_any(self) -> None:
        if self._alive:
            self._hold(self._draw.choice(self._alive))

    def _hold(self, one: Process) -> None:
        """Hold one where it is; its group may give it up meanwhile, or the store lose writes."""
        one.is_held = True
        self._say(f"{one.name} is held")
        if self._draw.random() < 0.7 and one.slot in self.log.group(GROUP).members:
            self._evict(one.slot)
        if self._draw.random() < 0.6:
            self._lose()

    def _wake_any(self) -> None:
        held = [one for one in self._alive if one.is_held]
        if held:
            one = self._draw.choice(held)
            one.is_held = False
            self._say(f"{one.name} goes on")

    def _lose(self) -> None:
        lost = self._draw.choice((1, 2, 2, 3, 5))
        space = self._draw.choice([*sorted(self.server.held._spaces), ""])
        only = space if self._draw.random() < 0.5 else ""
        self._say(f"the store loses {lost} flushes {only}")
        self.server.roll_back(lost, only)

    def _repeat(self) -> None:
        if self.server.flushes:
            self._say("old flushes come again")
            self.server.repeat()

    def _calm(self) -> None:
        """End all faults and let the workers that are left come to rest."""
        self._say("no more faults")
        self._chances.calm()
        # A flush is due in every step: what the store lost last is noticed before they rest.
        self._hurry_s = self.plan.flush_every
        for one in self._alive:
            one.is_held, one.doom = False, None
        while self._torn:
            self._end_torn()
        for one in self._alive:
            one.idle_steps = 0
        until = self.steps + STEPS_MAX
        while not self._is_at_rest():
            self._time_out()
            for slot in self._gone():
                self._evict(slot)
                for one in self._alive:
                    one.idle_steps = 0
            if not self._alive:
                self._start("0")  # a zombie that found its slot taken has left
            for one in list(self._alive):
                self._let(one, self._draw.choice((1, 3, 30)))
            if self.steps > until:
                raise StuckError(f"seed {self.seed}: not at rest after {STEPS_MAX} steps")

    def _is_at_rest(self) -> bool:
        """Return whether every worker has idled for a while; the oracle says whether it should.

        Not while the group waits for one that is gone: its partitions are nobody's.
        """
        # Without work, each looks after one of two spaces a partition.
        enough = 2 * self.plan.partitions + 2
        idle = all(one.idle_steps > enough for one in self._alive)
        return bool(self._alive) and idle and not self._gone()

    def _gone(self) -> list[str]:
        return sorted(self.log.group(GROUP).members.keys() - {one.slot for one in self._alive})

    def _tell_input(self) -> None:
        """Append some of the input."""
        count = int(self._draw.random() < (0.1 if self.plan.is_crowded else 0.3))
        for item in self.input[self._given : self._given + count * self._draw.randrange(1, 9)]:
            item.append_to(self.log)
            self._given += 1

    def _start(self, slot: str) -> None:
        self._started += 1
        one = Process(slot, self._started, self._body)
        self._say(f"{one.name} starts")
        self._alive.append(one)

    def _start_any(self) -> None:
        self._start(self._draw.choice(SLOTS))

    def _kill_any(self) -> None:
        if self._alive:
            one = self._draw.choice(self._alive)
            self._say(f"{one.name} is killed")
            one.kill()
            self._alive.remove(one)

    def _evict_any(self) -> None:
        members = sorted(self.log.group(GROUP).members)
        if members:
            self._evict(self._draw.choice(members))

    def _evict(self, slot: str) -> None:
        self._say(f"the group gives up slot {slot}")
        self.log.evict(GROUP, slot)

    def _end_torn(self) -> None:
        """The positions of a transaction whose outputs are there arrive, or are lost for good."""
        if not self._torn:
            return
        one, offsets = self._torn.pop(0), self.log.group(GROUP).offsets
        if self._draw.random() < 0.5:
            self._say("positions of a torn transaction arrive")
            for place, at in one.positions.items():
                offsets[place] = max(at, offsets.get(place, 0))

    def _time_out(self) -> None:
        """Abort the transactions whose producers are dead, as the coordinator does in the end."""
        self.log.time_out({one.name for one in self._alive})

    def _damage(self) -> None:
        """Harm a snapshot of the models."""
        if self._snapshots is not None:
            self._say(f"snapshot: {self._snapshots.harm(self._draw)}")

    def _let(self, one: Process, stops: int) -> None:
        one.go_on(stops)
        if one.ended:
            self._alive.remove(one)
            for other in self._alive:  # it has something to take over
                other.idle_steps = 0
            if not one.killed:
                self._judge(one)

    def _judge(self, one: Process) -> None:
        """A worker may leave when its slot is taken; everything else is a fault of its own."""
        error = one.error
        self._say(f"{one.name} ends: {error}")
        if isinstance(error, FatalError) and "in its place" in str(error):
            return
        raise AssertionError(f"seed {self.seed}: {one.name} ended") from error

    def _stop(self, one: Process) -> None:
        self.steps += 1
        one.stop_here()

    def _at_fault(self, name: str) -> None:
        """Stop the process that reached a fault point, as at a call of the world."""
        for one in self._alive:
            if one.is_here():
                self._say(f"{one.name} is at {name}")
                if one.doom == name:
                    self._meet_doom(one)
                self._stop(one)
                return

    def _body(self, one: Process) -> None:
        def gate(what: str) -> None:
            if what.endswith(OPEN) and "hold" not in self.cut.without and self._draw.random() < 0.5:
                self._hold(one)
                one.stops_left = 0
            self._stop(one)
            self._say(f"{one.name}: {what}")

        runner = _runner(
            config(self.plan.batch, degrades=self.seed % 3 == 0),
            FaultyStream(self.log, one, self._chances, gate, self._torn),
            FaultyStore(self.server, self._chances, gate),
            one.slot,
            None if self._snapshots is None else self._snapshots.kept,
            *((Late(), Late()) if self.seed % 2 else ()),
            flush_every_s=self.plan.flush_every,
            clock_s=lambda: self.steps + self._skipped_s,
            sleep=lambda s: gate("sleep"),
        )
        while True:
            self._skipped_s += self._hurry_s
            runner.step()
            one.idle_steps += 1
            now = (self.server.changes, self.log.changes, self.log.group(GROUP).generation)
            if now != self._seen or runner._committer.is_running or runner._unflushed():
                self._seen = now
                for each in self._alive:  # it may have something to do with it
                    each.idle_steps = 0

    def _say(self, what: str) -> None:
        self.told.append(f"{self.steps:6} {what}")


def _runner(
    settings: Settings,
    stream: Stream,
    store: StateStore,
    slot: str,
    snapshots: Snapshots | None = None,
    *background: Executor,
    **words: Any,
) -> Runner:
    models = build_models(settings, spec().names)
    parts = Parts(settings, spec(), models, stream, store, _TELEMETRY, slot, snapshots, *background)
    return Runner(parts, lambda: False, **words)
