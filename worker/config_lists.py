"""Values of allow and block lists that stand in files of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any  # raw YAML

from worker.config_problems import shown
from worker.errors import Problem


def with_list_files(raw: Any, directory: Path, problems: list[Problem]) -> Any:
    """Return a configuration with the values of its lists' files after those written in it.

    A file has one value a line; blank lines and what follows a ``#`` are left out. The input is not
    changed; a file that cannot be read becomes a problem.
    """
    decision = raw.get("decision") if isinstance(raw, dict) else None
    if not isinstance(decision, dict):
        return raw
    changed = dict(decision)
    for kind in ("allow", "block"):
        lists = decision.get(kind)
        if isinstance(lists, (list, tuple)):
            place = ("decision", kind)
            changed[kind] = [
                _filled(one, directory, (*place, i, "file"), problems)
                for i, one in enumerate(lists)
            ]
    return {**raw, "decision": changed}


def _filled(one: Any, directory: Path, path: tuple[str | int, ...], problems: list[Problem]) -> Any:
    name = one.get("file") if isinstance(one, dict) else None
    if not isinstance(name, str):
        return one
    try:
        text = (directory / name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        problems.append(Problem(path, "a file of UTF-8 that can be read", shown(name)))
        return one
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return {**one, "values": [*(one.get("values") or ()), *(line for line in lines if line)]}
