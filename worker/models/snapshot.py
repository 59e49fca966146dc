"""Snapshots of learned models as signed bytes: what they say of themselves, and their proof.

Layout: magic (8 bytes), length of the header (u32, little-endian), header (JSON), body (msgpack of
plain values, see `worker.models.plain`), HMAC-SHA256 over all of it (32 bytes). The signature is
checked before anything else is read; nothing in these bytes is ever run or unpickled. The body
holds probes too: feature vectors with the scores that the models gave them when it was written. A
snapshot counts only if the models made from it give the same scores, bit for bit.

Source: RFC 2104 (HMAC).
"""

from __future__ import annotations

import hmac
import struct
from dataclasses import dataclass
from importlib import metadata

import msgspec
import numpy as np

from worker.contracts.records import Float64
from worker.errors import StateLostError
from worker.models.plain import State, pack, unpack
from worker.models.versioned import ModelSet

MAGIC = b"rwsnap\x00\x03"
PROBES_MAX = 16

_LENGTH = struct.Struct("<I")
_MAC_BYTES = 32


class Header(msgspec.Struct, frozen=True):
    """What a snapshot is of, readable without knowing the models.

    ``version`` is v: the training log before it is learned. ``examples`` counts what that was.
    ``models_hash`` is of all settings that say how they learn.
    """

    name: str
    version: int
    examples: int
    spec_hash: str
    models_hash: str
    models: list[str]
    river: str
    numpy: str
    python: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot whose signature was found right."""

    header: Header
    state: State
    probes: Float64  # (p, features)
    scores: Float64  # (p, 2 * models): raw, then calibrated


@dataclass(frozen=True, slots=True)
class Origin:
    """Whose models they are, and the hashes of their features and of their settings."""

    name: str
    spec_hash: str
    models_hash: str


def header_of(origin: Origin, version: int, examples: int, models: ModelSet, python: str) -> Header:
    """Return the header of a snapshot that is written here and now."""
    return Header(
        origin.name, version, examples, origin.spec_hash, origin.models_hash, list(models.names),
        metadata.version("river"), np.__version__, python,
    )  # fmt: skip


def encode(header: Header, models: ModelSet, probes: Float64, key: bytes) -> bytes:
    """Return a signed snapshot of models as they are; the same models give the same bytes.

    Raises
    ------
    TypeError
        A model holds something that has no plain form; see `Model.to_state`.
    """
    head = msgspec.json.encode(header)
    body = pack({"state": models.to_state(), "probes": probes, "scores": _scores(models, probes)})
    signed = b"".join((MAGIC, _LENGTH.pack(len(head)), head, body))
    return signed + _mac(signed, key)


def decode(data: bytes, key: bytes, where: str) -> Snapshot:
    """Return a snapshot after its signature was checked.

    Raises
    ------
    StateLostError
        The bytes are none, damaged, or signed with another key: try an older one.
    """
    signed, mac = data[:-_MAC_BYTES], data[-_MAC_BYTES:]
    if not data.startswith(MAGIC):
        raise StateLostError(where, "a snapshot of format 3", "other bytes")
    if not hmac.compare_digest(mac, _mac(signed, key)):
        raise StateLostError(where, "a snapshot signed with this key", "damage or another key")
    begin = len(MAGIC) + _LENGTH.size
    end = begin + _LENGTH.unpack_from(signed, len(MAGIC))[0]
    header = msgspec.json.decode(signed[begin:end], type=Header)
    body = unpack(signed[end:])
    return Snapshot(header, body["state"], body["probes"], body["scores"])


def check_origin(header: Header, origin: Origin, models: ModelSet, where: str) -> None:
    """Refuse a snapshot that is not of this worker's models, their settings and features.

    The version of River must be the same, since a model's inside may change with it; Python's and
    numpy's may differ: the probes tell whether that matters.

    Raises
    ------
    StateLostError
        What differs, with both values.
    """
    pairs = {
        "name": (origin.name, header.name),
        "spec": (origin.spec_hash, header.spec_hash),
        "models": (list(models.names), header.models),
        "settings of models": (origin.models_hash, header.models_hash),
        "river": (metadata.version("river"), header.river),
    }
    for what, (expected, got) in pairs.items():
        if expected != got:
            raise StateLostError(where, f"{what} {expected}", str(got))


def prove(snapshot: Snapshot, models: ModelSet, where: str) -> None:
    """Refuse models that do not score the snapshot's probes as they did when it was written.

    Raises
    ------
    StateLostError
        A score differs in some bit.
    """
    again = _scores(models, snapshot.probes)
    if again.shape != snapshot.scores.shape or again.tobytes() != snapshot.scores.tobytes():
        raise StateLostError(where, "the scores of its probes, bit for bit", "others")


def _scores(models: ModelSet, probes: Float64) -> Float64:
    raw = models.score(probes)
    return np.hstack([raw, models.calibrate(raw)])


def _mac(signed: bytes, key: bytes) -> bytes:
    return hmac.digest(key, signed, "sha256")
