"""The command ``riverwatch-produce``: synthetic cards, playing files, recording topics.

Heavy imports happen inside the commands, so that ``--help`` answers at once.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import typer

from producers.pacing import Pacer
from worker.errors import ConfigError, RiverwatchError

EXIT_FAILED, EXIT_USAGE = 1, 2
_EXIT_CODES = "Exit codes: 0 done, 1 failed (a broker, a file), 2 wrong usage."

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help=f"Put streams on topics, and topics into files. {_EXIT_CODES}",
)

Out = Annotated[Path | None, typer.Option(help="Directory for events.jsonl and labels.jsonl.")]
Compress = Annotated[str, typer.Option(help="With --out: none, gz or zst.")]
Replace = Annotated[bool, typer.Option("--replace", help="Overwrite files that are there.")]
Bootstrap = Annotated[str, typer.Option(help="Kafka's host:port.", envvar="RIVERWATCH_BOOTSTRAP")]
LabelsTopic = Annotated[str | None, typer.Option(help="Topic of the labels.")]
Speed = Annotated[
    float | None, typer.Option(help="Keep the recorded spacing, this many times faster.")
]
Rate = Annotated[float | None, typer.Option(help="Records per second at most.")]
Seed = Annotated[int, typer.Option(min=0, help="Same seed, same bytes.")]
Number = Annotated[int, typer.Option("--cards", min=1, help="Number of cards.")]
Terminals = Annotated[int, typer.Option(min=20, help="Number of terminals.")]
Days = Annotated[int, typer.Option(min=1, help="Days of events.")]
PerCard = Annotated[float, typer.Option(min=0, help="Mean genuine events of a card a day.")]
FraudShare = Annotated[float, typer.Option(min=0, max=0.5, help="Frauds among all events.")]
Start = Annotated[
    datetime, typer.Option(formats=["%Y-%m-%d"], help="First day, UTC.", show_default="2025-03-03")
]
Delay = Annotated[str, typer.Option(help="Median delay of a fraud's label, such as 12h.")]
Maturity = Annotated[str, typer.Option(help="When an unreported event counts as genuine.")]
QuietDays = Annotated[int, typer.Option(min=0, help="Days before the first fraud.")]
BadShare = Annotated[float, typer.Option(min=0, max=1, help="Bad records per event, all kinds.")]
IdPrefix = Annotated[
    str | None,
    typer.Option(help="Of the events' ids; by default other options make other ids."),
]
TimeUnit = Literal["iso", "s", "ms", "us"]
FIRST_DAY = datetime(2025, 3, 3, tzinfo=UTC)


@app.command(epilog=_EXIT_CODES)
def cards(
    out: Out = None,
    topic: Annotated[str | None, typer.Option(help="Topic of the events.")] = None,
    labels_topic: LabelsTopic = None,
    bootstrap: Bootstrap = "localhost:9092",
    compress: Compress = "none",
    seed: Seed = 1,
    number: Number = 700,
    terminals: Terminals = 300,
    days: Days = 12,
    per_card_per_day: PerCard = 2.4,
    fraud_share: FraudShare = 0.008,
    start: Start = FIRST_DAY,
    fraud_delay: Delay = "3d",
    maturity: Maturity = "14d",
    quiet_days: QuietDays = 0,
    bad_share: BadShare = 0.0,
    id_prefix: IdPrefix = None,
    speed: Speed = None,
    rate: Rate = None,
    replace: Replace = False,
) -> None:
    """Make synthetic card transactions with planted frauds and labels that come late.

    Example: riverwatch-produce cards --out data/ --seed 7 --days 30 --compress zst

    Example: riverwatch-produce cards --topic transactions --labels-topic labels --speed 3600
    """
    if (out is None) == (topic is None):
        raise typer.BadParameter("expected either --out DIR or --topic NAME")
    from producers import commands

    with _exit_codes():
        settings = commands.cards_settings(
            seed=seed,
            cards=number,
            terminals=terminals,
            days=days,
            per_card_per_day=per_card_per_day,
            fraud_share=fraud_share,
            start=start.date(),
            fraud_delay=fraud_delay,
            maturity=maturity,
            quiet_days=quiet_days,
            bad_share=bad_share,
            id_prefix=id_prefix,
            for_topic=topic is not None,
        )
        if topic is None:
            assert out is not None
            commands.cards_to_files(settings, out, compress, replace=replace)
        else:
            topics = commands.Topics(bootstrap, topic, labels_topic)
            commands.cards_to_topics(settings, topics, _pacer(speed, rate))


@app.command(epilog=_EXIT_CODES)
def play(
    file: Annotated[Path, typer.Argument(help="Events: .jsonl, .csv (.gz, .zst), .parquet.")],
    topic: Annotated[str, typer.Option(help="Topic of the events.")],
    labels: Annotated[
        Path | None, typer.Option(help="Labels: such a file with the key too.")
    ] = None,
    labels_topic: LabelsTopic = "labels",
    bootstrap: Bootstrap = "localhost:9092",
    key: Annotated[str, typer.Option(help="Field that is the record's key.")] = "card_id",
    time: Annotated[str, typer.Option(help="Field with the event time.")] = "time",
    time_unit: Annotated[TimeUnit, typer.Option(help="Unit of a time that is a number.")] = "iso",
    speed: Speed = None,
    rate: Rate = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Stop after that many events.")] = None,
) -> None:
    """Play a file onto a topic: key and event time set, partition by Kafka's default for the key.

    Example: riverwatch-produce play events.jsonl.zst --topic transactions --speed 60

    Example: riverwatch-produce play events.jsonl --labels labels.jsonl --topic transactions

    Example: riverwatch-produce play transactions.parquet --topic transactions
    --key CUSTOMER_ID --time TX_DATETIME
    """
    from producers import commands
    from producers.reading import Layout

    with _exit_codes():
        layouts = Layout(key, time, time_unit), Layout(key, "time")
        topics = commands.Topics(bootstrap, topic, None if labels is None else labels_topic)
        commands.play_files(file, labels, layouts, topics, _pacer(speed, rate), limit)


@app.command(epilog=_EXIT_CODES)
def record(
    topic: Annotated[str, typer.Option(help="Topic to read, committed records only.")],
    out: Annotated[Path, typer.Option(help="File to write: .jsonl, .jsonl.gz or .jsonl.zst.")],
    bootstrap: Bootstrap = "localhost:9092",
    since: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"], help="Record timestamp, UTC."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Stop after that many lines.")] = None,
    envelope: Annotated[
        bool,
        typer.Option(
            help="Lines with partition, offset, timestamp, key, value_base64 and headers."
        ),
    ] = False,
    replace: Replace = False,
) -> None:
    """Record a topic until now into a file of lines, in the order of the record timestamps.

    Example: riverwatch-produce record --topic transactions --out monday.jsonl.zst

    Example: riverwatch-produce record --topic dead-letters --out dead.jsonl --envelope
    """
    from producers import commands

    with _exit_codes():
        since_ms = None if since is None else int(since.replace(tzinfo=UTC).timestamp() * 1000)
        wanted = since_ms, envelope, limit
        commands.record_topic(bootstrap, topic, out, *wanted, replace=replace)


def main() -> None:
    """Run the command line; the entry point of ``riverwatch-produce``."""
    app()


def _pacer(speed: float | None, rate: float | None) -> Pacer:
    return Pacer(speed, rate)


@contextmanager
def _exit_codes() -> Iterator[None]:
    """Turn errors that the user can act on into one line and an exit code."""
    try:
        yield
    except (ConfigError, ValueError) as error:
        _exit(error, EXIT_USAGE)
    except (RiverwatchError, OSError) as error:
        _exit(error, EXIT_FAILED)


def _exit(error: Exception, code: int) -> None:
    print(f"riverwatch-produce: {error}", file=sys.stderr)
    raise typer.Exit(code) from error


if __name__ == "__main__":
    main()
