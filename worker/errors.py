"""Errors by what the caller should do: skip the record, wait, or stop.

Every message says where, what was expected, what came, and a hint; lower case, no full stop, and
never a payload, a secret or a raw entity id.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a configuration, located by its path from the root of the file."""

    path: tuple[str | int, ...]
    expected: str
    got: str
    hint: str = ""


class RiverwatchError(Exception):
    """Base of every error that riverwatch raises on purpose.

    Parameters
    ----------
    where
        The place: a file and line, ``topic/partition@offset``, or the name of a part.
    expected, got
        What the place asks for and what it found, in words.
    hint
        What the reader can do, for example a command. May be empty.
    """

    def __init__(self, where: str, expected: str = "", got: str = "", hint: str = "") -> None:
        self.where, self.expected, self.got, self.hint = where, expected, got, hint
        text = where
        if expected:
            text += f": expected {expected}"
        if got:
            text += (", got " if expected else ": ") + got
        if hint:
            text += f" ({hint})"
        super().__init__(text)


class RecordError(RiverwatchError):
    """One record is bad: it is counted, journalled as rejected and dead-lettered; the stream goes
    on.
    """


class TransientError(RiverwatchError):
    """The outside world failed for now: retry with a wait and a bound."""


class StoreAwayError(TransientError):
    """The store failed for now, not the stream."""


class FatalError(RiverwatchError):
    """State is threatened, or another process holds this slot: stop loudly, guess nothing."""


class UnknownLayoutError(FatalError):
    """Another version wrote a space. Not damage: versions that run at once would drop each other's
    spaces; whoever operates them drops it.
    """


class StateLostError(RiverwatchError):
    """What this worker holds of a shard no longer matches store or log: acquire the shard again."""


class UnansweredError(StateLostError):
    """Nobody answered in time whether something was committed: acquire the shard again, which asks
    until it is known.
    """


class StateDamagedError(StateLostError):
    """What the store holds is not whole, or not ours: drop the space, then acquire the shard again,
    which rebuilds it from the log.
    """


class ConfigError(RiverwatchError):
    """The configuration is wrong; carries every `Problem` found, not only the first."""

    def __init__(self, where: str, problems: list[Problem] | None = None, **words: str) -> None:
        self.problems = problems or []
        super().__init__(where, **words)
