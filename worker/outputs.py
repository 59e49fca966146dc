"""From the result of a batch to the records of its transaction: journal, alerts, scores, dead
letters, examples.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import msgspec
import numpy as np

from worker.arrow import SCHEMA_VERSION, Examples, JournalRows, journal_records, training_records
from worker.contracts.decisions import DECISIONS, Decision
from worker.contracts.messages import Alert, IncidentClosed, ModelNotice, Reason
from worker.contracts.records import Int64, Output, Records, Rejected
from worker.contracts.settings import KafkaSettings, Settings
from worker.contracts.slots import transactional_id
from worker.decisions import Decided, Incident
from worker.features.spec import FeatureSpec
from worker.models.catalogue import ModelSet
from worker.models.reasons import reasons_for
from worker.models.steward import Notice
from worker.shard import Batch, Result, Shard

_RECORD_BYTES_MAX = 900_000
_FRAME_BYTES = 500  # of a record and its headers, beside what they hold
CUT_HEADER = "riverwatch.cut_from_bytes"
"""Of a dead letter that is not whole: key and value had so many bytes together."""
_SCORED, _DUPLICATE, _REJECTED = 0, 1, 2
_JSON = msgspec.json.Encoder()


@dataclass(slots=True)
class Outcome:
    """What one batch writes, and what it was, for metrics and reports.

    ``encode`` makes the large records, once, on whatever thread: journal, then examples.
    """

    rows: JournalRows
    alerts: list[Alert]
    result: Result
    encode: Callable[[], list[Output]]
    others: list[Output]

    def outputs(self) -> list[Output]:
        """Return all records of the batch; its journal records come first."""
        return self.encode() + self.others


class Emitter:
    """Makes the records of a batch.

    Parameters
    ----------
    slot
        The worker's slot; with the group it names the transaction that wrote a journal record.
    trains
        False where learning is inline: examples were learned already and are not written.
    """

    def __init__(
        self, settings: Settings, spec: FeatureSpec, models: ModelSet, slot: str, *, trains: bool
    ) -> None:
        self._settings = settings
        self._features = spec.features
        self._models = models
        self._trains = trains
        self._topics = settings.outputs
        self._primary = settings.primary_entity
        self._entities = settings.named_entities
        stream = settings.stream
        self._bytes_max = (
            stream.message_bytes_max if isinstance(stream, KafkaSettings) else _RECORD_BYTES_MAX
        )
        self._stamps = {
            "schema_version": str(SCHEMA_VERSION),
            "spec_hash": spec.spec_hash,
            "state_hash": spec.state_hash,
            "models": json.dumps(list(models.names)),
            "transactional_id": transactional_id(settings.name, slot),
            "labels": "" if settings.labels is None else settings.labels.topic,
        }

    def outcome(self, shard: Shard, result: Result) -> Outcome:
        """Return everything that a processed batch writes, as the shard is now."""
        rows = self._rows(shard, result)
        alerts = self._alerts(shard, result)
        batch = result.batch
        others = [
            *self._alert_records(shard, alerts, result.decided),
            *self._notices(shard),
            *self._scores(shard, result),
            *self._dead_letters(shard, batch.records, batch.decoded.rejected),
            *self._dead_letters(shard, batch.label_records, batch.rejected_labels),
        ]
        place = shard.partition, max(0, shard.clock.now_ms)
        encode = partial(self._large, place, self._stamps_of(shard), rows, result.join.examples)
        return Outcome(rows, alerts, result, encode, others)

    def _rows(self, shard: Shard, result: Result) -> JournalRows:
        """Return one row per input record of the batch, in source order."""
        batch, events = result.batch, result.batch.decoded.events
        rejected = batch.decoded.rejected
        n = len(events) + len(rejected)
        valid = events.index
        scored = valid[result.scored]
        rows = _blank_rows(n, result)
        rows.source_offset[valid] = events.offsets
        rows.time_ms[valid] = events.time_ms
        rows.outcome[valid] = np.where(result.duplicate, _DUPLICATE, _SCORED)
        rows.score[scored] = result.score
        rows.decision[scored] = result.decided.code
        rows.threshold[scored] = result.decided.threshold
        rows.model_version[scored] = result.versions
        rows.labels_offset[:] = _labels_known(batch, n)
        rows.degraded[:] = shard.degraded
        rows.raw[scored] = result.raw
        rows.calibrated[scored] = result.calibrated
        if n == len(events):
            rows.X = result.X
            rows.event_ids, rows.entity_ids = (
                list(events.ids),
                list(events.entity_ids[self._primary]),
            )
        else:
            rows.X[valid] = result.X
            _fill_names(rows, valid, events.ids, events.entity_ids[self._primary])
        for r in rejected:
            rows.source_offset[r.index] = r.offset
            rows.outcome[r.index] = _REJECTED
            rows.reason[r.index] = r.code
        return rows

    def _stamps_of(self, shard: Shard) -> dict[str, str]:
        return {
            **self._stamps,
            "model": self._models.champion_name,
            "partition": str(shard.partition),
            "partitions": str(shard.partitions),  # with another number keys are elsewhere
            "next_events": str(shard.events_next),
            "next_labels": str(shard.labels_next),
            "next_notices": str(shard.notices_next),
            **shard.stamps,
        }

    def _large(
        self, place: tuple[int, int], stamps: dict[str, str], rows: JournalRows, examples: Examples
    ) -> list[Output]:
        """Return the records of many bytes: of the journal, then examples."""
        (partition, time_ms), topics = place, self._topics
        outputs = [
            Output(topics.journal, partition, None, value, time_ms)
            for value in journal_records(rows, self._models.names, stamps, self._bytes_max)
        ]
        if self._trains and len(examples):
            few = {k: stamps[k] for k in ("schema_version", "spec_hash", "models", "partition")}
            outputs += [
                Output(topics.training, 0, None, value, time_ms)
                for value in training_records(examples, few, self._bytes_max)
            ]
        return outputs

    def _alerts(self, shard: Shard, result: Result) -> list[Alert]:
        return [
            self._alert(shard, result, k, int(row))
            for k, row in enumerate(np.flatnonzero(result.decided.alert).tolist())
        ]

    def _alert(self, shard: Shard, result: Result, k: int, row: int) -> Alert:
        events = result.batch.decoded.events
        i = int(result.scored[row])
        records, snapshot = result.batch.records, result.snapshot
        score, facts = float(result.score[row]), result.decided.facts[k]
        reasons_max = self._settings.decision.reasons_max
        reasons = reasons_for(
            self._features, result.X[i], snapshot.mean[k], snapshot.std[k],
            int(snapshot.count[k]), reasons_max, result.contributions[k], result.measure,
            (self._primary, result.levels[k]),
        )  # fmt: skip
        return Alert(
            alert_id=f"{records.topic}-{records.partition}-{int(events.offsets[i])}",
            event_id=events.ids[i],
            entities={name: events.entity_ids[name][i] for name in self._entities},
            time_ms=int(events.time_ms[i]),
            score=score,
            threshold=float(result.decided.threshold[row]),
            severity=shard.decider.severity(score),
            model=self._models.champion_name,
            model_version=int(result.versions[row]),
            reasons=[*self._listed(shard, result, row), *reasons][:reasons_max],
            incident_id=facts.incident_id,
            incident_state=facts.incident_state,
            suppressed_count=facts.suppressed_count,
        )

    def _listed(self, shard: Shard, result: Result, row: int) -> list[Reason]:
        """Return the reason that needs no model: the event is on a block list."""
        if DECISIONS[result.decided.code[row]] != Decision.BLOCKED:
            return []
        name = shard.decider.blocked_by(result.batch.decoded.events, int(result.scored[row]))
        text = f"{name} is on a block list"
        return [Reason(feature=str(name), value=1.0, typical=0.0, contribution=0.0, text=text)]

    def _alert_records(self, shard: Shard, alerts: list[Alert], decided: Decided) -> list[Output]:
        """Return alerts and ends of incidents, in the order of the events that made them."""
        said = [(alert.entities[self._primary], alert, alert.time_ms) for alert in alerts]
        messages: list[tuple[str, Alert | IncidentClosed, int]] = []
        done = 0
        for before, at_ms, incident in decided.closed:
            messages += said[done:before]
            done = before
            messages.append((incident.key, self._closed(shard, incident), at_ms))
        return [
            Output(
                self._topics.alerts, shard.partition, key.encode(),
                message.model_dump_json().encode(), time_ms,
            )
            for key, message, time_ms in (*messages, *said[done:])
        ]  # fmt: skip

    def _notices(self, shard: Shard) -> list[Output]:
        """Return what befell the models since the last record of partition 0, as of this version.

        How far it is published is a stamp of the journal in the same transaction: each goes out
        once.
        """
        steward = self._models.steward
        if shard.partition != 0 or steward.said <= shard.notices_next:
            return []
        fresh = [n for n in steward.notices if n.number >= shard.notices_next]
        shard.notices_next = steward.said
        time_ms = max(0, shard.clock.now_ms)
        return [
            Output(self._topics.alerts, 0, None, _notice(n).model_dump_json().encode(), time_ms)
            for n in fresh
        ]

    def _closed(self, shard: Shard, incident: Incident) -> IncidentClosed:
        declared = self._settings.decision.incidents
        assert declared is not None
        return IncidentClosed(
            incident_id=incident.incident_id,
            entity=declared.entity,
            entity_id=incident.entity_id,
            opened_ms=incident.opened_ms,
            last_ms=incident.last_ms,
            alerts=incident.alerts,
            suppressed_count=incident.suppressed,
            score=incident.score_max,
            severity=shard.decider.severity(incident.score_max),
        )

    def _scores(self, shard: Shard, result: Result) -> list[Output]:
        publish = self._topics.scores.publish
        if publish == "none":
            return []
        least = -np.inf if publish == "all" else publish["above"]
        events = result.batch.decoded.events
        outputs = []
        for row in np.flatnonzero(result.score >= least).tolist():
            i = int(result.scored[row])
            entity = events.entity_ids[self._primary][i]
            value = _JSON.encode(
                {
                    "schema_version": 1,
                    "event_id": events.ids[i],
                    "entity": entity,
                    "time_ms": int(events.time_ms[i]),
                    "score": float(result.score[row]),
                    "decision": DECISIONS[result.decided.code[row]],
                    "model": self._models.champion_name,
                    "model_version": int(result.versions[row]),
                }
            )
            time_ms = int(events.time_ms[i])
            outputs.append(
                Output(self._topics.scores.topic, shard.partition, entity.encode(), value, time_ms)
            )
        return outputs

    def _dead_letters(
        self, shard: Shard, records: Records, rejected: list[Rejected]
    ) -> list[Output]:
        topic, place = self._topics.dead_letters, shard.partition
        return [
            Output(topic, place, key, value, max(0, records.timestamps_ms[r.index]), headers)
            for r in rejected
            for key, value, headers in [self._cut(records, r)]
        ]

    def _cut(
        self, records: Records, rejected: Rejected
    ) -> tuple[bytes | None, bytes | None, tuple[tuple[str, bytes], ...]]:
        """Return key, value and headers of a dead letter.

        A broker takes compressed what no client sends whole: of that, as much as the topic takes,
        and a header that says so.
        """
        key, value = records.keys[rejected.index], records.values[rejected.index]
        headers = _connect_headers(self._settings.name, records, rejected)
        length = len(key or b"") + len(value or b"")
        most = self._bytes_max - _FRAME_BYTES - sum(len(n) + len(text) for n, text in headers)
        if length <= most:
            return key, value, headers
        key = key and key[: most // 2]
        value = value and value[: most - len(key or b"")]
        return key, value, (*headers, (CUT_HEADER, b"%d" % length))


def _blank_rows(n: int, result: Result) -> JournalRows:
    return JournalRows(
        source_offset=np.zeros(n, np.int64),
        outcome=np.zeros(n, np.int64),
        reason=[None] * n,
        event_ids=[None] * n,
        entity_ids=[None] * n,
        time_ms=np.zeros(n, np.int64),
        score=np.zeros(n),
        decision=np.zeros(n, np.int64),
        threshold=np.zeros(n),
        model_version=np.zeros(n, np.int64),
        labels_offset=np.zeros(n, np.int64),
        degraded=np.zeros(n, np.int64),
        raw=np.zeros((n, result.raw.shape[1])),
        calibrated=np.zeros((n, result.raw.shape[1])),
        X=np.zeros((n, result.X.shape[1])),
    )


def _notice(notice: Notice) -> ModelNotice:
    return ModelNotice(
        number=notice.number, examples=notice.examples, cause=notice.kind, model=notice.model,
        action=notice.action, text=notice.text,
    )  # fmt: skip


def _fill_names(rows: JournalRows, valid: Int64, ids: list[str], entity_ids: list[str]) -> None:
    for position, event_id, entity_id in zip(valid.tolist(), ids, entity_ids, strict=True):
        rows.event_ids[position] = event_id
        rows.entity_ids[position] = entity_id


def _labels_known(batch: Batch, n: int) -> Int64:
    """Return l per row: the offset after the last label that came before the row's event."""
    labels = batch.label_records
    first = labels.offsets[0] if len(labels) else labels.next_offset
    known = np.array([first, *[offset + 1 for offset in labels.offsets]], np.int64)
    return known[np.searchsorted(batch.record_before, np.arange(n), side="right")]


def _connect_headers(
    group: str, records: Records, rejected: Rejected
) -> tuple[tuple[str, bytes], ...]:
    """Return the headers with the names that Kafka Connect gives them (KIP-298)."""
    words = {
        "topic": records.topic,
        "partition": str(records.partition),
        "offset": str(rejected.offset),
        "connector.name": group,
        "task.id": str(records.partition),
        "stage": "VALUE_CONVERTER",
        "class.name": "worker.decode.Decoder",
        "exception.class.name": f"worker.errors.RecordError.{rejected.code}",
        "exception.message": rejected.message,
        "exception.stacktrace": "",
    }
    return tuple((f"__connect.errors.{name}", text.encode()) for name, text in words.items())
