"""The command line: help with an example, exit codes, files that can be made again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from producers.bad_records import FILE_KINDS
from producers.cli import app

RUN = CliRunner()
SMALL = ["cards", "--cards", "30", "--terminals", "30", "--days", "3"]


@pytest.mark.parametrize("command", ["cards", "play", "record"])
def test_help_shows_an_example_and_the_exit_codes(command: str) -> None:
    """Each command's help has a line to copy, and says what its exit codes mean."""
    shown = RUN.invoke(app, [command, "--help"])
    assert shown.exit_code == 0
    assert f"Example: riverwatch-produce {command}" in shown.output
    assert "Exit codes: 0 done, 1 failed" in shown.output


def test_help_imports_nothing_heavy() -> None:
    """The command line answers without numpy, kafka or pydantic: so it is quick."""
    code = (
        "import sys\nsys.argv = ['riverwatch-produce', '--help']\n"
        "from producers.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "assert not {'numpy', 'kafka', 'pydantic', 'structlog'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_cards_writes_events_and_labels(tmp_path: Path) -> None:
    """One line per event and one per label, each a JSON object."""
    assert RUN.invoke(app, [*SMALL, "--out", str(tmp_path)]).exit_code == 0
    events, labels = (
        [json.loads(line) for line in (tmp_path / f"{name}.jsonl").read_bytes().splitlines()]
        for name in ("events", "labels")
    )
    assert len(events) == len(labels) > 100
    assert {e["transaction_id"] for e in events} == {label["event_id"] for label in labels}


def test_streams_of_other_options_have_other_ids(tmp_path: Path) -> None:
    """What is made after the demo, or with another seed, repeats no id; bad records change none."""

    def ids(*more: str) -> set[str]:
        options = ["--out", str(tmp_path), "--replace", *more]
        assert RUN.invoke(app, [*SMALL, *options]).exit_code == 0
        lines = (tmp_path / "labels.jsonl").read_bytes().splitlines()
        return {json.loads(line)["event_id"] for line in lines}

    mine = ids()
    assert ids("--bad-share", "0.1") == mine
    for others in (ids("--seed", "2"), ids("--maturity", "2d"), ids("--id-prefix", "t")):
        assert len(others) > 100
        assert not others & mine
    assert "t0000001" in ids("--id-prefix", "t")  # as the demo's


@pytest.mark.parametrize(
    ("there", "arguments"),
    [
        ("events.jsonl", [*SMALL, "--out", "."]),
        ("labels.jsonl.zst", [*SMALL, "--out", ".", "--compress", "zst"]),
        ("a.jsonl", ["record", "--topic", "t", "--out", "a.jsonl", "--bootstrap", "localhost:1"]),
    ],
)
def test_a_file_that_is_there_is_kept_unless_it_is_to_be_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: str, arguments: list[str]
) -> None:
    """Exit code 2 and the way out, before anything else; nothing is left beside it."""
    monkeypatch.chdir(tmp_path)
    Path(there).write_bytes(b"mine\n")
    done = RUN.invoke(app, arguments)
    assert done.exit_code == 2
    assert f"{there}: expected a new file, got one that is there" in done.output
    assert "--replace" in done.output
    assert [(one.name, one.read_bytes()) for one in tmp_path.iterdir()] == [(there, b"mine\n")]
    assert RUN.invoke(app, [*arguments, "--replace"]).exit_code == (
        1 if "record" in arguments else 0
    )
    assert (Path(there).read_bytes() == b"mine\n") == ("record" in arguments)


@pytest.mark.parametrize("compress", ["none", "gz", "zst"])
def test_cards_writes_the_same_bytes_again(tmp_path: Path, compress: str) -> None:
    """Two runs with the same options leave the same files."""
    for name in ("a", "b"):
        done = RUN.invoke(app, [*SMALL, "--out", str(tmp_path / name), "--compress", compress])
        assert done.exit_code == 0
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert len(files) == 2
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_cards_plants_bad_records_on_request(tmp_path: Path) -> None:
    """With a share of bad records the file holds more lines, the labels stay."""
    RUN.invoke(app, [*SMALL, "--out", str(tmp_path / "good")])
    RUN.invoke(app, [*SMALL, "--out", str(tmp_path / "bad"), "--bad-share", "0.1"])
    good, bad = ((tmp_path / name / "events.jsonl").read_bytes() for name in ("good", "bad"))
    assert set(good.splitlines()) <= set(bad.splitlines())
    assert bad.count(b"\n") - good.count(b"\n") >= len(FILE_KINDS)
    labels = [(tmp_path / name / "labels.jsonl").read_bytes() for name in ("good", "bad")]
    assert labels[0] == labels[1]


EVENT = '{"card_id":"c1","time":"2025-03-03","user":"u1"}'


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--key", "nosuch"], "events.jsonl --key: expected a field of its records, got nosuch"),
        (["--key", "card_ids"], "(did you mean card_id?)"),
        (["--time", "nosuch"], "events.jsonl --time: expected a field of its records, got nosuch"),
        (["--labels", "OUT/labels.jsonl"], "labels.jsonl --key: expected a field of its records"),
    ],
)
def test_a_field_that_no_record_has_is_named_before_anything_is_sent(
    tmp_path: Path, arguments: list[str], words: str
) -> None:
    """Exit code 2, though no broker is there to send to; a record without it, or none, is none."""
    (tmp_path / "events.jsonl").write_text(f'{{"user":"u1"}}\n{{broken\n{EVENT}\n')
    (tmp_path / "labels.jsonl").write_text('{"event_id":"e1","label":1}\n')
    play = ["play", str(tmp_path / "events.jsonl"), "--topic", "t", "--bootstrap", "localhost:1"]
    more = [a.replace("OUT", str(tmp_path)) for a in arguments]
    done = RUN.invoke(app, [*play, *more])
    assert (done.exit_code, words in done.output) == (2, True), done.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["cards"], "either --out DIR or --topic NAME"),
        (["cards", "--out", "x", "--topic", "y"], "either --out DIR or --topic NAME"),
        (["cards", "--out", "OUT", "--compress", "rar"], "none, gz or zst"),
        (["cards", "--out", "OUT", "--maturity", "7 dayz"], "10m or 7d"),
        (["cards", "--out", "OUT", "--id-prefix", 'a"b'], "letters, digits and _.:-"),
        (["cards", "--topic", "t", "--speed", "0"], "above 0"),
        (["record", "--topic", "t", "--out", "OUT/a.parquet"], "jsonl"),
    ],
)
def test_wrong_usage_says_what_is_expected_and_exits_with_two(
    tmp_path: Path, arguments: list[str], words: str
) -> None:
    """A wrong option is exit code 2 and one line that says what would be right."""
    done = RUN.invoke(app, [a.replace("OUT", str(tmp_path)) for a in arguments])
    assert done.exit_code == 2
    assert words in done.output.replace("\n", " ").replace("│", "").replace("  ", " ")
    assert not list(tmp_path.glob("*.jsonl*"))
