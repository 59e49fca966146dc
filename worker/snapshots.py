"""Snapshots in a directory: written at multiples of K examples, found again at the start.

A file is named after its version, and after its key and what it is of,
``NAME-v0000000000001234-1f0c9a77.rws``; its bytes depend on these and the training log alone:
workers that share a directory write the same file, whoever is first. One with another key, other
features or models writes beside: it can neither keep the others from writing theirs nor delete
them.
"""

from __future__ import annotations

import hmac
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from worker.contracts.records import Float64
from worker.contracts.settings import SnapshotSettings
from worker.errors import StateLostError, TransientError
from worker.faults import fault
from worker.models.snapshot import (
    PROBES_MAX,
    Header,
    Origin,
    Snapshot,
    check_origin,
    decode,
    encode,
    header_of,
    prove,
)
from worker.models.versioned import ModelSet

_SUFFIX = ".rws"
_PART_S = 3_600.0  # nobody writes for so long


@dataclass(frozen=True, slots=True)
class Found:
    """A file of the directory: its header, or why it is refused."""

    path: Path
    header: Header | None
    refused: str = ""


class Snapshots:
    """The snapshots of one worker's models.

    Parameters
    ----------
    origin
        Those of another one are refused.
    build
        Returns models of the same configuration that have learned nothing: a snapshot is tried on
        these first.
    """

    def __init__(
        self, settings: SnapshotSettings, origin: Origin, build: Callable[[], ModelSet]
    ) -> None:
        self.every = settings.every
        self._keep = settings.keep
        self._directory = Path(settings.directory)
        self._key = settings.key.get_secret_value().encode()
        told = f"{origin.name} {origin.spec_hash} {origin.models_hash}".encode()
        self._mark = hmac.digest(self._key, told, "sha256")[:4].hex()
        self._name, self._origin, self._build = origin.name, origin, build

    def save(self, models: ModelSet, version: int, examples: int, probes: Float64) -> Path:
        """Write a snapshot unless it is there, and delete the oldest beyond ``keep``.

        Raises
        ------
        TransientError
            The directory cannot be written now. Nothing but a quicker start is lost.
        """
        path = self._directory / f"{self._name}-v{version:016d}-{self._mark}{_SUFFIX}"
        header = header_of(self._origin, version, examples, models, platform.python_version())
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                _write(path, encode(header, models, probes[-PROBES_MAX:], self._key))
                self._clean()
            for old in self._paths(f"-{self._mark}")[self._keep :]:
                old.unlink(missing_ok=True)
        except OSError as error:
            raise TransientError(
                str(path), "a directory that can be written", type(error).__name__
            ) from error
        return path

    def _clean(self) -> None:
        """Delete what writers that died have left."""
        for part in self._directory.glob(f"{self._name}-v*.part"):
            with suppress(FileNotFoundError):  # its writer has ended it meanwhile
                if time.time() - part.stat().st_mtime > _PART_S:
                    part.unlink()

    def newest(self, first: int, end: int, refused: Callable[[Found], None]) -> Snapshot | None:
        """Return the newest valid snapshot, None for none.

        Parameters
        ----------
        first, end
            Of the training log: a snapshot outside of it does not belong to it.
        refused
            Told of every snapshot that was passed over.
        """
        for path in self._paths():
            try:
                return self.proved(path, first, end)
            except StateLostError as error:
                refused(Found(path, None, str(error)))
        return None

    def proved(self, path: Path, first: int = 0, end: int | None = None) -> Snapshot:
        """Return a snapshot that was tried: signature, origin, place in the log, probes.

        Raises
        ------
        StateLostError
            It fails one of these.
        """
        snapshot = self.read(path)
        models = self._build()
        check_origin(snapshot.header, self._origin, models, path.name)
        version = snapshot.header.version
        if version < first or (end is not None and version > end):
            raise StateLostError(path.name, f"a version in {first}..{end}", str(version))
        try:
            models.restore(snapshot.state)
            prove(snapshot, models, path.name)
        except StateLostError:
            raise
        except Exception as error:  # signed, and of a riverwatch that keeps its models otherwise
            told = f"{type(error).__name__} when they were taken"
            raise StateLostError(path.name, "values that these models take", told) from error
        return snapshot

    def found(self) -> Iterator[Found]:
        """Yield every file, the newest first, with its header if its signature is right."""
        for path in self._paths():
            try:
                yield Found(path, self.read(path).header)
            except StateLostError as error:
                yield Found(path, None, str(error))

    def read(self, path: Path) -> Snapshot:
        """Return a snapshot after its signature was checked; StateLostError where it is wrong."""
        try:
            data = path.read_bytes()
        except OSError as error:
            raise StateLostError(path.name, "a readable file", type(error).__name__) from error
        return decode(data, self._key, path.name)

    def _paths(self, mark: str = "*") -> list[Path]:
        """Return the files of this name, all of them or of one mark, the newest version first."""
        pattern = f"{self._name}-v{'[0-9]' * 16}{mark}{_SUFFIX}"
        return sorted(self._directory.glob(pattern), reverse=True)


def _write(path: Path, data: bytes) -> None:
    """Write a file whole or not at all; another writer of the same bytes does no harm."""
    part = path.with_suffix(f".{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        part.unlink(missing_ok=True)  # a disk that is full needs the room
        raise
    fault("snapshot_written")
    part.replace(path)
