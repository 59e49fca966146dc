"""Snapshots: written by the log's own count, refused when anything about them is wrong."""

from __future__ import annotations

import os
import pickle
import re
import resource
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from tests.worlds import drain, events, fill, journal, new_log, worker
from tests.worlds import settings as world
from worker.cli import app
from worker.commands import load, snapshots_of
from worker.contracts.settings import ModelSettings, Settings, SnapshotSettings
from worker.errors import FatalError, StateLostError, TransientError
from worker.faults import set_hook
from worker.features.spec import compile_features
from worker.models.catalogue import build_model_set, build_models
from worker.models.snapshot import Origin, decode, encode, header_of
from worker.models.versioned import ModelSet
from worker.snapshots import Found, Snapshots
from worker.stores.memory import MemoryStore
from worker.streams.memory import MemoryLog, MemoryReader, MemoryStream

KEY = "a key that is long enough"
DECLARED = {
    "fraud": ModelSettings(preset="logistic"),
    "odd": ModelSettings(preset="half_space_trees"),
    "tree": ModelSettings(
        river=("preprocessing.StandardScaler", {"tree.HoeffdingTreeClassifier": None})
    ),
}


OURS = Origin("world", "spec", "models")


def build() -> ModelSet:
    return build_model_set(DECLARED, ("a", "b"), seed=3)


def examples(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    X = draw.normal(size=(count, 2))
    y = np.where(draw.random(count) < 0.5, -1, X[:, 0] > 0).astype(np.int8)
    return X, y, np.ones(count)


def taught(count: int = 400) -> tuple[ModelSet, np.ndarray]:
    models, (X, y, weight) = build(), examples(count)
    models.learn(X, y, weight)
    return models, X


def directory(path: Path, **changes: Any) -> Snapshots:
    words = {"directory": str(path), "key": KEY, "every": 100, "keep": 2, **changes}
    return Snapshots(SnapshotSettings.model_validate(words), OURS, build)


def encoded(models: ModelSet, X: np.ndarray, key: str = KEY) -> bytes:
    header = header_of(OURS, 7, len(X), models, "3.11")
    return encode(header, models, X[-5:], key.encode())


def restored(snapshots: Snapshots, first: int = 0, end: int = 1_000) -> tuple[int, list[str]]:
    """Return the version a start would go on from (-1: none), and the reasons on the way."""
    refused: list[Found] = []
    snapshot = snapshots.newest(first, end, refused.append)
    return -1 if snapshot is None else snapshot.header.version, [f.refused for f in refused]


def test_who_dies_while_writing_a_snapshot_leaves_none_of_its_name(tmp_path: Path) -> None:
    """A half one of its name would be refused, and as it is there nobody would write it again."""
    models, X = taught()

    def die(point: str) -> None:
        assert point == "snapshot_written"
        assert restored(directory(tmp_path)) == (-1, [])
        raise KeyboardInterrupt

    set_hook(die)
    try:
        with pytest.raises(KeyboardInterrupt):
            directory(tmp_path).save(models, 7, len(X), X)
    finally:
        set_hook(None)
    directory(tmp_path).save(models, 7, len(X), X)
    assert restored(directory(tmp_path)) == (7, [])


def test_what_a_writer_that_died_has_left_is_gone_after_an_hour(tmp_path: Path) -> None:
    """Half files of its own name alone; a younger one may be somebody's at work."""
    models, X = taught()
    for name, age_s in (("world-v1-a.7.part", 4_000), ("world-v1-a.8.part", 60), ("x.part", 4_000)):
        (tmp_path / name).write_bytes(b"half")
        os.utime(tmp_path / name, times=(time.time() - age_s,) * 2)
    directory(tmp_path).save(models, 7, len(X), X)
    left = {path.name for path in tmp_path.glob("*.part")}
    assert left == {"world-v1-a.8.part", "x.part"}


def test_a_full_disk_is_told_and_left_as_it_was(tmp_path: Path) -> None:
    """No half of a snapshot takes the room of the next one."""
    models, X = taught()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, limits[1]))
    try:
        with pytest.raises(TransientError, match="a directory that can be written, got OSError"):
            directory(tmp_path).save(models, 7, len(X), X)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def test_models_from_a_snapshot_learn_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    """The same state hash now and after more examples; half-space trees and River trees too."""
    models, X = taught()
    directory(tmp_path).save(models, 7, len(X), X)
    again = build()
    snapshot = directory(tmp_path).newest(0, 7, lambda found: None)
    assert snapshot is not None
    again.restore(snapshot.state)
    assert (snapshot.header.version, snapshot.header.examples) == (7, 400)
    assert again.state_hash() == models.state_hash()
    for one in (again, models):
        one.learn(*examples(300, seed=1))
    assert again.state_hash() == models.state_hash()


def test_the_same_models_give_the_same_bytes() -> None:
    """Workers that share a directory write one file."""
    first, second = (encoded(*taught()) for _ in range(2))
    assert first == second


SNAPSHOT = encoded(*taught(60))


@settings(deadline=None, max_examples=200)
@given(place=st.integers(0, len(SNAPSHOT) - 1), bit=st.integers(0, 7))
def test_one_wrong_bit_anywhere_is_refused(place: int, bit: int) -> None:
    """Header, body or signature: nothing is read before the signature was found right."""
    bad = bytearray(SNAPSHOT)
    bad[place] ^= 1 << bit
    with pytest.raises(StateLostError):
        decode(bytes(bad), KEY.encode(), "file")


@pytest.mark.parametrize("length", [0, 7, 8, 31, 32, 40, len(SNAPSHOT) - 1])
def test_a_snapshot_cut_short_is_refused(length: int) -> None:
    """As a disk that was full leaves it."""
    with pytest.raises(StateLostError):
        decode(SNAPSHOT[:length], KEY.encode(), "file")


class Canary:
    """Makes a directory when it is unpickled."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.place),)


def test_a_pickle_in_the_place_of_a_snapshot_is_refused_and_never_run(tmp_path: Path) -> None:
    """Not even one that carries a right signature: the body is plain values."""
    key = KEY.encode()
    path = tmp_path / "world-v0000000000000009.rws"
    song = pickle.dumps(Canary(tmp_path / "sang"))
    for body in (song, SNAPSHOT[:8] + song):
        path.write_bytes(body)
        assert restored(directory(tmp_path))[0] == -1
    assert not (tmp_path / "sang").exists()
    assert b"pickle" not in encoded(*taught(5)) and decode(SNAPSHOT, key, "f").header.version == 7


def test_a_damaged_newest_snapshot_is_named_and_the_older_one_taken(tmp_path: Path) -> None:
    """What a start does after a crash of the disk."""
    models, X = taught()
    snapshots = directory(tmp_path)
    snapshots.save(models, 7, len(X), X)
    newer = snapshots.save(models, 9, len(X), X)
    newer.write_bytes(newer.read_bytes()[:-1] + b"\x00")
    version, refused = restored(snapshots)
    assert version == 7
    assert len(refused) == 1 and newer.name in refused[0]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"key": "another key of enough length"}, "signed with this key"),
        ({"name": "other"}, None),
        ({"spec_hash": "other"}, "expected spec other, got spec"),
        ({"models_hash": "other"}, "expected settings of models other, got models"),
    ],
)
def test_a_foreign_snapshot_is_refused(
    tmp_path: Path, changes: dict[str, str], said: str | None
) -> None:
    """Another key, worker, feature spec or other settings of models; another worker's file is not
    even looked at.
    """
    models, X = taught(50)
    directory(tmp_path).save(models, 7, len(X), X)
    words = SnapshotSettings.model_validate(
        {"directory": str(tmp_path), "key": changes.get("key", KEY)}
    )
    origin = {name: changes[name] for name in changes.keys() - {"key"}}
    other = Snapshots(words, replace(OURS, **origin), build)
    version, refused = restored(other)
    assert version == -1
    assert (said is None and not refused) or (said is not None and said in refused[0])


@pytest.mark.parametrize(
    ("first", "end", "version"), [(0, 7, 7), (7, 7, 7), (8, 9, -1), (0, 6, -1)]
)
def test_a_snapshot_outside_of_the_log_is_refused(
    tmp_path: Path, first: int, end: int, version: int
) -> None:
    """Ahead of the log's end, or behind what retention left of it."""
    models, X = taught(50)
    directory(tmp_path).save(models, 7, len(X), X)
    assert restored(directory(tmp_path), first, end)[0] == version


def test_a_snapshot_that_does_not_score_its_probes_as_it_did_is_refused(tmp_path: Path) -> None:
    """Signed, but of a code that computes something else: here the state was changed."""
    models, X = taught(50)
    header = header_of(OURS, 7, 50, models, "3.11")
    other, _ = taught(51)
    lying: Any = _Lying(other, models.score(X[-5:]))
    path = tmp_path / "world-v0000000000000007.rws"
    path.write_bytes(encode(header, lying, X[-5:], KEY.encode()))
    version, refused = restored(directory(tmp_path))
    assert version == -1
    assert "bit for bit" in refused[0]


class _Lying:
    """Models that claim the scores of others."""

    def __init__(self, models: ModelSet, scores: np.ndarray, state: Any = None) -> None:
        self._models, self._scores, self._state = models, scores, state

    def to_state(self) -> dict[str, Any]:
        return self._models.to_state() if self._state is None else self._state

    def score(self, X: np.ndarray) -> np.ndarray:
        return self._scores

    def calibrate(self, raw: np.ndarray) -> np.ndarray:
        return self._models.calibrate(raw)


def test_whoever_has_another_key_takes_nobodys_snapshots_away(tmp_path: Path) -> None:
    """In a shared directory each key has files of its own: none is taken for written or deleted."""
    models, X = taught(20)
    wrong, right = directory(tmp_path, key="of one machine alone"), directory(tmp_path)
    right.save(models, 3, len(X), X)
    for version in (5, 8, 9):
        wrong.save(models, version, len(X), X)
    for version in (5, 8):
        right.save(models, version, len(X), X)
    version, refused = restored(right)
    assert (version, all("signed with this key" in one for one in refused)) == (8, True)
    assert [one.header.version for one in right.found() if one.header is not None] == [8, 5]
    assert [one.header.version for one in wrong.found() if one.header is not None] == [9, 8]


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    """Two here; another worker's files are left alone."""
    models, X = taught(20)
    (tmp_path / "world-2-v0000000000000001.rws").write_bytes(b"not mine")
    for version in (3, 5, 8):
        directory(tmp_path).save(models, version, len(X), X)
    names = sorted(re.sub("-[0-9a-f]{8}[.]", ".", path.name) for path in tmp_path.iterdir())
    assert names == [
        "world-2-v0000000000000001.rws",
        "world-v0000000000000005.rws",
        "world-v0000000000000008.rws",
    ]


def with_snapshots(path: Path, every: int = 100) -> Settings:
    return world(snapshots={"directory": str(path), "key": KEY, "every": every, "keep": 9})


def run_to_rest(log: MemoryLog, config: Settings, stream: MemoryStream | None = None) -> Any:
    """Run a worker with snapshots until nothing comes any more; return it."""
    spec = compile_features(config)
    snapshots = snapshots_of(config, spec)
    one = worker(log, MemoryStore(), config=config, snapshots=snapshots, stream=stream)
    drain(one)
    return one


def test_a_start_from_a_snapshot_and_the_rest_of_the_log_equals_the_whole_log(
    tmp_path: Path,
) -> None:
    """State hash and version agree, and fewer examples were learned again."""
    log = new_log()
    fill(log, events(600))
    first = run_to_rest(log, with_snapshots(tmp_path))
    assert len(list(tmp_path.iterdir())) >= 5
    second = run_to_rest(log, with_snapshots(tmp_path))
    without = run_to_rest(log, world())
    assert second.parts.models.state_hash() == without.parts.models.state_hash()
    assert first.parts.models.state_hash() == without.parts.models.state_hash()


class Losing(MemoryStream):
    """At the first question for the training log it does not answer, and the snapshots go."""

    def __init__(self, log: MemoryLog, directory: Path) -> None:
        super().__init__(
            log, group="world", slot="0", events_topic="transactions", labels_topic="labels"
        )
        self._directory = directory

    def reader(self, topic: str, partition: int, offset: int) -> MemoryReader:
        if topic == "training" and (files := list(self._directory.iterdir())):
            for file in files:
                file.unlink()
            raise TransientError("stream", got="no answer")
        return super().reader(topic, partition, offset)


def test_a_start_that_is_tried_again_without_its_snapshot_learns_nothing_twice(
    tmp_path: Path,
) -> None:
    """What was restored before the stream failed is no beginning for the whole log."""
    log = new_log()
    fill(log, events(300))
    run_to_rest(log, with_snapshots(tmp_path))
    again = run_to_rest(log, with_snapshots(tmp_path), Losing(log, tmp_path))
    without = run_to_rest(log, world())
    assert again.parts.models.state_hash() == without.parts.models.state_hash()


def test_snapshots_of_one_log_are_the_same_whoever_writes_them(tmp_path: Path) -> None:
    """A worker that started from a snapshot goes on to write what the first one wrote."""
    log = new_log()
    fill(log, events(300))
    run_to_rest(log, with_snapshots(tmp_path / "a"))
    (tmp_path / "b").mkdir()
    oldest = min((tmp_path / "a").iterdir())
    (tmp_path / "b" / oldest.name).write_bytes(oldest.read_bytes())
    run_to_rest(log, with_snapshots(tmp_path / "b"))
    both = [
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
        for name in ("a", "b")
    ]
    assert both[0] == both[1]


def test_a_training_log_that_lost_its_beginning_is_refused_without_a_snapshot(
    tmp_path: Path,
) -> None:
    """The models would silently be others; with a snapshot from behind the gap all is well."""
    log = new_log()
    fill(log, events(300))
    run_to_rest(log, with_snapshots(tmp_path))
    log.truncate("training", 0, 2)
    run_to_rest(log, with_snapshots(tmp_path))
    with pytest.raises(FatalError, match="a log from 0 on, or a snapshot"):
        run_to_rest(log, world())


def write_config(path: Path, directory: Path) -> None:
    text = (Path(__file__).parents[1] / "examples" / "cards" / "cards.yaml").read_text()
    lines = f"\nsnapshots: {{directory: {directory}, key: '${{SNAPSHOT_KEY}}', every: 100}}\n"
    path.write_text(text + lines)


def test_the_commands_list_show_and_verify(tmp_path: Path, monkeypatch: Any) -> None:
    """A good file, a damaged one, and none."""
    config, files = tmp_path / "cards.yaml", tmp_path / "snapshots"
    monkeypatch.setenv("SNAPSHOT_KEY", KEY)
    write_config(config, files)
    call = CliRunner().invoke
    assert "no snapshots" in call(app, ["snapshot", "list", "-c", str(config)]).output
    _save_one(config)
    listed = call(app, ["snapshot", "list", "-c", str(config)]).output
    assert re.search(r"cards-v0000000000000003-[0-9a-f]{8}.rws  version 3, 10 examples", listed)
    (path,) = files.iterdir()
    assert '"examples": 10' in call(app, ["snapshot", "show", str(path), "-c", str(config)]).output
    assert call(app, ["snapshot", "verify", "-c", str(config)]).exit_code == 0
    path.write_bytes(path.read_bytes()[:-1])
    done = call(app, ["snapshot", "verify", "-c", str(config)])
    assert done.exit_code == 1 and "refused" in done.output


@pytest.mark.parametrize(
    "changed",
    [
        ("preset: logistic}", "preset: logistic, params: {lr: 0.02}}"),
        ("seed: 1 ", "seed: 2 "),
        ("every: 100}", "every: 100}\ndrift: [{on: features}]"),
        ("every: 100}", "every: 100}\nguard: {loss_max: 3}"),
    ],
)
def test_a_snapshot_of_other_settings_of_the_models_is_refused(
    changed: tuple[str, str], tmp_path: Path, monkeypatch: Any
) -> None:
    """The log is learned anew as they say, and their snapshots are files of their own."""
    config, files = tmp_path / "cards.yaml", tmp_path / "snapshots"
    monkeypatch.setenv("SNAPSHOT_KEY", KEY)
    write_config(config, files)
    _save_one(config)
    text = config.read_text()
    assert changed[0] in text
    config.write_text(text.replace(*changed))
    loaded = load(config)
    snapshots = snapshots_of(loaded, compile_features(loaded))
    assert snapshots is not None
    version, refused = restored(snapshots)
    assert version == -1
    assert "expected settings of models" in refused[0]
    _save_one(config)
    assert restored(snapshots)[0] == 3
    assert len(list(files.iterdir())) == 2


def test_a_signed_snapshot_that_models_cannot_take_is_refused(tmp_path: Path) -> None:
    """As of a riverwatch that kept them otherwise: by name, and the older one is tried."""
    models, X = taught(50)
    directory(tmp_path).save(models, 7, len(X), X)
    state = models.to_state()
    del state["steward"]["trips"]
    other: Any = _Lying(models, models.score(X[-5:]), state)
    path = tmp_path / "world-v0000000000000009-00000000.rws"
    header = header_of(OURS, 9, 50, models, "3.11")
    path.write_bytes(encode(header, other, X[-5:], KEY.encode()))
    version, refused = restored(directory(tmp_path))
    assert version == 7
    assert refused == [f"{path.name}: expected values that these models take, got KeyError when "
                       "they were taken"]  # fmt: skip


def _save_one(config: Path) -> None:
    loaded = load(config)
    spec = compile_features(loaded)
    snapshots = snapshots_of(loaded, spec)
    assert snapshots is not None
    X = np.zeros((10, len(spec.names)))
    snapshots.save(build_models(loaded, spec.names), 3, 10, X)


def test_a_key_in_the_file_or_too_short_is_a_mistake(tmp_path: Path, monkeypatch: Any) -> None:
    """Secrets come from the environment, and a short one protects nothing."""
    monkeypatch.setenv("SNAPSHOT_KEY", "short")
    config = tmp_path / "cards.yaml"
    write_config(config, tmp_path)
    done = CliRunner().invoke(app, ["check", "-c", str(config)])
    assert done.exit_code == 2 and "16 bytes or more" in done.output
    config.write_text(config.read_text().replace("${SNAPSHOT_KEY}", KEY))
    done = CliRunner().invoke(app, ["check", "-c", str(config)])
    assert done.exit_code == 2 and "a secret from the environment" in done.output
    assert KEY not in done.output


def test_a_worker_without_new_examples_writes_nothing(tmp_path: Path) -> None:
    """Only multiples of K count."""
    log = new_log()
    fill(log, events(30))
    run_to_rest(log, with_snapshots(tmp_path, every=10_000))
    assert list(tmp_path.iterdir()) == []
    assert len(journal(log)) == 30
