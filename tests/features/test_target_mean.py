"""Target means: a category's smoothed share of known frauds, against a recomputation."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import pytest
from hypothesis import given

from tests.features.label_streams import Told, label_settings, label_spec, labelled_streams, run
from tests.features.streams import FIELDS, UNHURRIED, Row, settings_of
from tests.features.test_label_features import seen_by
from tests.worlds import drain, events, fill, journal, new_log, settings, worker
from worker.config_rules import semantic_problems
from worker.contracts.settings import Settings
from worker.errors import ConfigError
from worker.features.spec import compile_features
from worker.stores.memory import MemoryStore

SPEC = label_spec({"risk": "target_mean($channel, 0.2, 5)", "channel": "$channel"}, 64)


@UNHURRIED
@given(stream=labelled_streams())
def test_it_is_the_smoothed_share_of_earlier_events_known_to_be_frauds(
    stream: tuple[list[Row], list[Told]],
) -> None:
    """Of the same value, whatever card; undeclared values are one; the event itself is not in."""
    rows, told = stream
    X, duplicate, _ = run(SPEC, rows, told)
    for i in range(len(rows)):
        if duplicate[i]:
            continue
        seen = seen_by("channel", i, rows, told, duplicate)
        frauds = sum(y for _, _, y, _ in seen.truths)
        expected = (frauds + 0.2 * 5) / (len(seen.events) - 1 + 5)
        assert math.isclose(X[i, 0], expected, rel_tol=1e-12), (i, X[i, 0], expected)


def test_a_value_never_seen_has_the_prior() -> None:
    """Before anything is known: one in a hundred unless given."""
    spec = label_spec({"risk": "target_mean($channel)"})
    assert run(spec, [Row("e1", channel=1)], [])[0].tolist() == [[0.01]]
    assert spec.features[0].words == (
        "share of known frauds among earlier events of this channel in 90 d, smoothed"
    )


def test_a_declared_entity_with_this_key_is_used() -> None:
    """No second state is kept of terminals; else one is declared, and declaring again is idle."""
    declared = label_settings({"risk": "target_mean($terminal_id)"})
    assert [*declared.entities] == ["card", "terminal"]
    assert compile_features(declared).features[0].entity == "terminal"
    implied = settings_of({"risk": "target_mean($channel)"})
    assert implied.entities["target_of_channel"].key == "channel"
    data = implied.model_dump(mode="json", exclude_unset=True)
    assert Settings.model_validate(data).entities == implied.entities
    assert not [p for p in semantic_problems(implied) if "target_of_channel" in p.path]


def test_a_whole_worker_serves_what_the_longhand_serves() -> None:
    """An entity that only the shorthand declares: decoded, folded, and stored."""
    longhand = {"windows": ["90d"], "include_current": False, "prior": 0.2, "strength": 5}
    short = settings(
        entities={"card": {"key": "card", "ring": 4}},
        features={"amount": "$amount", "risk": "target_mean($terminal, 0.2, 5)"},
    )
    long = settings(
        entities={"card": {"key": "card", "ring": 4}, "terminal": {"key": "terminal"}},
        features={"amount": "$amount", "terminal": {"fraud_rate": longhand}},
    )
    assert served(short) == served(long)
    assert len({x[1] for x in served(short)}) > 20


def test_alerts_name_the_entities_of_the_file_only() -> None:
    """The entity that the shorthand declares is nobody's word; one of the file stays."""
    decision = {"model": "fraud", "threshold": 1e-6}
    declared = settings().model_dump(mode="json", exclude_unset=True)
    declared["events"]["fields"]["place"] = "string"
    declared["labels"]["horizon"] = "30d"
    declared["features"]["risk"] = "target_mean($place)"
    declared["decision"] = decision
    short = Settings.model_validate(declared)
    assert [*short.entities] == ["card", "terminal", "target_of_place"]
    log = new_log()
    fill(log, [{**event, "place": "low"} for event in events(200)])
    drain(worker(log, MemoryStore(), config=short))
    alerts = [json.loads(value or b"") for value in log.read("alerts", 0, 0, 10**9).values]
    assert {(*alert["entities"],) for alert in alerts} == {("card", "terminal")}


def served(config: Settings) -> list[list[float]]:
    log = new_log()
    fill(log, events(200))
    drain(worker(log, MemoryStore(), config=config))
    return [row["x"] for row in journal(log) if row["outcome"] == "scored"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("target_mean($chanel)", "did you mean \\$channel"),
        ("target_mean(channel)", "expected target_mean\\(\\$FIELD\\)"),
        ("target_mean($channel, 0.1)", "expected target_mean\\(\\$FIELD\\)"),
        ("target_mean($amount)", "expected a field of type category, string, integer"),
        ("target_mean($channel, 2, 5)", "a prior from 0 to 1"),
        ("2 * target_mean($channel)", "target_mean"),
    ],
)
def test_what_is_wrong_is_named(text: str, said: str) -> None:
    """With the place in the file; nothing is declared for a field that cannot be."""
    with pytest.raises(ConfigError) as caught:
        label_spec({"risk": text})
    (problem,) = caught.value.problems
    assert problem.path == ("features", "risk")
    words = f"expected {problem.expected}, got {problem.got}; {problem.hint}"
    assert re.search(said, words), words


def test_it_needs_labels_and_its_entity_s_name() -> None:
    """Without a labels section there is no truth; a name that is taken is not taken over."""
    with pytest.raises(ConfigError) as caught:
        compile_features(settings_of({"risk": "target_mean($channel)"}))
    assert "labels section" in caught.value.problems[0].expected
    taken: dict[str, Any] = label_settings({"risk": "target_mean($channel)"}).model_dump(
        mode="json", exclude_unset=True
    )
    taken["entities"]["target_of_channel"] = {"key": "terminal_id"}
    taken["events"]["fields"] = FIELDS
    with pytest.raises(ConfigError) as caught:
        compile_features(Settings.model_validate(taken))
    assert caught.value.problems[0].hint == "rename that entity"
