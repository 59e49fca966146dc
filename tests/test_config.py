"""Configuration files: every mistake at once, with file, line, path, expected, got and hint."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.config import load_settings, render_problems
from worker.config_yaml import read_document
from worker.contracts.settings import Settings
from worker.errors import ConfigError, Problem
from worker.features.spec import compile_features

GOOD = """\
name: cards
events:
  topic: transactions
  id: transaction_id
  key: card_id
  time: {field: time, unit: iso}
  fields:
    transaction_id: string
    card_id: string
    terminal_id: {type: integer, default: 0}
    amount: {type: decimal, resolution: 0.01, min: 0}
    channel: {type: category, values: [NO, web]}
    time: timestamp
labels:
  horizon: 30d
entities:
  card: {key: card_id, ring: 32}
  terminal: {key: terminal_id}
features:
  amount: $amount
  card:
    count: [1h, 7d]
    mean(amount): {windows: [1d, 7d]}
models:
  fraud: {preset: logistic}
decision:
  model: fraud
  threshold: 0.5
stream:
  kind: kafka
store: {kind: redis, url: "redis://localhost"}
"""
EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*/*.yaml"))


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "cards.yaml"
    path.write_text(text)
    return path


def load(tmp_path: Path, text: str, environ: Mapping[str, str] | None = None) -> Settings:
    return load_settings(write(tmp_path, text), environ or {}, checks=(compile_features,))


def changed(*changes: tuple[str, str]) -> str:
    text = GOOD
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


def problems(tmp_path: Path, text: str, environ: Mapping[str, str] | None = None) -> list[str]:
    """Return the lines of the error, without the directory."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text, environ)
    lines = str(caught.value).replace(f"{tmp_path}/", "").splitlines()
    assert len(lines) == len(caught.value.problems)
    return lines


def test_a_right_file_becomes_settings(tmp_path: Path) -> None:
    """Durations are ms; a country that YAML 1.1 would call false stays a text."""
    settings = load(tmp_path, GOOD)
    assert settings.events.fields["channel"].values == ("NO", "web")
    assert settings.labels is not None
    assert settings.labels.horizon == 30 * 86_400_000
    assert settings.primary_entity == "card"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_each_example_is_right(path: Path) -> None:
    """The files that newcomers copy load without an environment."""
    assert load_settings(path, {}, checks=(compile_features,)).name


# Each case: what is replaced, and the one line that must come out of it.
ONE_MISTAKE = [
    (("[1d, 7d]", "[1d, 7 dayz]"),
     "23 features.card.mean(amount).windows[1]: expected a duration such as 10m or 7d"),
    (("threshold: 0.5", "treshold: 0.5"),
     '28 decision.treshold: expected a known key, got "treshold" (did you mean threshold?)'),
    (("  topic: transactions\n", ""), "2 events.topic: expected a value, got nothing"),
    (("horizon: 30d", "horizon: 0d"),
     '15 labels.horizon: expected a duration of more than 0, such as 10m or 7d, got "0d"'),
    (("ring: 32", "ring: 4096"), "17 entities.card.ring: expected at most 1024, got 4096"),
    (("ring: 32", "ring: many"), '17 entities.card.ring: expected an integer, got "many"'),
    (("kind: kafka", "kind: kafa"),
     '30 stream.kind: expected kafka or memory, got "kafa" (did you mean kafka?)'),
    (("id: transaction_id", "id: transaction"),
     '4 events.id: expected a field of events.fields, got "transaction" '
     "(did you mean transaction_id?)"),
    (("id: transaction_id", "id: amount"),
     "4 events.id: expected a field of type string or integer, got amount: decimal"),
    (("transaction_id: string", "transaction_id: {type: string, default: x}"),
     '8 events.fields.transaction_id.default: expected no default: events.id names it, got "x"'),
    (("time: timestamp", "time: string"),
     "6 events.time.field: expected a field of type timestamp, got time: string"),
    (("time: timestamp", "time: {type: timestamp, unit: ms}"),
     '6 events.time.unit: expected the unit of the field, ms, got "iso"'),
    (("{key: card_id, ring: 32}", "{key: terminal_id}"),
     "16 entities: expected an entity with the key of the events, card_id, got none"),
    (("{key: terminal_id}", "{key: terminal}"),
     '18 entities.terminal.key: expected a field of events.fields, got "terminal" '
     "(did you mean terminal_id?)"),
    (("terminal: {key", "pend: {key"), "18 entities.pend: expected another name"),
    (("values: [NO, web]", "values: []"),
     "12 events.fields.channel.values: expected at least one value, got none"),
    (("resolution: 0.01", "resolution: 0.05"),
     "11 events.fields.amount.resolution: expected a power of ten from 1e-9 to 1, got 0.05"),
    (("resolution: 0.01, ", ""),
     "11 events.fields.amount.resolution: expected a power of ten from 1e-9 to 1, got nothing"),
    (("min: 0}", "min: 5, max: 4}"),
     "11 events.fields.amount.min: expected at most max, 4, got 5"),
    (("min: 0}", "min: 0, default: -1}"),
     "11 events.fields.amount.default: expected at least min, 0, got -1"),
    (("min: 0}", "min: 0, default: true}"),
     "11 events.fields.amount.default: expected a finite number, got true"),
    (("min: 0}", "min: .nan}"), "11 events.fields.amount.min: expected a finite number, got NaN"),
    (("{type: integer, default: 0}", "{type: integer, default: 0.5}"),
     "10 events.fields.terminal_id.default: expected an integer, got 0.5"),
    (("terminal_id: {type: integer, default: 0}", "terminal_id: {type: integer, unit: s}"),
     "10 events.fields.terminal_id.unit: expected a field of type timestamp, got type integer"),
    (("model: fraud", "model: frauds"),
     '27 decision.model: expected the name of a model, got "frauds" (did you mean fraud?)'),
    (("  threshold: 0.5\n", ""),
     "26 decision: expected exactly one of threshold, alert_rate and alerts_per_day, got none"),
    (("threshold: 0.5", "threshold: 0.5\n  alert_rate: 0.1"),
     "26 decision: expected exactly one of threshold, alert_rate and alerts_per_day, got threshold "
     "and alert_rate"),
    (("threshold: 0.5", "threshold: 0.5\n  severity: {high: 0.4, medium: 0.4}"),
     "29 decision.severity.high: expected more than medium, 0.4, got 0.4"),
    (("{preset: logistic}", "{preset: logistic, factory: a:b}"),
     "25 models.fraud: expected exactly one of preset, river and factory, got preset and factory"),
    (("horizon: 30d", "topic: transactions"),
     '15 labels.topic: expected a topic of its own, got "transactions" (events.topic has it)'),
    (("horizon: 30d", "column: is_fraud"), "14 labels: expected a delay beside column, got none"),
    (("horizon: 30d", "column: amount\n  delay: 7d"),
     '15 labels.column: expected a column that is no field of the events, got "amount"'),
    (("horizon: 30d", "horizon: 7d\n  delay: 7d"),
     "16 labels.delay: expected less than horizon, 7d, got 7d"),
    (("horizon: 30d", "mode: positives_only"),
     "14 labels: expected a maturity with positives_only, got none"),
    (("horizon: 30d", "maturity: 30d"),
     "15 labels.maturity: expected no maturity, or mode positives_only, got mode explicit"),
    (("horizon: 30d", "negative_rate: 0.1"),
     "15 labels.negative_rate: expected no negative_rate, or mode positives_only"),
    (("horizon: 30d", "horizon: 7d\n  mode: positives_only\n  maturity: 8d"),
     "17 labels.maturity: expected at most horizon, 7d, got 8d"),
    (("kind: kafka", "kind: kafka\nrunner: {dirty_max: 2000}"),
     "31 runner.dirty_max: expected more than batch_records_max, 5000, got 2000"),
    *[(("kind: kafka", f"kind: kafka\n  bootstrap_servers: {servers}"),
       f'31 stream.bootstrap_servers: expected host:port, by commas, got "{wrong}"')
      for servers, wrong in (("localhost", "localhost"), ('"a:9092, b"', "b"), ('"a:0"', "a:0"),
                             ("kafka://a:9092", "kafka://a:9092"), ('":9092"', ":9092"))],
    (("redis://localhost", "http://localhost"), "31 store.url: expected one of redis://"),
    *[(("redis://localhost", url),
       "31 store.url: expected a host, and a port from 1 to 65535, got another (for example redis:")
      for url in ("redis://host:abc", "redis://host:65536", "redis://host:0/1", "redis://[::1")],
    *[(('url: "redis://localhost"', f'cluster: true, url: "{url}"'),
       "31 store.url: expected redis:// or rediss:// and no database but 0, in a cluster, got")
      for url in ("redis://host/3", "redis://host?db=2", "unix:///tmp/a.sock")],
    *[(("kind: kafka", f"kind: kafka\noutputs: {{scores: {{publish: {wrong}}}}}"),
       "31 outputs.scores.publish: expected all, none, or from which score on, as in {above: 0.5}")
      for wrong in ("{above: x}", "{above: true}", "{above: .nan}", "{over: 1}", "{}", "some")],
    (("  card_id: string", "  card_id: string\n    card_id: integer"),
     "10 events.fields.card_id: expected each key once, got it again (first in line 9)"),
    (("amount: $amount", "amount: $amoun"), "20 features.amount: expected "),
    (("name: cards", "name: !!python/name:os.system x"), "1 name: expected no YAML tag"),
    (("ring: 32}", "ring: 32"), "18: expected YAML, got "),
]  # fmt: skip


@pytest.mark.parametrize(("change", "line"), ONE_MISTAKE, ids=[line for _, line in ONE_MISTAKE])
def test_one_mistake_gives_one_line(tmp_path: Path, change: tuple[str, str], line: str) -> None:
    """No second line misleads about a consequence of the first."""
    found = problems(tmp_path, changed(change))
    assert len(found) == 1, found
    assert found[0].startswith(f"cards.yaml:{line}")


def test_mistakes_of_every_stage_are_reported_at_once_in_the_order_of_the_file(
    tmp_path: Path,
) -> None:
    """YAML, variables, types, contradictions, features, and an injected check."""

    def check(settings: Settings) -> None:
        raise ConfigError("models", [Problem(("models", "fraud", "preset"), "a preset", "x")])

    text = changed(
        ("topic: transactions", "topic: ${TOPIC}"),
        ("key: card_id\n", "key: card_id\n  key: card_id\n"),
        ("resolution: 0.01", "resolution: 3"),
        ("ring: 32", "ring: 0"),
        ("count: [1h, 7d]", "cuont: [1h]"),
        ("model: fraud", "model: other"),
    )
    with pytest.raises(ConfigError) as caught:
        load_settings(write(tmp_path, text), {}, checks=(compile_features, check))
    assert [problem.path for problem in caught.value.problems] == [
        ("events", "topic"),
        ("events", "key"),
        ("events", "fields", "amount", "resolution"),
        ("entities", "card", "ring"),
        ("features", "card", "cuont"),
        ("models", "fraud", "preset"),
        ("decision", "model"),
    ]


def test_problems_of_features_come_beside_a_missing_key_elsewhere(tmp_path: Path) -> None:
    """What cannot be read is replaced by a stand-in, so that later stages still run."""
    text = changed(("name: cards\n", ""), ("[1d, 7d]", "[1d, x]"), ("  id: transaction_id\n", ""))
    found = problems(tmp_path, text)
    assert [line.split(": ")[0].split()[1] for line in found] == [
        "name", "events.id", "features.card.mean(amount).windows[1]",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (("threshold: 0.5", "threshold: 0.5\n  suppress: {entity: card}"), "suppress.within"),
        (("threshold: 0.5", "threshold: 0.5\n  incidents: {entity: 7}"), "incidents.entity"),
        (("  kind: kafka", "  kind: kafkaa"), "stream.kind"),
        (("{kind: redis,", "{"), "store.kind"),
        (("  time: {field: time, unit: iso}\n", ""), "events.time"),
        (("min: 0}", "min: none}"), "events.fields.amount.min"),
        (("ring: 32", "ring: -1"), "entities.card.ring"),
        (("{key: card_id, ring: 32}", "{ring: 32}"), "entities.card.key"),
        (("{key: card_id, ring: 32}", "7"), "entities.card"),
        (("fraud: {preset: logistic}", "fraud: {preset: logistic}\n  a: {b: 1}"), "models.a.b"),
    ],
)
def test_a_wrong_section_hides_no_mistake_of_the_features(
    tmp_path: Path, change: tuple[str, str], place: str
) -> None:
    """Two mistakes are two lines, and nothing is said that follows from the first alone."""
    found = problems(tmp_path, changed(change, ("[1d, 7d]", "[1d, x]")))
    places = [line.split(": ")[0].split()[1] for line in found]
    feature = "features.card.mean(amount).windows[1]"
    assert len(places) == 2
    assert feature in places
    assert any(one.endswith(place) for one in places if one != feature), places


def test_an_entity_with_a_wrong_key_hides_no_mistake_below_it(tmp_path: Path) -> None:
    """Features and decisions are looked at all the same."""
    text = changed(("{key: card_id,", "{key: card_idd,"), ("[1d, 7d]", "[1d, x]"),
                   ("model: fraud", "model: frauds"))  # fmt: skip
    assert [line.split(": ")[0].split()[1] for line in problems(tmp_path, text)] == [
        "entities", "entities.card.key", "features.card.mean(amount).windows[1]", "decision.model",
    ]  # fmt: skip


def test_a_failing_check_is_heard_when_nothing_else_is_wrong(tmp_path: Path) -> None:
    """A bug in a check must not pass for a right file."""

    def broken(settings: Settings) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        load_settings(write(tmp_path, GOOD), {}, checks=(broken,))
    with pytest.raises(ConfigError):
        load_settings(write(tmp_path, changed(("0.01", "7"))), {}, checks=(broken,))


def test_variables_are_replaced_inside_texts_only_and_nothing_else_expands(tmp_path: Path) -> None:
    """Not in keys, not in what was replaced; `$amount` is a field of the features."""
    text = changed(
        ("  kind: kafka", '  bootstrap_servers: "${HOST}:${PORT}"\n  ${HOST}: x\n  kind: kafka'),
    )
    found = problems(tmp_path, text, {"HOST": "${PORT}", "PORT": "1"})
    assert [line.split(":", 2)[1] for line in found] == ["31 stream.${HOST}"]
    text = changed(("  kind: kafka", '  sasl_username: "${HOST}:$PORT"\n  kind: kafka'))
    settings = load(tmp_path, text, {"HOST": "${PORT}", "PORT": "1"})
    assert settings.stream.sasl_username == "${PORT}:$PORT"  # type: ignore[union-attr]


@pytest.mark.parametrize("form", ["${HOST:-x}", "${}", "${HOST", "${1}"])
def test_another_form_of_a_variable_is_an_error(tmp_path: Path, form: str) -> None:
    """Left as it is, it would be used as a name."""
    found = problems(tmp_path, changed(("topic: transactions", f'topic: "{form}"')), {"HOST": "h"})
    assert found == [
        "cards.yaml:3 events.topic: expected ${NAME} with the name of a variable, "
        "got another form of ${...}"
    ]


def test_a_missing_variable_is_named_with_a_hint(tmp_path: Path) -> None:
    """An empty one is not missing."""
    text = changed(("redis://localhost", "redis://${REDIS_HOST}"))
    assert problems(tmp_path, text) == [
        "cards.yaml:31 store.url: expected the environment variable REDIS_HOST, got nothing "
        "(export REDIS_HOST=...)"
    ]
    assert load(tmp_path, text, {"REDIS_HOST": ""})


def test_a_secret_never_appears_in_a_message(tmp_path: Path) -> None:
    """Neither from the environment nor from a key that holds one, wherever the mistake is."""
    environ = {"SECRET": "hunter2"}
    for old, new in (
        ("topic: transactions", "topic: ${SECRET} is no topic"),
        ("ring: 32", "ring: ${SECRET}"),
        ("model: fraud", "model: ${SECRET}"),
        ("amount: $amount", "amount: ${SECRET}"),
        ("[1d, 7d]", '["${SECRET}"]'),
        ("kind: kafka", "kind: kafka\n  sasl_password: [hunter2]"),
        ("kind: kafka", "kind: kafka\n  password: hunter2"),
        ("redis://localhost", "http://:hunter2@localhost"),
        ("redis://localhost", "http://:${SECRET}@localhost"),
    ):
        found = problems(tmp_path, changed((old, new)), environ)
        assert found
        assert "hunter2" not in "\n".join(found)


def test_a_secret_that_is_a_number_or_quoted_elsewhere_is_hidden_too(tmp_path: Path) -> None:
    """By the name of its key in the one case, by its value in the other."""
    found = problems(tmp_path, changed(("kind: kafka", "kind: kafka\n  sasl_password: 987654")))
    assert found == ["cards.yaml:31 stream.sasl_password: expected a text, got a hidden value"]

    def check(settings: Settings) -> None:
        problem = Problem(("models",), "a hunter2", "2 hunter2", "no hunter2")
        raise ConfigError("models", [problem])

    text = changed(("redis://localhost", "redis://:${SECRET}@localhost"))
    with pytest.raises(ConfigError) as caught:
        load_settings(write(tmp_path, text), {"SECRET": "hunter2"}, checks=(check,))
    assert str(caught.value).endswith("24 models: expected a ***, got 2 *** (no ***)")


@pytest.mark.parametrize(
    ("secret", "told"),
    [
        ("car", "models: expected a card_id, got scar"),  # within words
        ("card", "models: expected a card_id, got scar"),
        ("scar", "models: expected a card_id, got ***"),
        ("card_id", "models: expected a ***, got scar"),
        ("a c", "models: expected a card_id, got scar"),
        ("s", "models: expected a card_id, got scar"),
        ("redis:", "models: expected a card_id, got scar"),
    ],
)
def test_a_short_secret_hides_no_words_that_hold_it(tmp_path: Path, secret: str, told: str) -> None:
    """A user called car is hidden, a scar is not; at its own place it is hidden within words."""

    def check(settings: Settings) -> None:
        raise ConfigError("models", [Problem(("models",), "a card_id", "scar")])

    text = changed(("redis://localhost", "redis://:${SECRET}@localhost"))
    with pytest.raises(ConfigError) as caught:
        load_settings(write(tmp_path, text), {"SECRET": secret}, checks=(check,))
    assert str(caught.value).endswith(told)
    own = problems(tmp_path, changed(("amount: $amount", "amount: x${SECRET}y")), {"SECRET": "car"})
    assert "xcary" not in "\n".join(own)


def test_two_mistakes_in_one_part_do_not_hide_those_of_later_stages(tmp_path: Path) -> None:
    """The part is left out once, and the features are still compiled; alternatives are joined."""
    text = changed(
        ("terminal: {key: terminal_id}", "terminal: {ring: x}"),
        ("{preset: logistic}", "{river: 5}"),
        ("[1d, 7d]", "[1d, x]"),
    )
    assert [line.split(maxsplit=1)[1].split(", got")[0] for line in problems(tmp_path, text)] == [
        "entities.terminal.key: expected a value",
        "entities.terminal.ring: expected an integer",
        "features.card.mean(amount).windows[1]: expected a duration such as 10m or 7d",
        "models.fraud.river: expected a text or a mapping or a list",
    ]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("kind: kafka", "kind: kafka\n  sasl_password: written"),
        ("redis://localhost", "redis://user:written@localhost"),
    ],
)
def test_a_secret_written_in_the_file_is_refused(tmp_path: Path, old: str, new: str) -> None:
    """Secrets come from the environment only."""
    assert "expected a secret from the environment" in problems(tmp_path, changed((old, new)))[0]
    assert load(tmp_path, changed((old, new.replace("written", "${SECRET}"))), {"SECRET": "s"})


@pytest.mark.parametrize("text", ["", "# nothing\n", "[]", "7", "a: b: c", "a: &a [*a]", "\x00"])
def test_a_file_that_is_no_configuration_is_refused_in_words(tmp_path: Path, text: str) -> None:
    """From the empty file to an alias that contains itself."""
    assert problems(tmp_path, text)


def test_aliases_that_multiply_are_bounded(tmp_path: Path) -> None:
    """A file of 600 bytes must not take the memory of the machine."""
    levels = [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    found = problems(tmp_path, "a0: &a0 [x]\n" + "\n".join(levels))
    assert any("expected at most 50 levels and 100000 values" in line for line in found)


def test_a_file_that_is_not_there_or_not_text_is_refused(tmp_path: Path) -> None:
    """The edge of the file system is an error in words too."""
    with pytest.raises(ConfigError, match="expected a file that can be read, got No such file"):
        load_settings(tmp_path / "none.yaml", {})
    (tmp_path / "binary.yaml").write_bytes(b"a: \xff")
    with pytest.raises(ConfigError, match="expected UTF-8, got another byte at position 3"):
        load_settings(tmp_path / "binary.yaml", {})


def test_a_line_break_in_a_name_does_not_break_the_line_of_its_problem(tmp_path: Path) -> None:
    """One problem is one line, whatever the file holds."""
    found = problems(
        tmp_path, changed(("key: card_id\n", 'key: "a\\nb"\n'), ("model: fraud", "model: x"))
    )
    assert len(found) == 2


def test_a_missing_place_is_shown_at_the_line_of_what_holds_it() -> None:
    """The nearest known line above, or the first."""
    lines = {(): 1, ("a",): 5}
    problem = [Problem(("a", "b", 0), "x", "y"), Problem(("z",), "x", "y", "h")]
    assert render_problems(Path("c.yaml"), lines, problem) == (
        "c.yaml:5 a.b[0]: expected x, got y\nc.yaml:1 z: expected x, got y (h)"
    )


def outcome(text: str) -> None:
    """Load a file; anything but settings or a complete ConfigError fails the test."""
    with tempfile.TemporaryDirectory() as directory:
        path = write(Path(directory), text)
        try:
            load_settings(path, {"A": "b"}, checks=(compile_features,))
        except ConfigError as error:
            assert error.problems
            assert all(line.startswith(f"{path}:") for line in str(error).splitlines())


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text("aN$:{}\n", max_size=6)
KEYS = st.sampled_from(["kind", "preset", "river", "type", "key", "card", "windows", "a", "min"])
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)
RAW = read_document(GOOD, {}).value
PLACES = [(key,) for key in RAW] + [
    (key, inner) for key, section in RAW.items() if isinstance(section, dict) for inner in section
]


@settings(deadline=None)  # the machine may be busy
@given(st.dictionaries(st.sampled_from(PLACES), TREES, min_size=1, max_size=3))
def test_any_tree_at_any_place_ends_as_settings_or_problems(
    changes: dict[tuple[str, ...], object],
) -> None:
    """Nothing but a ConfigError comes out, with a line for each problem."""
    raw = copy.deepcopy(RAW)
    for place, tree in changes.items():
        if len(place) == 1:
            raw[place[0]] = tree
        elif isinstance(raw[place[0]], dict):
            raw[place[0]][place[1]] = tree
    outcome(yaml.safe_dump(raw, allow_unicode=True))


@settings(deadline=None)
@given(st.integers(0, len(GOOD)), st.integers(0, 9), st.text("ab: [{}]$,x1\n-&*!", max_size=9))
def test_any_damaged_file_ends_as_settings_or_problems(at: int, cut: int, text: str) -> None:
    """Some characters are replaced, inserted or deleted anywhere."""
    outcome(GOOD[:at] + text + GOOD[at + cut :])
