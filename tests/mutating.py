"""Breaking a protection for a while, from outside of what ships."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def instead(owner: Any, name: str, make: Callable[[Any], Any]) -> Iterator[None]:
    """Replace an attribute by what ``make`` makes of it."""
    before = getattr(owner, name)
    setattr(owner, name, make(before))
    try:
        yield
    finally:
        setattr(owner, name, before)


def always(answer: Any) -> Callable[[Any], Any]:
    """Return what makes a function that gives this answer, whatever it is asked."""
    return lambda _: lambda *arguments: answer
