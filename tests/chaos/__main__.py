"""Run the faults and print the table: ``python -m tests.chaos [--only WORDS] [--minutes N]``.

Exit code 1 when a record was lost, doubled or wrong, or a fault did not end. Writes
build/chaos.json.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.chaos.cluster import KafkaCluster, Servers, StorePair
from tests.chaos.faults import FAULTS, SLOW, Fault
from tests.chaos.proxied import is_proxied
from tests.chaos.reading import recorded
from tests.chaos.verdict import judge
from tests.chaos.world import PARTITIONS, TOPICS, Load, World

_OUT = Path(__file__).parents[2] / "build" / "chaos.json"


@dataclass(slots=True)
class Row:
    """What became of one fault; seconds are None where they were not reached."""

    fault: str
    stall_s: float | None = None
    live_s: float | None = None
    exit_s: float | None = None
    records: int = 0
    lost: int = 0
    doubled: int = 0
    wrong: int = 0
    says: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Return whether the fault did no harm and ended."""
        return not (self.lost or self.doubled or self.wrong or self.says)


def finish(world: World, row: Row) -> None:
    """End a stream and judge it."""
    world.wait("live stream", lambda: world.live_s() is not None, 120)
    world.flow(1)
    world.end()
    row.live_s = world.live_s()
    row.stall_s = world.watch.stall_s(world.begun_s)
    row.exit_s = max(world.exits_s, default=None)
    names = {topic: world.prefix + topic for topic in TOPICS}
    counts = {topic: 1 if topic == "training" else PARTITIONS for topic in TOPICS}
    verdict = judge(recorded(world.bootstrap, names, counts), names["transactions"])
    row.records, row.lost, row.doubled = verdict.records, verdict.lost, verdict.doubled
    row.wrong, row.says = verdict.wrong, verdict.says


def run(name: str, fault: Fault, servers: Servers, directory: Path, seed: int) -> Row:
    """Return what becomes of a stream of its own that has this fault."""
    row = Row(name)
    near = servers.kafka.proxied if is_proxied(fault) else None
    load = Load(rate=40) if fault in SLOW.values() else Load()  # so that it lasts
    world = World(
        directory, servers.kafka.bootstrap, servers.store.url, f"chaos{time.time_ns() % 10**9}",
        seed, replicas=3, load=load, near=near,
    )  # fmt: skip
    try:
        world.begin()
        fault(world, servers)
        finish(world, row)
    except (AssertionError, TimeoutError) as error:
        row.says.append(f"{type(error).__name__}: {error}")
    finally:
        world.close()
    return row


def table(rows: list[Row]) -> Table:
    """Return the table of what was found."""
    made = Table(title="real servers: three Kafka nodes, Valkey with a replica, two workers")
    made.add_column("fault")
    for column in ("stall s", "live again s", "exit s", "records", "lost", "doubled", "wrong"):
        made.add_column(column, justify="right")
    for row in rows:
        seconds = (row.stall_s, row.live_s, row.exit_s)
        texts = ["-" if s is None else f"{s:.1f}" for s in seconds]
        counts = (row.records, row.lost, row.doubled, row.wrong)
        style = None if row.good else "red"
        made.add_row(row.fault, *texts, *(f"{count:,}" for count in counts), style=style)
    return made


def main() -> int:
    """Run what the arguments name."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--only", action="append", help="faults with these words in their names")
    parser.add_argument("--minutes", type=float, default=60, help="begin no fault after that")
    parser.add_argument("--seed", type=int, default=0, help="of the stream and of random faults")
    parser.add_argument("--list", action="store_true", help="print the names of all faults")
    parser.add_argument("--keep", action="store_true", help="keep the workers' logs")
    arguments = parser.parse_args()
    if arguments.list:
        print("\n".join([*FAULTS, *SLOW]))
        return 0
    chosen = FAULTS
    if arguments.only:
        every = FAULTS | SLOW
        chosen = {n: f for n, f in every.items() if any(w in n for w in arguments.only)}
    logging.getLogger("kafka").setLevel(logging.CRITICAL)  # what it says of dead nodes is expected
    rows = _run_all(chosen, arguments.minutes, arguments.seed, arguments.keep)
    _OUT.parent.mkdir(exist_ok=True)
    _OUT.write_text(json.dumps([_as_dict(row) for row in rows], indent=1) + "\n")
    Console(width=120).print(table(rows))
    for row in rows:
        for said in row.says:
            print(f"{row.fault}: {said}")
    return 0 if all(row.good for row in rows) and len(rows) == len(chosen) else 1


def _run_all(chosen: dict[str, Fault], minutes: float, seed: int, keep: bool) -> list[Row]:
    rows: list[Row] = []
    until_s = time.monotonic() + 60 * minutes
    directory = Path(tempfile.mkdtemp(prefix="chaos-"))
    with KafkaCluster() as kafka, StorePair() as store:
        for name, fault in chosen.items():
            if time.monotonic() > until_s:
                print(f"not begun after {minutes:g} minutes: {name}", file=sys.stderr)
                continue
            place = directory / f"{len(rows)}-{name.replace(' ', '-').replace(':', '')}"
            row = run(name, fault, Servers(kafka, store), place, seed)
            rows.append(row)
            print(_as_dict(row), flush=True)
            _mend(kafka, store)
    if keep or not all(row.good for row in rows):
        print(f"the workers' logs are in {directory}")
    else:
        shutil.rmtree(directory)
    return rows


def _mend(kafka: KafkaCluster, store: StorePair) -> None:
    """Make the servers whole after a fault that ended in the middle."""
    for node in kafka.nodes.values():
        if node.running:
            node.thaw()
    down = [number for number, node in kafka.nodes.items() if not node.running]
    if down:
        kafka.start(*down)
    store.restore()


def _as_dict(row: Row) -> dict[str, object]:
    found = asdict(row).items()
    return {name: round(v, 2) if isinstance(v, float) else v for name, v in found}


if __name__ == "__main__":
    sys.exit(main())
