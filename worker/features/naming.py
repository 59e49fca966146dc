"""Names of features that other sections of a configuration speak of."""

from __future__ import annotations

from worker.config_problems import Path, near, shown
from worker.contracts.settings import Settings
from worker.errors import ConfigError, Problem
from worker.features.spec import compile_features


def check_feature_names(settings: Settings) -> None:
    """Check what the sections ``decision`` and ``metrics`` say of features.

    Raises
    ------
    ConfigError
        With every name that is none, and the one that is nearest.
    """
    wanted: dict[Path, str] = {
        ("metrics", "segments", name, "feature"): one.feature
        for name, one in settings.metrics.segments.items()
    }
    if settings.decision.evidence is not None:
        wanted["decision", "evidence", "feature"] = settings.decision.evidence.feature
    if not wanted:
        return
    names = compile_features(settings).names
    problems = [
        Problem(path, "the name of a feature", shown(name), near(name, names))
        for path, name in wanted.items()
        if name not in names
    ]
    if problems:
        raise ConfigError("features", problems, got=f"{len(problems)} problems")
