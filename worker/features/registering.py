"""Registers: numbers of an entity that are folded in the order of the log, and what is read."""

from __future__ import annotations

from worker.contracts.records import Float64, Int64
from worker.features.codes import (
    DECAYED_MEAN,
    DECAYED_RATE,
    DECAYED_SUM,
    FIRST_TIME,
    MISSING,
    SINCE_FIRST,
)
from worker.features.compiling import outlined
from worker.features.elementary import half_life


@outlined
def clear_registers(kept: Int64, registers: Float64, slot: int) -> None:
    """Make the registers of an entity as of one that was never seen."""
    for r in range(len(kept)):
        registers[slot, r] = -1.0 if kept[r, 0] == FIRST_TIME else 0.0


@outlined
def move_registers(
    kept: Int64, rates: Float64, registers: Float64, slot: int, elapsed_ms: int
) -> None:
    """Let decayed sums decay to the entity's now."""
    for r in range(len(kept)):
        if kept[r, 0] != FIRST_TIME:
            registers[slot, r] *= half_life(elapsed_ms * rates[r])


@outlined
def fold_registers(
    kept: Int64,
    rates: Float64,
    registers: Float64,
    slot: int,
    t: int,
    now: int,
    own: Int64,
    e: int,
) -> None:
    """Add an event of time t to registers that have been moved to now."""
    for r in range(len(kept)):
        holds, f = kept[r, 0], kept[r, 1]
        v = own[e, f] if f >= 0 else 1
        if v == MISSING:
            continue
        if holds == FIRST_TIME:
            first = registers[slot, r]
            registers[slot, r] = float(t) if first < 0.0 else min(first, float(t))
        else:
            weight = half_life((now - t) * rates[r])
            registers[slot, r] += weight * v if holds == DECAYED_SUM else weight


@outlined
def read_registers(
    ops: Int64,
    scales: Float64,
    first: int,
    end: int,
    registers: Float64,
    slot: int,
    now: int,
    X: Float64,
    e: int,
) -> None:
    """Write the features of register ops ``first`` to before ``end``."""
    for p in range(first, end):
        code, a, b, column = ops[p, 0], ops[p, 1], ops[p, 2], ops[p, 3]
        value = registers[slot, a]
        if code == SINCE_FIRST:
            X[e, column] = (now - value) / 1000.0 if value >= 0.0 else -1.0
        elif code == DECAYED_RATE:
            X[e, column] = value * scales[p, 2]
        elif code == DECAYED_MEAN and value > 0.0:
            X[e, column] = registers[slot, b] * scales[p, 0] / (value * scales[p, 1])
