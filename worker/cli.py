"""The ``riverwatch`` command. Nothing heavy is imported until a command runs."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Callable
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Annotated, TextIO

import typer

EXIT_FAILED, EXIT_WRONG = 1, 2

app = typer.Typer(
    name="riverwatch",
    help="Exactly-once, real-time fraud and anomaly scoring: Kafka, Redis features, River models.",
    epilog="Exit codes: 0 done, 1 failed or stopped by a fatal error, 2 wrong configuration.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


class LogLevel(StrEnum):
    """How much a worker says."""

    DEBUG = "DEBUG"
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"


ConfigFile = Annotated[Path, typer.Option("-c", "--config", help="the configuration file (YAML)")]


@app.command(epilog="Example: riverwatch demo --out out/demo")
def demo(
    out: Annotated[
        Path | None, typer.Option(help="keep scores, alerts and journal in this directory")
    ] = None,
    alerts: Annotated[int, typer.Option(help="how many alerts to print at most", min=0)] = 40,
) -> None:
    """Replay a small card stream in this process and print real alerts with their reasons."""
    from worker.commands import run_demo

    _exit(lambda: run_demo(out, alerts))


@app.command(epilog="Example: riverwatch check -c examples/cards/cards.yaml")
def check(config: ConfigFile) -> None:
    """Print what a configuration means: topics, features, entities, models; or all its mistakes."""
    from worker.commands import run_check

    _exit(lambda: run_check(config))


@app.command(epilog="Example: riverwatch schema alerts; riverwatch schema events -c cards.yaml")
def schema(
    what: Annotated[str, typer.Argument(help="config, events, labels, alerts, scores or journal")],
    config: Annotated[Path | None, typer.Option("-c", "--config", help="needed for events")] = None,
) -> None:
    """Print the JSON Schema of a contract."""
    from worker.commands import run_schema

    _exit(lambda: run_schema(what, config))


@app.command(epilog="Example: riverwatch topics -c cards.yaml --create --partitions 4")
def topics(
    config: ConfigFile,
    create: Annotated[bool, typer.Option("--create", help="create the missing topics")] = False,
    partitions: Annotated[int, typer.Option(min=1, help="of events, labels and outputs")] = 4,
    replication: Annotated[int, typer.Option(min=1, help="replicas of each partition")] = 1,
) -> None:
    """Show the topics with their partition counts and key contracts, or create them."""
    from worker.commands import run_topics

    _exit(lambda: run_topics(config, create, partitions, replication))


@app.command(epilog="Example: riverwatch run -c cards.yaml --slot 0")
def run(
    config: ConfigFile,
    slot: Annotated[
        str,
        typer.Option(
            envvar="RIVERWATCH_SLOT",
            help="name of this worker within its group; a restart must use the same one",
        ),
    ] = "0",
    log_level: Annotated[LogLevel, typer.Option(help="what is logged", case_sensitive=False)] = (
        LogLevel.INFO
    ),
) -> None:
    """Run one worker on Kafka and Redis until SIGTERM or Ctrl-C; a second signal leaves at once."""
    from worker.stopping import relax_collector, stop_on_signals

    stop = stop_on_signals()  # before all that takes long to import
    relax_collector()

    from worker.commands import run_worker

    _exit(lambda: run_worker(config, slot, log_level.value, stop))


@app.command(
    epilog="Example: riverwatch replay -c handbook.yaml --events transactions.parquet "
    "--label-column TX_FRAUD --label-delay 7d --out out/"
)
def replay(
    config: ConfigFile,
    events: Annotated[Path, typer.Option(help="JSONL, CSV or Parquet; plain, .gz or .zst")],
    out: Annotated[Path, typer.Option(help="a new directory")],
    labels: Annotated[Path | None, typer.Option(help="a file of labels")] = None,
    label_column: Annotated[
        str | None, typer.Option(help="the column of the events file with the truth")
    ] = None,
    label_delay: Annotated[
        str | None, typer.Option(help="when a row's label becomes known, such as 7d")
    ] = None,
    by: Annotated[
        int, typer.Option(min=1, help="print figures by periods of so many days of event time")
    ] = 7,
    top: Annotated[
        int | None, typer.Option(min=1, help="k of precision@k by period; default: metrics.top")
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="overwrite an earlier replay in --out")
    ] = False,
) -> None:
    """Run the whole worker over recorded files and write scores, alerts, journal and metrics."""
    from worker.commands import run_replay

    _exit(
        lambda: run_replay(config, events, out, labels, label_column, label_delay, by, top, replace)
    )


@app.command(epilog="Example: riverwatch features card c00302 -c cards.yaml --at 2025-03-03T10:00")
def features(
    entity: Annotated[str, typer.Argument(help="the entity's type, such as card")],
    id_: Annotated[str, typer.Argument(metavar="ID", help="its id")],
    config: ConfigFile,
    at: Annotated[
        str | None, typer.Option(help="ISO 8601 (UTC) or Unix ms; now by default")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Print the features of an entity as they stand in Redis, windows slid to an instant.

    What needs an event is left out. Exit code 1 where the entity is not stored.
    """
    from worker.commands_data import run_features

    _exit(lambda: run_features(config, entity, id_, at, as_json))


@app.command(
    epilog="Examples: riverwatch dataset -c cards.yaml --known-by 2025-03-31 --out train.parquet; "
    "with --journal out/journal --labels labels.jsonl it reads a replay instead of topics"
)
def dataset(
    config: ConfigFile,
    out: Annotated[Path, typer.Option(help="the Parquet file to write")],
    known_by: Annotated[
        str | None,
        typer.Option(help="labels known and events until then: ISO 8601 (UTC) or Unix ms"),
    ] = None,
    journal: Annotated[
        Path | None, typer.Option(help="journal/ of a replay; else the journal and labels topics")
    ] = None,
    labels: Annotated[Path | None, typer.Option(help="with --journal: a file of labels")] = None,
    events: Annotated[
        Path | None, typer.Option(help="with --journal: the events, whose rows hold the truth")
    ] = None,
    label_column: Annotated[
        str | None, typer.Option(help="with --events: the column with the truth")
    ] = None,
    label_delay: Annotated[
        str | None, typer.Option(help="with --events: when it becomes known, such as 7d")
    ] = None,
) -> None:
    """Write a point-in-time training set: features as served, labels known by a time.

    One row per event that was scored with the features of the configuration; label and
    label_time are empty where nothing was known yet. Memory holds the labels.
    """
    from worker.commands_data import Sources, run_dataset

    sources = Sources(journal, labels, events, label_column, label_delay)
    _exit(lambda: run_dataset(config, sources, known_by, out))


@app.command(epilog="Example: riverwatch backfill -c cards-new.yaml")
def backfill(
    config: ConfigFile,
    events: Annotated[
        Path | None,
        typer.Option(help="a recording with --envelope: events that the topic no longer has"),
    ] = None,
) -> None:
    """Build the state of changed features from the log, while workers serve with the old file.

    The new file has the same name and topics. It writes only the new state's own keys, and goes on
    where it was when it is run again. Then restart the workers with the new file: they fold what
    has come since. Models start untaught: examples of other features mean nothing to them.
    """
    from worker.commands_data import run_backfill

    _exit(lambda: run_backfill(config, events))


@app.command(
    epilog="Example: riverwatch models -c cards.yaml; riverwatch models -c c.yaml promote tree"
)
def models(
    config: ConfigFile,
    order: Annotated[
        str | None,
        typer.Argument(help="promote, roll-back, freeze or thaw; none: list the models"),
    ] = None,
    model: Annotated[str | None, typer.Argument(help="the model that the order is about")] = None,
) -> None:
    """List the models with their metrics and what befell them, or give them an order.

    An order goes through the training log: all workers follow it at the same version.
    """
    from worker.commands_models import run_models

    _exit(lambda: run_models(config, order, model))


snapshot_app = typer.Typer(
    help="Snapshots of the learned models: list, show, verify.", no_args_is_help=True
)
app.add_typer(snapshot_app, name="snapshot")


@snapshot_app.command("list", epilog="Example: riverwatch snapshot list -c cards.yaml")
def snapshot_list(config: ConfigFile) -> None:
    """List the snapshots, the newest first, with why one is refused."""
    from worker.commands_models import run_snapshot_list

    _exit(lambda: run_snapshot_list(config))


@snapshot_app.command(
    "show",
    epilog="Example: riverwatch snapshot show cards-v0000000000000042-1f0c9a77.rws -c cards.yaml",
)
def snapshot_show(
    file: Annotated[Path, typer.Argument(help="a snapshot")], config: ConfigFile
) -> None:
    """Print what a snapshot says of itself, after its signature was checked."""
    from worker.commands_models import run_snapshot_show

    _exit(lambda: run_snapshot_show(config, file))


@snapshot_app.command("verify", epilog="Example: riverwatch snapshot verify -c cards.yaml")
def snapshot_verify(
    config: ConfigFile,
    file: Annotated[Path | None, typer.Argument(help="one snapshot; all by default")] = None,
) -> None:
    """Load snapshots as a start would: signature, origin, probes. Exit code 1 if one is refused."""
    from worker.commands_models import run_snapshot_verify

    _exit(lambda: run_snapshot_verify(config, file))


repair_app = typer.Typer(
    help="Remedies for what a worker refuses; without --yes they only say what they would do.",
    no_args_is_help=True,
)
app.add_typer(repair_app, name="repair")
Yes = Annotated[bool, typer.Option("--yes", help="do it; without, only say what")]


@repair_app.command(
    "rebuild", epilog="Example: riverwatch repair rebuild -c cards.yaml --partition 0 --yes"
)
def repair_rebuild(
    config: ConfigFile,
    partition: Annotated[list[int], typer.Option(help="a partition; may be given again")],
    yes: Yes = False,
) -> None:
    """Delete what the store holds of partitions; the next worker rebuilds it from the log."""
    from worker.commands_repair import run_rebuild

    _exit(lambda: run_rebuild(config, partition, yes))


@repair_app.command(
    "reset",
    epilog="Example: riverwatch repair reset -c cards.yaml --partition 0 --reason 'topic lost'",
)
def repair_reset(
    config: ConfigFile,
    partition: Annotated[int, typer.Option(help="the partition")],
    reason: Annotated[str, typer.Option(help="why; it is kept in the journal")],
    events: Annotated[
        int | None, typer.Option(help="first event; the first that is not committed by default")
    ] = None,
    labels: Annotated[int | None, typer.Option(help="first label; as events")] = None,
    yes: Yes = False,
) -> None:
    """Have a partition begin anew at an offset, with nothing of its past; stop all workers first.

    For a log that no longer has what the store lacks. What was scored is never scored again.
    """
    from worker.commands_repair import run_reset

    _exit(lambda: run_reset(config, partition, events, labels, reason, yes))


@repair_app.command(
    "drop-spec", epilog="Example: riverwatch repair drop-spec -c cards-old.yaml --yes"
)
def repair_drop_spec(config: ConfigFile, yes: Yes = False) -> None:
    """Delete what the store holds of all partitions with the features of a file, after a change."""
    from worker.commands_repair import run_rebuild

    _exit(lambda: run_rebuild(config, None, yes))


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="print the version")] = False,
) -> None:
    if version:
        from worker import __version__

        typer.echo(__version__)
        raise typer.Exit


def _exit(command: Callable[[], int]) -> None:
    """Run a command and end the process with its exit code; known errors have no trace."""
    from worker.errors import ConfigError, RiverwatchError

    try:
        code = command()
    except ConfigError as error:
        print(error, file=sys.stderr)
        raise typer.Exit(EXIT_WRONG) from None
    except (RiverwatchError, OSError) as error:  # OSError: a place that cannot be written
        if not isinstance(error, BrokenPipeError) or _is_read(sys.stdout):
            print(f"riverwatch: {error}", file=sys.stderr)
        raise typer.Exit(EXIT_FAILED) from None
    raise typer.Exit(code)


def _is_read(stream: TextIO) -> bool:
    """Return whether somebody still reads what is printed, unlike `head` that has had enough."""
    asked = select.poll()
    asked.register(stream, 0)  # errors are always told
    return not asked.poll(0)


def main() -> None:
    """Run the command line, and leave at once: to take apart what a worker has in memory, compiled
    kernels above all, lasts as long as its own end, and everything is closed by then.
    """
    try:
        app()
    except SystemExit as end:
        with suppress(OSError):  # nobody reads it any more
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(end.code if isinstance(end.code, int) else bool(end.code))


if __name__ == "__main__":
    main()
