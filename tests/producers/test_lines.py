"""Files of lines: complete under their name, compressed, the same bytes every time."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
import zstandard

from producers.lines import LineFile

LINES = [b'{"a":1}', b"", b'{"b":"\xc3\xa9"}']


def _write(path: Path) -> bytes:
    with LineFile(path) as lines:
        for line in LINES:
            lines.write(line)
    return path.read_bytes()


def _unzst(data: bytes) -> bytes:
    return zstandard.ZstdDecompressor().stream_reader(data).read()


@pytest.mark.parametrize(
    ("suffix", "read"), [(".jsonl", bytes), (".jsonl.gz", gzip.decompress), (".jsonl.zst", _unzst)]
)
def test_lines_come_back_whatever_the_compression(
    tmp_path: Path, suffix: str, read: object
) -> None:
    """The file holds each line with a line feed."""
    assert callable(read)
    assert read(_write(tmp_path / f"a{suffix}")) == b"".join(line + b"\n" for line in LINES)


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".jsonl.zst"])
def test_same_lines_give_the_same_bytes_under_any_name(tmp_path: Path, suffix: str) -> None:
    """Neither the time nor the name is in the file."""
    assert _write(tmp_path / f"a{suffix}") == _write(tmp_path / f"b{suffix}")


def test_a_file_has_its_name_only_when_it_is_complete(tmp_path: Path) -> None:
    """An error on the way leaves neither the file nor a part of it, and an older one as it was."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"older\n")

    def fail() -> None:
        with LineFile(path) as lines:
            lines.write(b"new")
            raise OSError("broker away")

    with pytest.raises(OSError, match="broker away"):
        fail()
    assert path.read_bytes() == b"older\n"
    assert list(tmp_path.iterdir()) == [path]


def test_an_unknown_suffix_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    """A name that says no known format is an error."""
    with pytest.raises(ValueError, match="jsonl"):
        LineFile(tmp_path / "a.csv")
    assert list(tmp_path.iterdir()) == []
