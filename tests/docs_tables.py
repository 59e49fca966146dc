"""The tables of docs/ that the code knows better: settings, commands, metrics.

Run ``python -m tests.docs_tables`` to write them anew; ``tests/test_docs.py`` compares. A table
stands between two comments, so the text around it stays as it is.
"""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import typer
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from worker.contracts.settings import (
    DriftSettings,
    GuardSettings,
    Section,
    Settings,
    format_duration,
    parse_duration,
)
from worker.features.aggregations import AGGREGATIONS, Aggregation
from worker.features.aggregations.labels import LABEL_AGGREGATIONS
from worker.models.calibration import CALIBRATORS
from worker.models.checking import param_words
from worker.models.prequential import MEANINGS as MEANINGS_OF_FIGURES
from worker.models.prequential import Figures
from worker.models.presets import PRESETS

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
COMMAND = "python -m tests.docs_tables"
_WORDS: dict[Any, str] = {
    str: "text", int: "integer", float: "number", bool: "true or false", SecretStr: "secret",
    type(None): "null", Any: "any",
}  # fmt: skip
_MARKED = "<!-- table: {name} (written by {command}) -->\n\n{body}\n\n<!-- end of table -->"


def settings_table() -> str:
    """Return the sections with every key: type, default, description."""
    parts = []
    for place, section in sections(Settings):
        title = f"### {place or 'the file'}"
        rows = [
            (code(name), type_words(field), default_words(field), description(field))
            for name, field in section.model_fields.items()
        ]
        parts.append(
            f"{title}\n\n{summary(section)}\n\n{table(('key', 'type', 'default', ''), rows)}"
        )
    return "\n\n".join(parts)


def sections(model: type[BaseModel], place: str = "") -> Iterable[tuple[str, type[BaseModel]]]:
    """Yield every section with its place in the file, outer ones first."""
    yield place, model
    for name, field in model.model_fields.items():
        inner = inner_sections(field.annotation)
        several = len(inner) > 1
        for section in inner:
            here = f"{place}.{name}" if place else name
            here += ".NAME" if is_mapping(field.annotation) else ""
            kind = f" (kind: {section.model_fields['kind'].default})" if several else ""
            yield from sections(section, here + kind)


def inner_sections(annotation: Any) -> list[type[BaseModel]]:
    """Return the section classes inside an annotation, in its order."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [section for part in get_args(annotation) for section in inner_sections(part)]


def is_mapping(annotation: Any) -> bool:
    return get_origin(annotation) is dict


def summary(section: type[BaseModel]) -> str:
    """Return the first paragraph of a docstring as one line of Markdown."""
    text = " ".join((section.__doc__ or "").split("\n\n")[0].split())
    return text.replace("``", "`")


def description(field: FieldInfo) -> str:
    """Return a key's description, for a section the words of the section."""
    if field.description:
        return field.description
    return ", or ".join(summary(s).rstrip(".") for s in inner_sections(field.annotation))


def type_words(field: FieldInfo) -> str:
    """Return a type in the words of somebody who writes YAML, with its bounds."""
    if is_duration(field):
        return "duration"
    words = annotation_words(field.annotation)
    bounds = [
        f"{sign} {getattr(limit, name)}"
        for limit in field.metadata
        for name, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"))
        if hasattr(limit, name)
    ]
    return ", ".join([words, *bounds])


def is_duration(field: FieldInfo) -> bool:
    """Return whether texts such as 10m are read for this key."""
    return parse_duration.__name__ in repr((field.metadata, field.annotation))


def annotation_words(annotation: Any) -> str:
    origin, args = get_origin(annotation), get_args(annotation)
    if inner := inner_sections(annotation):
        return "sections by name" if is_mapping(annotation) else "section" + "s" * (len(inner) > 1)
    if origin is Literal:
        return " or ".join(code(value) for value in args)
    if origin in (Union, types.UnionType):
        words = [annotation_words(arg) for arg in args if arg is not type(None)]
        return " or ".join(dict.fromkeys(words))
    if origin is dict:
        free = args[0] is str
        return "mapping" if free else f"mapping of {annotation_words(args[0])} to number"
    if origin is tuple:
        return "list of text" if args[0] is str else "list"
    return _WORDS.get(annotation) or annotation_words(args[0])


def default_words(field: FieldInfo) -> str:
    """Return a default as it is written in YAML, ``required`` where there is none."""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, Section):
        kind = getattr(value, "kind", None)
        return f"kind: {kind}" if kind else "its defaults"
    if isinstance(value, SecretStr):
        return code(value.get_secret_value())
    if value is None or value == {}:
        return "-"
    if is_duration(field):
        return code(format_duration(value))
    return code(str(value).lower() if isinstance(value, bool) else value)


def commands_table(app: typer.Typer) -> str:
    """Return every command of a command line with its options."""
    group: Any = typer.main.get_command(app)
    parts = []
    for name, command in commands(group):
        rows = [
            (
                code(", ".join(parameter.opts) if is_option(parameter) else parameter.name.upper()),
                option_default(parameter),
                parameter.help or "",
            )
            for parameter in command.params
            if parameter.name != "help"
        ]
        title = f"### {group.name or 'riverwatch-produce'} {name}"
        first = (command.help or "").split("\n\n")[0].replace("\n", " ")
        parts.append(f"{title}\n\n{first}\n\n{table(('option', 'default', ''), rows)}")
    return "\n\n".join(parts)


def commands(group: Any) -> Iterable[tuple[str, Any]]:
    """Yield every command of a group with its words, those of groups within it too."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from ((f"{name} {inner}", one) for inner, one in commands(command))
        else:
            yield name, command


def is_option(parameter: Any) -> bool:
    return bool(parameter.param_type_name == "option")


def option_default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    shown = parameter.show_default
    value = shown if isinstance(shown, str) else parameter.default
    text = "-" if value is None or value is False else code(value)
    return f"{text}, or `${parameter.envvar}`" if parameter.envvar else text


def metrics_table() -> str:
    """Return every Prometheus metric of a worker: name, kind, labels, meaning."""
    from worker.telemetry import Telemetry

    collectors = [c for c in vars(Telemetry(lambda: 0.0)).values() if hasattr(c, "describe")]
    return table(("metric", "kind", "labels", "meaning"), sorted(map(metric_row, collectors)))


def metric_row(collector: Any) -> tuple[str, ...]:
    """Return a metric's line; a counter's name is the one that is scraped, with ``_total``."""
    (metric,) = collector.describe()
    name = f"{metric.name}_total" if metric.type == "counter" else metric.name
    labels = ", ".join(map(code, collector._labelnames)) or "-"  # no public name for these
    return code(name), metric.type, labels, metric.documentation


def rejections_table() -> str:
    """Return the codes of rejected records and what each means."""
    from worker.contracts.rejections import MEANINGS

    return table(("code", "meaning"), [(code(c.value), words) for c, words in MEANINGS.items()])


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |"
                     for line in lines)  # fmt: skip


def code(value: object) -> str:
    return f"`{value}`"


_AFTER = {
    "windows": "windows", "ring": "windows or `{}`", "last": "numbers of events",
    "half_life": "half-lives", "gap": "gaps", "nothing": "`{}`",
}  # fmt: skip


def features_table(kinds: Mapping[str, type[Aggregation]] = AGGREGATIONS) -> str:
    """Return a row per aggregation, from its class and its docstring."""
    rows = []
    for name, kind in kinds.items():
        fields = ", ".join(["FIELD"] * kind.field_count)
        form = f"{name}({fields})" if fields else name
        words = inspect.cleandoc(kind.__doc__ or "").partition("\n>>>")[0].replace("``", "`")
        options = ", ".join(map(code, kind.options)) or "-"
        types = ", ".join(kind.types) or "-"
        rows.append((code(form), types, _AFTER[kind.each], options, " ".join(words.split())))
    return table(("aggregation", "of fields", "of", "options", "what it is"), rows)


def decisions_table() -> str:
    """Return the words of the journal's column and what each stands for."""
    from worker.contracts.decisions import MEANINGS

    return table(("decision", "meaning"), [(code(d.value), text) for d, text in MEANINGS.items()])


def drift_actions_table() -> str:
    """Return what can be done about a drift: all that a configuration may ask for."""
    from worker.models.steward import ACTIONS

    declared = get_args(DriftSettings.model_fields["do"].annotation)
    return table(("do", "what happens"), [(code(action), ACTIONS[action]) for action in declared])


def guards_table() -> str:
    """Return the bounds of the guard with their defaults."""
    rows = [
        (code(f"guard.{name}"), default_words(field), description(field))
        for name, field in GuardSettings.model_fields.items()
    ]
    return table(("bound", "default", "what it is"), rows)


def figures_table() -> str:
    """Return what is told of each model as labels arrive."""
    rows = [(code(field.name), MEANINGS_OF_FIGURES[field.name]) for field in fields(Figures)]
    return table(("figure", "meaning"), rows)


def calibrations_table() -> str:
    """Return a row per calibrator, from the docstrings of its class."""
    rows = []
    for name, kind in CALIBRATORS.items():
        words = inspect.cleandoc(kind.__doc__ or "").partition("\n\nParameters")[0]
        text = " ".join(words.replace("``", "`").split())
        rows.append((code(name), text.partition(": ")[2]))
    return table(("kind", "what the score is"), rows)


def presets_table() -> str:
    """Return a row per preset, from the docstring and the signature of its factory."""
    rows = []
    for name, factory in PRESETS.items():
        words = inspect.cleandoc(factory.__doc__ or "").partition("\n\nParameters")[0]
        params = [f"{code(key)}: {taken}" for key, taken in param_words(factory).items()]
        text = " ".join(words.replace("``", "`").split()).removeprefix("Return ")
        rows.append((code(name), text, "; ".join(params)))
    return table(("preset", "what it is", "params"), rows)


def functions_table() -> str:
    """Return a row per function and operator of expressions, from the docstrings."""
    from worker.features.expressions import FUNCTIONS, OPERATORS

    rows = []
    for kind in (*OPERATORS.values(), *FUNCTIONS.values()):
        forms = [written(kind.name, kinds, kind.name in FUNCTIONS) for kinds, _ in kind.forms]
        gives = dict.fromkeys(result for _, result in kind.forms)
        words = inspect.cleandoc(kind.__doc__ or "").partition("\n>>>")[0].partition("Source:")[0]
        shown = "any" if len(gives) == 4 else " or ".join(gives)
        rows.append((forms_words(forms), shown, " ".join(words.split())))
    return table(("form", "gives", "what it is"), rows)


def written(name: str, kinds: tuple[str, ...], is_call: bool) -> str:
    """Return a call as it is written, with the kinds of its arguments."""
    words = {"constant": "12", "label": '"text"', "zone": '"zone"', "...": "..."}
    parts = [words.get(kind, kind) for kind in kinds]
    if is_call:
        return f"{name}({', '.join(parts)})"
    if name == "in":
        return f"{parts[0]} in [{', '.join(parts[1:])}]"
    sign = "-" if name == "-x" else name
    return f" {sign} ".join(parts) if len(parts) > 1 else f"{sign} {parts[0]}"


def forms_words(forms: list[str]) -> str:
    """Return all forms, those of the four kinds as one."""
    general = [form.replace("number", "X") for form in forms]
    if len(forms) == 4 and forms[-1].replace("time", "X") == general[0]:
        return code(general[0])
    return ", ".join(map(code, forms))


def categories_table() -> str:
    """Return a row per category of expressions, from the docstrings."""
    from worker.features.expressions import CATEGORIES

    rows = [
        (code(kind.usage), " ".join(inspect.cleandoc(kind.__doc__ or "").split()))
        for kind in CATEGORIES.values()
    ]
    return table(("feature", "what it is"), rows)


def tables() -> dict[str, dict[str, Callable[[], str]]]:
    """Return the tables of each page by name."""
    import producers.cli
    import worker.cli

    return {
        "configuration.md": {
            "settings": settings_table,
            "riverwatch": lambda: commands_table(worker.cli.app),
            "riverwatch-produce": lambda: commands_table(producers.cli.app),
        },
        "features.md": {
            "functions": functions_table,
            "categories": categories_table,
            "features": features_table,
            "label features": lambda: features_table(LABEL_AGGREGATIONS),
        },
        "metrics.md": {"metrics": metrics_table},
        "models.md": {
            "presets": presets_table,
            "calibrations": calibrations_table,
            "decisions": decisions_table,
            "figures": figures_table,
            "drift actions": drift_actions_table,
            "guards": guards_table,
        },
        "operations.md": {"rejections": rejections_table},
    }


def rewritten(text: str, name: str, body: str) -> str:
    """Return a page with one table replaced.

    Raises
    ------
    ValueError
        The page has no place for it, or more than one.
    """
    marked = _MARKED.format(name=name, command=COMMAND, body=body)
    pattern = rf"<!-- table: {re.escape(name)} .*?<!-- end of table -->"
    text, count = re.subn(pattern, lambda _: marked, text, flags=re.DOTALL)
    if count != 1:
        raise ValueError(f"expected one place for the table {name}, got {count}")
    return text


def main() -> None:
    """Write all tables anew."""
    for page, parts in tables().items():
        path = DOCS / page
        text = path.read_text()
        for name, make in parts.items():
            text = rewritten(text, name, make())
        path.write_text(text)


if __name__ == "__main__":
    main()
