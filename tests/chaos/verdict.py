"""What a fault left behind: records that were lost, doubled or wrong."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from tests.simulation.oracle import wrongs
from tests.worlds import journal
from worker.streams.memory_log import MemoryLog


@dataclass(slots=True)
class Verdict:
    """Counts of records; ``says`` names the first ones.

    ``lost`` and ``doubled`` are journal rows, alerts and dead letters that are not there, or too
    often; ``wrong`` are outcomes, values of x, scores and examples that are not the oracle's. It is
    not known where the journal itself is not whole.
    """

    records: int = 0
    lost: int = 0
    doubled: int = 0
    wrong: int = 0
    says: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Return whether nothing was found."""
        return not (self.lost or self.doubled or self.wrong)


def judge(log: MemoryLog, topic: str) -> Verdict:
    """Hold what was committed against its input; ``topic`` is the events' name on Kafka."""
    partitions = range(log.partitions["transactions"])
    rows = {p: journal(log, p) for p in partitions}
    verdict = Verdict(records=sum(log.end("transactions", p) for p in partitions))
    for p in partitions:
        _count(verdict, f"journal {p}", _offsets(rows[p]), range(log.end("transactions", p)))
    whole = all(_offsets(rows[p]) == list(range(log.end("transactions", p))) for p in partitions)
    for p in partitions:
        _count(verdict, f"alerts {p}", _alerts(log, p), _alerts_asked(rows[p], topic, p))
        _count(verdict, f"letters {p}", *_letters(log, p, rows[p]))
    if whole:
        found = list(wrongs(log, rows))
        verdict.wrong = len(found)
        verdict.says += [str(one) for one in found[:5]]
    elif verdict.good:
        verdict.wrong = 1
        verdict.says.append("rows are not in the order of their events")
    return verdict


def _count(verdict: Verdict, what: str, found: Iterable[Any], wanted: Iterable[Any]) -> None:
    there, asked = Counter(found), Counter(wanted)
    lost, doubled = asked - there, there - asked
    verdict.lost += lost.total()
    verdict.doubled += doubled.total()
    verdict.says += [f"{what} lost: {sorted(lost)[:5]}"] if lost else []
    verdict.says += [f"{what} doubled: {sorted(doubled)[:5]}"] if doubled else []


def _offsets(rows: list[dict[str, Any]]) -> list[int]:
    return [row["source_offset"] for row in rows]


def _alerts(log: MemoryLog, p: int) -> list[str]:
    messages = [json.loads(value or b"") for value in log.read("alerts", p, 0, 10**9).values]
    return [one["alert_id"] for one in messages if one["kind"] == "alert"]


def _alerts_asked(rows: list[dict[str, Any]], topic: str, p: int) -> list[str]:
    return [f"{topic}-{p}-{row['source_offset']}" for row in rows if row["decision"] == "alert"]


def _letters(
    log: MemoryLog, p: int, rows: list[dict[str, Any]]
) -> tuple[list[bytes | None], list[bytes | None]]:
    """Return the dead letters that are there, and the values of the rejected rows."""
    values = dict(enumerate(log.read("transactions", p, 0, 10**9).values))
    bad = [values[row["source_offset"]] for row in rows if row["outcome"] == "rejected"]
    return log.read("dead-letters", p, 0, 10**9).values, bad
