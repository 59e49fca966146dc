"""The bytes of a file, plain or compressed, in bounded memory: as lines, or as text."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

LINE_BYTES_MAX = 1 << 20
"""A longer line is cut to this; it is over every `EventSettings.record_bytes_max`."""

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}

_READ_BYTES = 1 << 16
_BOM = b"\xef\xbb\xbf"


@dataclass(slots=True)
class Progress:
    """How far files were read, in bytes as stored."""

    bytes_read: int = 0


def lines_of(path: Path, progress: Progress) -> Iterator[list[bytes]]:
    """Yield the lines that are not blank, without their line feeds and cut where too long."""
    with _Opened(path, progress) as read:
        rest, is_first = b"", True
        while data := read():
            if is_first:
                data, is_first = data.removeprefix(_BOM), False
            first, *others = data.split(b"\n")
            # The only line that may be too long, as a read is far shorter than the bound.
            lines = [(rest + first)[:LINE_BYTES_MAX], *others]
            rest = lines.pop()
            kept = [line for line in lines if line and not line.isspace()]
            if kept:
                yield kept
        if rest and not rest.isspace():
            yield [rest]


@contextmanager
def text_of(path: Path, progress: Progress) -> Iterator[io.TextIOWrapper]:
    """Give a file as text; bytes that are not UTF-8 become lone surrogates, line ends stay."""
    with _Opened(path, progress) as read:
        raw = io.BufferedReader(_Bytes(read), _READ_BYTES)
        yield io.TextIOWrapper(raw, "utf-8-sig", "surrogateescape", newline="")


class _Opened:
    """A function that returns the next bytes of a file, decompressed; empty at its end."""

    def __init__(self, path: Path, progress: Progress) -> None:
        self._raw = pa.OSFile(str(path))
        kind = COMPRESSIONS.get(path.suffix)
        self.stream = self._raw if kind is None else pa.CompressedInputStream(self._raw, kind)
        self._progress = progress
        self._before = progress.bytes_read

    def __enter__(self) -> Callable[[], bytes]:
        return self._read

    def __exit__(self, *_: object) -> None:
        self.stream.close()
        self._raw.close()

    def _read(self) -> bytes:
        data: bytes = self.stream.read(_READ_BYTES)
        self._progress.bytes_read = self._before + self._raw.tell()
        return data


class _Bytes(io.RawIOBase):
    """Such a function as a stream, for the decoders of the standard library."""

    def __init__(self, read: Callable[[], bytes]) -> None:
        self._read = read
        self._left = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # Any: any writable buffer
        self._left = self._left or self._read()
        taken, self._left = self._left[: len(buffer)], self._left[len(buffer) :]
        buffer[: len(taken)] = taken
        return len(taken)
