"""What commands say of mistakes, and that a worker heeds a signal from its first moment."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from tests.test_config import GOOD
from tests.worlds import drain, events, fill, new_log, settings, worker
from worker.cli import app
from worker.commands import is_first_start
from worker.commands_repair import elsewhere
from worker.errors import StoreAwayError
from worker.features.spec import compile_features
from worker.progress import ProgressBar
from worker.stores import Meta
from worker.stores.memory import MemoryStore

RUN = CliRunner()
ROOT = Path(__file__).parents[1]
# A signal comes while the worker's modules are being loaded, which takes a second or two.
EARLY = """
import os, signal, sys
from importlib.abc import MetaPathFinder
import worker.cli

class Signal(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "worker.commands":
            os.kill(os.getpid(), signal.SIGTERM)

sys.meta_path.insert(0, Signal())
sys.argv = ["riverwatch", "run", "-c", "no-such-file.yaml"]
worker.cli.main()
"""


def test_who_stops_reading_gets_no_error() -> None:
    """As ``riverwatch schema journal | head -1`` does."""
    command = [sys.executable, "-m", "worker.cli", "schema", "journal"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""


def test_a_signal_before_the_worker_is_up_does_not_kill_it() -> None:
    """It comes to its own end, here that of a missing file, and not to exit code -15."""
    done = subprocess.run([sys.executable, "-c", EARLY], capture_output=True, text=True)
    assert (done.returncode, "no-such-file.yaml" in done.stderr) == (2, True), done.stderr


@pytest.mark.parametrize("name", ["metrics.json", "scores.parquet", "journal"])
def test_an_earlier_replay_is_not_overwritten(tmp_path: Path, name: str) -> None:
    """Any part of one; the hint says how to."""
    (tmp_path / name).touch()
    config = Path(__file__).parents[1] / "examples" / "cards" / "cards.yaml"
    command = ["replay", "-c", str(config), "--events", "e.jsonl", "--out", str(tmp_path)]
    done = RUN.invoke(app, command)
    assert done.exit_code == 2
    assert "expected a new directory, got an earlier replay's (--replace" in done.stderr
    assert (tmp_path / name).exists()
    assert "--replace" not in RUN.invoke(app, [*command, "--replace"]).stderr


def test_a_replay_without_labels_says_why_there_are_no_alerts(tmp_path: Path) -> None:
    """One line beside the figures; where labels are known there is none."""
    demo, recorded = Path(__file__).parents[1] / "worker" / "demo", tmp_path / "events.jsonl"
    with pa.input_stream(str(demo / "events.jsonl.zst"), compression="zstd") as file:
        recorded.write_bytes(b"".join(file.read().splitlines(keepends=True)[:2_000]))
    command = ["replay", "-c", str(demo / "cards.yaml"), "--events", str(recorded), "--out"]
    done = RUN.invoke(app, [*command, str(tmp_path / "without")])
    assert done.exit_code == 0, done.stderr
    assert [line for line in done.stderr.splitlines() if line.startswith("no alerts: ")]
    labels = ["--labels", str(demo / "labels.jsonl.zst")]
    done = RUN.invoke(app, [*command, str(tmp_path / "with"), *labels])
    assert json.loads(done.stdout.partition("\n}")[0] + "}")["labelled"] > 0
    assert "no alerts: " not in done.stderr


def test_a_replay_that_was_stopped_says_so_to_whoever_reads_it(tmp_path: Path) -> None:
    """Ctrl-C: one line, and metrics.json; then the next replay and a training set tell it apart."""
    demo, recorded, out = ROOT / "worker" / "demo", tmp_path / "events.jsonl", tmp_path / "out"
    with pa.input_stream(str(demo / "events.jsonl.zst"), compression="zstd") as file:
        recorded.write_bytes(file.read() * 20)
    command = ["replay", "-c", str(demo / "cards.yaml"), "--events", str(recorded), "--out"]
    process = subprocess.Popen(
        # Who runs in the background, as these tests may, hands on that SIGINT is ignored.
        ["env", "--default-signal=INT", sys.executable, "-m", "worker.cli", *command, str(out)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    journal = out / "journal" / "events-0.arrow"
    while process.poll() is None and not (journal.exists() and journal.stat().st_size):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)
    assert (process.returncode, said[0]) == (130, "")
    assert f"stopped: {out} holds a part of the replay, as its metrics.json says\n" in said[1]
    assert json.loads((out / "metrics.json").read_text()) == {"complete": False}
    again = RUN.invoke(app, [*command, str(out)])
    assert (again.exit_code, "got a part of a replay" in again.stderr) == (2, True), again.stderr
    dataset = ["dataset", "-c", str(demo / "cards.yaml"), "--journal", str(out / "journal")]
    made = RUN.invoke(app, [*dataset, "--out", str(tmp_path / "train.parquet")])
    assert made.exit_code == 0, made.stderr
    assert "journal of a replay that was stopped" in made.stderr


@pytest.mark.parametrize("slot", ["a b", "", "é", "a/b", "x" * 101])
def test_a_slot_that_the_broker_would_refuse_is_refused_at_once(slot: str) -> None:
    """Before the file is read: it is a mistake of the command line."""
    done = RUN.invoke(app, ["run", "-c", "no-such-file.yaml", "--slot", slot])
    assert done.exit_code == 2
    assert "--slot: expected 1 to 100 letters, digits" in done.stderr


def test_topics_without_a_broker_are_one_line(tmp_path: Path) -> None:
    """No word of the client library, whatever it logs, and no long wait."""
    config = tmp_path / "cards.yaml"
    stream = "kind: kafka\n  bootstrap_servers: 127.0.0.1:1\n  transaction_timeout: 3s"
    config.write_text(GOOD.replace("kind: kafka", stream))
    command = [sys.executable, "-m", "worker.cli", "topics", "-c", str(config)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "riverwatch: kafka 127.0.0.1:1: connection refused: is the broker running?"
    ]


def test_a_partition_that_holds_nothing_is_told_from_those_that_do() -> None:
    """Whoever mistook the number sees which there are."""
    config, store = settings(), MemoryStore()
    spec = compile_features(config)
    nowhere = "nothing is stored of any partition with these features"
    assert elsewhere(store, config, spec) == nowhere
    log = new_log()
    fill(log, events(50))
    drain(worker(log, store))
    assert elsewhere(store, config, spec) == "nothing is stored; there is state of partitions 0"


@pytest.mark.redis
def test_a_rebuild_of_a_partition_that_is_not_there_is_a_failure(
    redis_url: str, tmp_path: Path
) -> None:
    """Exit code 1, and which there are: a wrong number must not look like success."""
    config = tmp_path / "cards.yaml"
    name = f"absent-{os.getpid()}"
    config.write_text(GOOD.replace("name: cards", f"name: {name}").replace(
        "redis://localhost", redis_url))  # fmt: skip
    done = RUN.invoke(app, ["repair", "rebuild", "-c", str(config), "--partition", "9", "--yes"])
    assert done.exit_code == 1
    assert done.stdout == "partition 9: nothing is stored of any partition with these features\n"


def test_a_first_start_says_that_it_compiles(tmp_path: Path) -> None:
    """Nothing in numba's cache: a silent minute would look like a hang."""
    assert not is_first_start()  # this process has compiled, or somebody before it
    done = subprocess.run(
        [sys.executable, "-c", "from worker.commands import is_first_start as f; print(f())"],
        capture_output=True, text=True, env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)},
    )  # fmt: skip
    assert done.stdout.strip() == "True", done.stderr


def test_an_order_that_is_unknown_is_told_the_words_that_are_typed(tmp_path: Path) -> None:
    """They are those of the help, with a hyphen."""
    config = tmp_path / "cards.yaml"
    config.write_text(GOOD)
    done = RUN.invoke(app, ["models", "rollback", "-c", str(config)])
    assert done.exit_code == 2
    assert done.stderr.startswith("models: expected one of promote, roll-back, freeze, thaw, got")


def test_the_rate_of_a_progress_counts_the_parts_before(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A backfill counts every partition from nothing; its rate is that of all of them."""
    now = iter((0.0, 1.0, 10.0, 10.0))
    monkeypatch.setattr("worker.progress.time.monotonic", lambda: next(now))
    bar = ProgressBar("folding", "folded")
    bar.update(900, 900, "events of partition 0", 900)
    bar.update(100, 900, "events of partition 1", 100)
    assert capsys.readouterr().err == "folded 100 of 900 events of partition 1, 100 rows/s\n"


class AwayStore(MemoryStore):
    """A store that cannot be reached at first."""

    left = 2

    def meta(self, space: str) -> Meta | None:
        self.left -= 1
        if self.left >= 0:
            raise StoreAwayError("redis://host:6379", "an answer", "ConnectionError")
        return super().meta(space)


def test_a_store_that_is_away_at_the_start_is_waited_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The log says so: no state was lost, and it is not the stream that is waited for."""
    log = new_log()
    fill(log, events(50))
    drain(worker(log, AwayStore()))
    said = capsys.readouterr().out
    assert "state_lost" not in said
    assert said.count("waited") == 2
    assert said.count("part=store") == 2
