"""Commands about learned models: ``snapshot list``, ``show`` and ``verify``."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec

from worker.commands import load, snapshots_of
from worker.errors import ConfigError, StateLostError
from worker.features.spec import compile_features
from worker.snapshots import Snapshots


def run_snapshot_list(path: Path) -> int:
    """List the snapshots of a configuration."""
    found = list(_snapshots(path).found())
    for one in found:
        if one.header is None:
            print(f"{one.path.name}  refused: {one.refused}")
        else:
            print(f"{one.path.name}  version {one.header.version}, {one.header.examples} examples")
    if not found:
        print("no snapshots")
    return 0


def run_snapshot_show(path: Path, file: Path) -> int:
    """Print the header of a snapshot as JSON."""
    header = _snapshots(path).read(file).header
    print(json.dumps(msgspec.to_builtins(header), indent=2))
    return 0


def run_snapshot_verify(path: Path, file: Path | None) -> int:
    """Try snapshots as a start would. Returns 1 where one is refused."""
    snapshots = _snapshots(path)
    files = [one.path for one in snapshots.found()] if file is None else [file]
    refused = 0
    for one in files:
        try:
            snapshots.proved(one)
        except StateLostError as error:
            refused += 1
            print(f"{one.name}  refused: {error}")
        else:
            print(f"{one.name}  good")
    return 1 if refused else 0


def _snapshots(path: Path) -> Snapshots:
    settings = load(path)
    found = snapshots_of(settings, compile_features(settings))
    if found is None:
        raise ConfigError(str(path), expected="a section snapshots", got="none")
    return found
