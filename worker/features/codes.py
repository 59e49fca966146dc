"""Numbers that name, in a plan, what the kernels do: constants only."""

from __future__ import annotations

COUNT, SUM, MEAN, STD, MIN, MAX = range(6)
"""Ops on the moments of a window."""

WINDOW_RATIO, WINDOW_ZSCORE, DISTINCT = range(6, 9)
"""Other ops on a window: with the event's own value, or with the values of the ring."""

(
    FIRST, LAST, MEAN_LAST, TOP_SHARE, FIRST_SEEN, RANK, RATIO, ZSCORE, SINCE_LAST, STREAK,
    DISTANCE, SPEED, SUM_LAST,
) = range(13)  # fmt: skip
"""Ops on the ring."""

FIRST_TIME, DECAYED_COUNT, DECAYED_SUM = range(3)
"""Registers: what a number of an entity holds."""

SINCE_FIRST, DECAYED_RATE, DECAYED_MEAN = range(3)
"""Ops on registers."""

PLACE_SUM, PLACE_SQUARES, PLACE_EXTREMES, PLACE_COUNT, PLACE_BITS, FORM = range(6)
"""Columns of `Plan.recorded`."""

SIGNED, OPTIONAL, HASHED = range(3)
"""How values are packed: as varints, with a sign for what is missing, or as eight bytes."""

MISSING = -(1 << 63)
"""What a recorded column holds of an event without the value."""

FRAUD_RUN, FRAUD_RUN_AGE, FRAUD_RUN_GAP, CLEAN_RUN = range(4)
"""What is read of the trailing labelled events."""
