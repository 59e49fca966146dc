"""The directory of a schedule's model snapshots, and what can befall the files in it."""

from __future__ import annotations

import hmac
import random
from contextlib import suppress
from pathlib import Path

import msgspec
from pydantic import SecretStr

from tests.simulation.world import config, spec
from worker.commands import snapshots_of
from worker.contracts.settings import SnapshotSettings
from worker.errors import StateLostError

_EVERY, _AHEAD = 2, 40
_HEADER_BYTES = 200  # about: flips there are what the proof by probes cannot see
_KEY = SecretStr("simulated-snapshots")


class Disk:
    """Snapshots that all workers of a schedule share: ``kept``."""

    def __init__(self, directory: str) -> None:
        declared = SnapshotSettings(directory=directory, key=_KEY, every=_EVERY, keep=3)
        self._directory = Path(directory)
        kept = snapshots_of(config(8).model_copy(update={"snapshots": declared}), spec())
        assert kept is not None
        self.kept = kept

    def harm(self, draw: random.Random) -> str:
        """Damage, cut off, swap or lose a file, or bring one of a longer log; say which."""
        paths = sorted(self._directory.glob("*.rws"))
        if not paths:
            return "none is there"
        path = draw.choice(paths[-2:])
        data = bytearray(path.read_bytes())
        what = draw.choice(("damaged", "damaged", "cut off", "swapped", "lost", "ahead"))
        if what == "damaged":
            at = draw.randrange(draw.choice((_HEADER_BYTES, len(data))))
            data[at % len(data)] ^= 1 << draw.randrange(8)
            path.write_bytes(data)
        elif what == "cut off":
            path.write_bytes(data[: draw.randrange(len(data))])
        elif what == "swapped":
            path.write_bytes(paths[0].read_bytes())
        elif what == "lost":
            path.unlink()
        else:
            self._bring_ahead(path)
        return f"{path.name} {what}"

    def _bring_ahead(self, path: Path) -> None:
        """Write a whole snapshot, rightly signed, of a version that this log does not have."""
        with suppress(StateLostError):  # it was damaged before
            header = self.kept.read(path).header
            version = header.version + _AHEAD
            data = path.read_bytes()
            head = msgspec.json.encode(msgspec.structs.replace(header, version=version))
            body = data[12 + int.from_bytes(data[8:12], "little") : -32]
            signed = data[:8] + len(head).to_bytes(4, "little") + head + body
            name = path.name.replace(f"{header.version:016d}", f"{version:016d}")
            key = _KEY.get_secret_value().encode()
            path.with_name(name).write_bytes(signed + hmac.digest(key, signed, "sha256"))
