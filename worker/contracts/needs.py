"""Work that asks for values on its way, so that the needs of several can be met together."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import TypeVar

T = TypeVar("T")

Needs = Generator[list[str], list[bytes | None], T]
"""Yields keys of the store, each once, is sent their values, and returns what it made of them."""


def satisfy(needs: Needs[T], load: Callable[[list[str]], Sequence[bytes | None]]) -> T:
    """Run to the end with the values that ``load`` returns for keys.

    >>> def greeting() -> Needs[str]:
    ...     (name,) = yield ["name"]
    ...     return "nobody" if name is None else name.decode()
    >>> satisfy(greeting(), lambda keys: [b"Ada"])
    'Ada'
    """
    try:
        keys = next(needs)
        while True:
            keys = needs.send(list(load(keys)))
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
