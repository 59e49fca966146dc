"""The topics of a configuration: what each must be, what is there, creating what is missing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from kafka import errors

from worker.contracts.settings import KafkaSettings, OutputSettings, Settings
from worker.contracts.text import aligned
from worker.errors import ConfigError, TransientError
from worker.streams.kafka_client import make_admin

_MISSING, _DENIED = 3, 29  # Kafka's error codes
# Models are the fold of the whole training log: nothing of it may expire.
# Records carry event times: with Kafka's seven days a replayed stream would be gone in minutes.
_CONFIGS = {"retention.ms": "-1"}
_HEADINGS = ("topic", "role", "partitions", "expected", "key", "note")


@dataclass(frozen=True, slots=True)
class TopicContract:
    """What a topic must be. ``sharded`` topics have P partitions, the others at least one.

    One that joins what came through ``several`` partitions is not needed where P is 1.
    """

    name: str
    role: str
    key: str
    sharded: bool
    reads: bool
    writes: bool
    several: bool = False


@dataclass(frozen=True, slots=True)
class TopicState:
    """What the broker says about a topic. ``partitions`` is 0 where there is none, or no right."""

    name: str
    partitions: int
    topic_id: str
    problem: str
    readable: bool
    writable: bool


@dataclass(frozen=True, slots=True)
class TopicRow:
    """A contract beside the state of its topic. ``note`` says what is wrong, empty if nothing."""

    contract: TopicContract
    state: TopicState
    expected: str
    note: str

    @property
    def fits(self) -> bool:
        """Return whether a worker can run on this topic."""
        return not self.note


def contracts(settings: Settings, shared: bool) -> list[TopicContract]:
    """Return the contracts of every topic that a worker reads or writes, the events first.

    ``shared`` says whether there are entities whose events come through every partition.
    """
    labels = None if settings.labels is None else settings.labels.topic
    events = settings.events
    return stream_contracts(events.topic, labels, settings.outputs, shared, events.key)


def stream_contracts(
    events: str,
    labels: str | None,
    outputs: OutputSettings,
    shared: bool,
    key: str = "primary entity",
) -> list[TopicContract]:
    """Return the contracts by the names of the topics; ``key`` is what the Kafka key holds."""
    found = [TopicContract(events, "events", key, True, True, False)]
    if labels is not None:
        found.append(TopicContract(labels, "labels", key, True, True, False))
    found += [
        TopicContract(outputs.journal, "journal", "-", True, True, True),
        TopicContract(outputs.alerts, "alerts", key, True, False, True),
    ]
    if outputs.scores.publish != "none":
        found.append(TopicContract(outputs.scores.topic, "scores", key, True, False, True))
    if shared:
        topic = outputs.entity_updates
        found.append(TopicContract(topic, "entity updates", "-", True, True, True, several=True))
    return [
        *found,
        TopicContract(outputs.dead_letters, "dead letters", "as input", True, False, True),
        TopicContract(outputs.training, "training", "-", False, True, True),
    ]


def needed(
    wanted: Sequence[TopicContract], states: dict[str, TopicState], partitions: int = 0
) -> list[TopicContract]:
    """Return the contracts that matter with as many partitions as the events have, or get."""
    shards = states[wanted[0].name].partitions or partitions
    return [contract for contract in wanted if shards != 1 or not contract.several]


def describe(settings: KafkaSettings, wanted: Sequence[TopicContract]) -> list[TopicRow]:
    """Return a row per contract, in its order. P is the partition count of the first one.

    Raises
    ------
    ConfigError, TransientError
        Kafka cannot be reached.
    """
    admin = make_admin(settings)
    try:
        return rows(wanted, inspect(admin, [contract.name for contract in wanted]))
    finally:
        admin.close()


def create(
    settings: KafkaSettings, wanted: Sequence[TopicContract], partitions: int, replication: int
) -> list[str]:
    """Create the topics that are missing; return their names. Topics that exist stay as they are.

    Parameters
    ----------
    partitions
        P, for the sharded topics; the events topic's own count wins where it exists.
    replication
        Copies of each partition; -1 for the cluster's default.
    """
    admin = make_admin(settings)
    try:
        present = inspect(admin, [contract.name for contract in wanted])
        shards = present[wanted[0].name].partitions or partitions
        missing = {
            contract.name: {
                "num_partitions": shards if contract.sharded else 1,
                "replication_factor": replication,
                "configs": _CONFIGS,
            }
            for contract in needed(wanted, present, partitions)
            if not present[contract.name].partitions
        }
        if missing:
            admin.create_topics(missing, wait_for_metadata=True)
    except errors.TopicAlreadyExistsError:
        return create(settings, wanted, partitions, replication)  # another process was faster
    except errors.KafkaError as error:
        raise ConfigError(
            "topics", expected="permission and brokers to create them",
            got=f"{type(error).__name__}: {error}",
        ) from error  # fmt: skip
    finally:
        admin.close()
    return list(missing)


def table(found: Sequence[TopicRow]) -> str:
    """Return rows as aligned text with a line of headings."""
    return aligned([_HEADINGS, *(_cells(row) for row in found)])


def inspect(admin: Any, names: Iterable[str]) -> dict[str, TopicState]:
    """Return the state of each topic; a missing one has 0 partitions."""
    try:
        answers = admin.describe_topics(sorted(set(names)))
    except errors.KafkaError as error:
        raise TransientError("topics", "an answer", f"{type(error).__name__}: {error}") from error
    return {answer["name"]: _state(answer) for answer in answers}


def rows(wanted: Sequence[TopicContract], states: dict[str, TopicState]) -> list[TopicRow]:
    """Return what is needed beside what there is, each with what is wrong."""
    shards = states[wanted[0].name].partitions
    return [_row(one, states[one.name], shards) for one in needed(wanted, states)]


def remedy(wrong: Sequence[TopicRow]) -> str:
    """Return what helps where these topics do not fit."""
    if any("not permitted" in row.note for row in wrong):
        return "docs/operations.md, Rights in Kafka, has the list"
    return "riverwatch topics -c FILE --create"


def _row(contract: TopicContract, state: TopicState, shards: int) -> TopicRow:
    expected = (str(shards) if shards else "P") if contract.sharded else "1"
    note = state.problem
    if not note and contract.sharded and state.partitions != shards:
        note = f"has {state.partitions} partitions, the events have {shards}"
    elif not note and contract.reads and not state.readable:
        note = "reading is not permitted"
    elif not note and contract.writes and not state.writable:
        note = "writing is not permitted"
    return TopicRow(contract, state, expected, note)


def _state(answer: dict[str, Any]) -> TopicState:
    code = answer["error_code"]
    allowed = answer.get("authorized_operations") or []
    problem = {0: "", _MISSING: "missing", _DENIED: "not permitted"}.get(code, f"error {code}")
    return TopicState(
        answer["name"],
        len(answer["partitions"]),
        str(answer["topic_id"]),
        problem,
        # A broker that does not say is believed; the first read or write will tell.
        not allowed or "READ" in allowed,
        not allowed or "WRITE" in allowed,
    )


def _cells(row: TopicRow) -> tuple[str, ...]:
    have = str(row.state.partitions or "-")
    return (
        row.contract.name,
        row.contract.role,
        have,
        row.expected,
        row.contract.key,
        row.note or "ok",
    )
