"""Tables as plain text: as wide as they are, on a terminal and in a pipe alike."""

from __future__ import annotations

from collections.abc import Sequence


def aligned(lines: Sequence[Sequence[str]], *, right: bool = False) -> str:
    """Return lines of cells in columns; the first line has the headings.

    >>> print(aligned([["model", "status"], ["fraud", "learning"]]))
    model  status
    fraud  learning
    """
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    side = str.rjust if right else str.ljust
    return "\n".join(
        "  ".join(side(cell, width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def shown(value: object) -> str:
    """Return a figure as a cell, three places of a float and a dash for what is not known.

    >>> shown(0.12345), shown(7), shown(None)
    ('0.123', '7', '-')
    """
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
