"""One schedule: workers, their faults and their input, all decided by one seed.

Each worker runs in a thread of its own, and only one thread runs at a time: at every call of a
stream or a store the scheduler decides who goes on. So a seed gives the same schedule again.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from tests.simulation.faults import (
    EVENTS,
    GROUP,
    LABELS,
    Chances,
    FaultyStore,
    FaultyStream,
    Killed,
    Server,
    Torn,
)
from tests.simulation.world import Item, config, items, spec
from tests.worlds import Late, new_log
from worker.errors import FatalError
from worker.faults import set_hook
from worker.models.catalogue import build_models
from worker.runner import Parts, Runner
from worker.streams.memory import MemoryLog
from worker.telemetry import Telemetry

STEPS_MAX = 30_000
IDLE_STEPS = 8  # steps without work after which nothing more will come
SLOTS = ("0", "1", "2")
_QUIET = structlog.wrap_logger(
    None, wrapper_class=structlog.make_filtering_bound_logger("critical")
)


class StuckError(AssertionError):
    """After the last fault the workers do not come to rest: liveness is broken."""


class Process:
    """One worker process: a thread that runs only while the scheduler waits for it."""

    def __init__(self, slot: str, number: int, body: Callable[[Process], None]) -> None:
        self.slot, self.name = slot, f"worker {slot}.{number}"
        self.error: BaseException | None = None
        self.ended = False
        self.killed = False
        self.idle_steps = 0
        self._body = body
        self._mine, self._theirs = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self._thread.start()

    def go_on(self) -> None:
        """Run until it reaches its next call of the world, or ends."""
        self._mine.release()
        self._theirs.acquire()

    def kill(self) -> None:
        """End it where it is; it touches nothing any more."""
        self.killed = True
        while not self.ended:
            self.go_on()

    def is_here(self) -> bool:
        """Return whether this is the thread that asks."""
        return threading.current_thread() is self._thread

    def stop_here(self) -> None:
        """Let the scheduler decide; called by the process."""
        if not self.killed:
            self._theirs.release()
            self._mine.acquire()
        if self.killed:
            raise Killed

    def _run(self) -> None:
        self._mine.acquire()
        try:
            if not self.killed:
                self._body(self)
        except Killed:
            pass
        except BaseException as error:  # the scheduler judges it
            self.error = error
        self.ended = True
        self._theirs.release()


@dataclass
class Plan:
    """What a seed chooses before it begins."""

    partitions: int
    events: int
    batch: int
    flush_every: float
    fails: float
    commit_fails: float
    kills: float

    @classmethod
    def of(cls, draw: random.Random) -> Plan:
        """Draw one."""
        return cls(
            draw.choice((1, 1, 2, 3)), draw.randrange(8, 45), draw.choice((3, 8, 20)),
            draw.choice((0.0, 0.0, 30.0, 600.0)), draw.choice((0.0, 0.01, 0.05)),
            draw.choice((0.0, 0.1, 0.3)), draw.choice((0.0, 0.003, 0.01)),
        )  # fmt: skip


@dataclass
class Schedule:
    """A world under way, and what is left of it in the end: the log and the store."""

    seed: int
    log: MemoryLog = field(init=False)
    server: Server = field(default_factory=Server)
    told: list[str] = field(default_factory=list)
    steps: int = 0

    def __post_init__(self) -> None:
        self._draw = random.Random(self.seed)
        self.plan = Plan.of(self._draw)
        self.log = new_log(self.plan.partitions)
        self.input: list[Item] = items(self._draw, self.plan.partitions, self.plan.events)
        self._chances = Chances(self._draw, self.plan.fails, self.plan.commit_fails)
        self._torn: list[Torn] = []
        self._alive: list[Process] = []
        self._started = 0
        self._given = 0
        self._skipped_s = 0.0

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
        try:
            while self._given < len(self.input) or self._draw.random() < 0.99:
                self._tell_input()
                self._act()
            self._calm()
        finally:
            for one in self._alive:
                one.kill()
            set_hook(None)
        return self

    def undisturbed(self) -> Schedule:
        """Return what one worker makes of the same input when nothing ever fails."""
        other = Schedule(self.seed)
        for item in other.input:
            other._append(item)
        other._given = len(other.input)
        try:
            other._calm()
        finally:
            for one in other._alive:
                one.kill()
        return other

    def _act(self) -> None:
        """Do one thing: mostly, let some worker go on to its next call."""
        dice, kills, draw = self._draw.random(), self.plan.kills, self._draw
        if not self._alive or dice < 0.002 * len(SLOTS):
            self._start(draw.choice(SLOTS))
        elif dice < 0.01 + kills:
            self._kill(draw.choice(self._alive))
        elif dice < 0.012 + kills:
            self._evict()
        elif dice < 0.012 + 1.5 * kills:
            self._say(f"the store loses {(lost := draw.randrange(1, 6))} flushes")
            self.server.roll_back(lost)
        elif dice < 0.012 + 2 * kills and self.server.flushes:
            self._say("an old flush comes again")
            self.server.repeat(draw.randrange(5))
        elif dice < 0.03 + 2 * kills and self._torn:
            self._end_torn()
        else:
            # One goes on for a while: the others stand still, as those that were stopped do.
            one = draw.choice(self._alive)
            for _ in range(draw.choice((1, 3, 30))):
                if not one.ended:
                    self._let(one)

    def _calm(self) -> None:
        """End all faults and let the workers that are left come to rest."""
        self._say("no more faults")
        self._chances.calm()
        while self._torn:
            self._end_torn()
        alive = {one.slot for one in self._alive}
        for slot in sorted(self.log.group(GROUP).members.keys() - alive):
            self.log.evict(GROUP, slot)
        if not self._alive:
            self._start("0")
        for one in self._alive:
            one.idle_steps = 0
        until = self.steps + STEPS_MAX
        while not self._is_at_rest():
            if not self._alive:
                self._start("0")  # a zombie that found its slot taken has left
            # A flush is due in every step: what the store lost last is noticed before they rest.
            self._skipped_s += self.plan.flush_every
            for one in list(self._alive):
                self._let(one)
            if self.steps > until:
                raise StuckError(f"seed {self.seed}: not at rest after {STEPS_MAX} steps")

    def _is_at_rest(self) -> bool:
        """Return whether every worker has idled for a while; the oracle says whether it should."""
        return bool(self._alive) and all(one.idle_steps > IDLE_STEPS for one in self._alive)

    def _tell_input(self) -> None:
        """Append some of the input."""
        count = 1 if self._draw.random() < 0.05 else 0
        for item in self.input[self._given : self._given + count * self._draw.randrange(1, 9)]:
            self._append(item)
            self._given += 1

    def _append(self, item: Item) -> None:
        topic = EVENTS if item.is_event else LABELS
        self.log.append(topic, item.partition, item.value, item.key, item.time_ms)

    def _start(self, slot: str) -> None:
        self._started += 1
        one = Process(slot, self._started, self._body)
        self._say(f"{one.name} starts")
        self._alive.append(one)

    def _kill(self, one: Process) -> None:
        self._say(f"{one.name} is killed")
        one.kill()
        self._alive.remove(one)

    def _evict(self) -> None:
        members = sorted(self.log.group(GROUP).members)
        if members:
            slot = self._draw.choice(members)
            self._say(f"the group gives up slot {slot}")
            self.log.evict(GROUP, slot)

    def _end_torn(self) -> None:
        """The positions of a transaction whose outputs are there arrive, or are lost for good."""
        one, offsets = self._torn.pop(0), self.log.group(GROUP).offsets
        if self._draw.random() < 0.5:
            self._say("positions of a torn transaction arrive")
            for place, at in one.positions.items():
                offsets[place] = max(at, offsets.get(place, 0))

    def _let(self, one: Process) -> None:
        self.steps += 1
        one.go_on()
        if one.ended:
            self._alive.remove(one)
            self._judge(one)

    def _judge(self, one: Process) -> None:
        """A worker may leave when its slot is taken; everything else is a fault of its own."""
        error = one.error
        self._say(f"{one.name} ends: {error}")
        if isinstance(error, FatalError) and "in its place" in str(error):
            return
        raise AssertionError(f"seed {self.seed}: {one.name} ended") from error

    def _at_fault(self, name: str) -> None:
        """Stop the process that reached a fault point, as at a call of the world."""
        for one in self._alive:
            if one.is_here():
                one.stop_here()
                self._say(f"{one.name} is at {name}")
                return

    def _body(self, one: Process) -> None:
        def gate(what: str) -> None:
            one.stop_here()
            self._say(f"{one.name}: {what}")

        settings = config(self.plan.batch)
        stream = FaultyStream(self.log, one.slot, self._chances, gate, self._torn)
        store = FaultyStore(self.server, self._chances, gate)
        models = build_models(settings, spec().names)
        telemetry = Telemetry(lambda: 0.0)
        telemetry.log = _QUIET
        runner = Runner(
            Parts(
                settings,
                spec(),
                models,
                stream,
                store,
                telemetry,
                one.slot,
                None,
                *((Late(), Late()) if self.seed % 2 else ()),
            ),
            lambda: False,
            flush_every_s=self.plan.flush_every,
            clock_s=lambda: self.steps + self._skipped_s,
            sleep=lambda s: gate("sleep"),
        )
        while True:
            done = runner.step()
            busy = done or runner._committer.is_running or runner._unflushed()
            one.idle_steps = 0 if busy else one.idle_steps + 1

    def _say(self, what: str) -> None:
        self.told.append(f"{self.steps:6} {what}")
