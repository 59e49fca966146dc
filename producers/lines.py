"""Files of lines, plain or compressed by their suffix, complete or not there at all."""

from __future__ import annotations

import gzip
from pathlib import Path
from types import TracebackType
from typing import IO, cast

from producers.items import Item

SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst")


class LineFile:
    """Writes lines to ``PATH.part`` and gives it its name when the block ends without an error.

    ``.gz`` and ``.zst`` are compressed, without the time or the name in their header: same lines,
    same bytes.

    Raises
    ------
    ValueError
        The name does not end in ``.jsonl``, ``.jsonl.gz`` or ``.jsonl.zst``.
    """

    def __init__(self, path: Path) -> None:
        if not path.name.endswith(SUFFIXES):
            raise ValueError(f"{path}: expected a name that ends in {', '.join(SUFFIXES)}")
        self._path, self._part = path, path.with_name(path.name + ".part")
        self._raw = self._part.open("wb")
        self._lines = _compressed(self._raw, path.suffix)

    def __enter__(self) -> LineFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lines.close()
        self._raw.close()
        if kind is None:
            self._part.replace(self._path)
        else:
            self._part.unlink()

    def write(self, line: bytes) -> None:
        """Append one line; it holds no line feed itself."""
        assert b"\n" not in line
        self._lines.write(line + b"\n")


class ItemFiles:
    """Events to one file of lines, labels to the other; keys are left out, the lines hold them."""

    def __init__(self, events: LineFile, labels: LineFile) -> None:
        self._files = {"event": events, "label": labels}

    def send(self, item: Item) -> None:
        """Append one item. A file has no tombstones: the value is there."""
        assert item.value is not None
        self._files[item.kind].write(item.value)


def _compressed(raw: IO[bytes], suffix: str) -> IO[bytes]:
    if suffix == ".gz":
        return cast(IO[bytes], gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0))
    if suffix == ".zst":
        import zstandard  # only for those who ask for it

        return zstandard.ZstdCompressor(level=9).stream_writer(raw, closefd=False)
    return raw
