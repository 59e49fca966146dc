"""The documentation says what the code does: its tables, links and names are compared with it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests import docs_tables
from worker.features.aggregations import AGGREGATIONS
from worker.features.aggregations.labels import LABEL_AGGREGATIONS

ROOT = Path(__file__).parent.parent
PAGES = [*sorted((ROOT / "docs").glob("*.md")), *sorted(ROOT.glob("*.md"))]
TABLES = [(page, name) for page, parts in docs_tables.tables().items() for name in parts]


@pytest.mark.parametrize(("page", "name"), TABLES)
def test_a_table_says_what_the_code_says(page: str, name: str) -> None:
    """Every generated table is as the code would write it today."""
    text = (ROOT / "docs" / page).read_text()
    body = docs_tables.tables()[page][name]()
    hint = f"docs/{page} is out of date: run {docs_tables.COMMAND}"
    assert docs_tables.rewritten(text, name, body) == text, hint


@pytest.mark.parametrize("said", [r"Cost: O\(", "[Ee]xact|[Ee]rror", r"\b\d\.\d\b", ">>>"])
def test_every_aggregation_says(said: str) -> None:
    """What it costs, how wrong it is, its value where there is nothing, and an example."""
    kinds = {**AGGREGATIONS, **LABEL_AGGREGATIONS}
    words = {name: " ".join((kind.__doc__ or "").split()) for name, kind in kinds.items()}
    lacking = [name for name, text in words.items() if not re.search(said, text)]
    assert lacking == []


def test_a_changed_default_is_seen() -> None:
    """The comparison can fail: one character changed in a table is another page."""
    text = (ROOT / "docs" / "configuration.md").read_text()
    changed = text.replace("| `5000` | events that make", "| `5001` | events that make")
    assert changed != text
    body = docs_tables.settings_table()
    assert docs_tables.rewritten(changed, "settings", body) == text


def test_a_page_without_a_place_for_a_table_is_refused() -> None:
    """A lost marker is an error, not a table that is silently missing."""
    with pytest.raises(ValueError, match="expected one place for the table settings, got 0"):
        docs_tables.rewritten("# Configuration", "settings", "")


def test_every_setting_has_a_description() -> None:
    """No key in the tables is left without words."""
    missing = [
        f"{place}.{key}"
        for place, section in docs_tables.sections(docs_tables.Settings)
        for key, field in section.model_fields.items()
        if not docs_tables.description(field)
    ]
    assert missing == []


def test_the_settings_table_has_known_rows() -> None:
    """Type, bounds, default and words of a few keys, written down by hand."""
    rows = docs_tables.settings_table().splitlines()
    for row in (
        "| `ring` | integer, ≥ 1, ≤ 1024 | `32` | last events kept one by one |",
        "| `delay` | duration | - | replay: when a row's label becomes known |",
        "| `horizon` | duration | `30d` | how long an event waits for its label |",
        "| `alert_rate` | number, > 0, ≤ 0.5 | - | share of events |",
        "| `unit` | `iso` or `s` or `ms` or `us` | `iso` | how it is written |",
    ):
        assert row in rows


def test_commands_within_a_command_have_tables() -> None:
    """Each with its own options, under all of its words."""
    import worker.cli

    text = docs_tables.commands_table(worker.cli.app)
    _, _, part = text.partition("### riverwatch snapshot show\n")
    assert "| `FILE` | required | a snapshot |" in part.partition("###")[0].splitlines()
    assert "### riverwatch snapshot\n" not in text


def test_every_section_of_the_file_has_a_table() -> None:
    """The places of the sections, written down by hand from the file's structure."""
    places = [place for place, _ in docs_tables.sections(docs_tables.Settings)]
    assert places == [
        "",
        "events",
        "events.time",
        "events.fields.NAME",
        "labels",
        "labels.sources.NAME",
        "entities.NAME",
        "models.NAME",
        "models.NAME.calibration",
        "decision",
        "decision.suppress",
        "decision.incidents",
        "decision.evidence",
        "decision.allow",
        "decision.block",
        "outputs",
        "outputs.scores",
        "stream (kind: kafka)",
        "stream (kind: memory)",
        "store (kind: redis)",
        "store (kind: memory)",
        "runner",
        "snapshots",
        "drift",
        "guard",
        "metrics",
        "metrics.segments.NAME",
        "degrade",
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_leads_somewhere(page: Path) -> None:
    """Relative links and file names in code point at files that exist."""
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_metric_named_in_the_docs_exists() -> None:
    """A metric in an expression or a sentence is one that the worker has."""
    known = set(re.findall(r"`(riverwatch_\w+)`", docs_tables.metrics_table()))
    for page in PAGES:
        named = set(re.findall(r"\briverwatch_[a-z_]+\b", page.read_text()))
        assert named <= known, page.name


def test_every_refusal_is_explained_for_operators() -> None:
    """What a worker may refuse of a shard stands in docs/operations.md in its own words."""
    code = "".join(
        (ROOT / "worker" / f"{name}.py").read_text() for name in ("acquire", "owned", "positions")
    )
    words = re.findall(r'"(?:a|the) (?:store|log|row|record|offsets|shard)[^"]*"', code)
    page = " ".join((ROOT / "docs" / "operations.md").read_text().split())
    said = [word.strip('"').split("{")[0].strip() for word in words]
    assert len(said) >= 7
    assert [word for word in said if word not in page] == []
