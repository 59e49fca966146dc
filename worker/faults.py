"""Named places of the shell where a test may end or hold a worker; off, they cost one comparison.

docs/delivery.md says of each what happens when the worker dies there.
"""

from __future__ import annotations

from collections.abc import Callable

FAULTS = (
    "acquire_standing", "acquire_committed", "acquire_settled", "acquire_restored",
    "acquire_folded", "acquire_sought", "polled", "learned", "processed", "committed", "noted",
    "flush_started", "flushed", "secondary_folded", "snapshot_written",
)  # fmt: skip

_hook: Callable[[str], None] | None = None


def fault(name: str) -> None:
    """Tell the hook, if there is one, that a worker is at this place."""
    if _hook is not None:
        _hook(name)


def set_hook(hook: Callable[[str], None] | None) -> None:
    """Call ``hook`` with every name from now on; None calls nothing. For tests."""
    global _hook
    _hook = hook
