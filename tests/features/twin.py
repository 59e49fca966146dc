"""Features of made streams and the blobs they leave, as digests: made with and without numba.

Without it in a process of its own, as numba reads ``NUMBA_DISABLE_JIT`` once, when it is imported.
"""

from __future__ import annotations

import random
import warnings
from hashlib import sha256

from tests.features.label_streams import Stream, Told, fresh, label_spec
from tests.features.oracle import declared, spec_of_all
from tests.features.streams import LATE_MS, LATITUDES, LONGITUDES, STEPS_MS, Row, tables_of
from tests.features.test_label_features import SHAPES
from tests.features.test_over_genuine import SPECS as GENUINE
from worker.features.aggregations import AGGREGATIONS
from worker.features.spec import FeatureSpec

EVENTS = 60
BATCH = 20


def specs() -> dict[str, FeatureSpec]:
    """Return specs with every aggregation; all rings overflow but one."""
    kinds = {
        key: ways
        for kind in AGGREGATIONS.values()
        for key, ways in declared(kind, 5, ["filtered", "robust", "delayed"]).items()
    }
    kept = {key: ways for key, ways in kinds.items() if ways}
    return {
        "plain": spec_of_all("plain", 5),
        "long": spec_of_all("long", 2),
        "turned": spec_of_all("turned", 40),
        "labels": label_spec({"card": kept | SHAPES["plain"], "terminal": SHAPES["score"]}, 4),
        "late": label_spec({"card": SHAPES["late"], "terminal": SHAPES["delayed"]}, 2),
        "genuine": GENUINE["plain", 2],
        "robust": GENUINE["robust", 64],
    }


def stream(draw: random.Random) -> tuple[list[Row], list[Told]]:
    """Return events with ties, gaps, late ones and a duplicate, and truths about them."""
    rows, told, at = [], [], 0
    for i in range(EVENTS):
        at += draw.choice(STEPS_MS)
        rows.append(
            Row(
                id="e3" if i == 5 else f"e{i}",
                at=at - draw.choice((0, 0, 0, *LATE_MS)),
                card=draw.choice("ab"),
                terminal=draw.choice("xy"),
                amount=draw.choice((draw.randrange(-300, 300), 0, 2**40, -(2**40), 10_000)),
                items=draw.choice((None, *range(-3, 4))),
                present=draw.random() < 0.5,
                channel=draw.randrange(3),
                country=draw.choice(("", "DE", "FR", "IT", str(i))),
                latitude=draw.choice(LATITUDES),
                longitude=draw.choice(LONGITUDES),
            )
        )
    for _ in range(60):
        row = draw.choice([i for i in range(EVENTS) if i not in (3, 5)])
        told.append(Told(draw.randint(row + 1, EVENTS), row, draw.randint(0, 1)))
    return rows, fresh(sorted(told, key=lambda t: t.at))


def digests(spec: FeatureSpec, seed: int) -> tuple[str, str]:
    """Return those of X and of all blobs; the state goes through blobs between batches."""
    rows, told = stream(random.Random(seed))
    one = Stream(tables_of(spec, entities_max=0), rows, told if spec.label_parts else [])
    X = b""
    for _ in range(0, EVENTS, BATCH):
        X += one.step(BATCH)[0].tobytes()
        one.flush()
    blobs = b"".join(one.store[key] for key in sorted(one.store))
    return sha256(X).hexdigest(), sha256(blobs).hexdigest()


def lines() -> list[str]:
    """Return a line for each spec and stream."""
    return [
        " ".join([name, str(seed), *digests(spec, seed)])
        for name, spec in specs().items()
        for seed in range(3)
    ]


if __name__ == "__main__":
    with warnings.catch_warnings():
        # Machine code wraps around, divides by zero and overflows without a word.
        warnings.simplefilter("ignore", RuntimeWarning)
        print("\n".join(lines()))
