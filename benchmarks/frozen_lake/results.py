"""Results of all parts in one file, each part with what it takes to make it again."""

import json
from typing import Any

from benchmarks.provenance import RESULTS, provenance, write_json

PATH = RESULTS / "frozen_lake.json"
Row = dict[str, Any]


def save(part: str, command: str, settings: dict[str, Any], rows: list[Row]) -> None:
    """Replace one part of ``benchmarks/results/frozen_lake.json``."""
    content = _read()
    entry = {"part": part, "provenance": provenance(command), "settings": settings}
    parts = [old for old in content["parts"] if old["part"] != part]
    kept = [row for row in content["rows"] if row["part"] != part]
    write_json(PATH, {"parts": [*parts, entry], "rows": [*kept, *({"part": part, **row} for row in rows)]})


def load(part: str) -> list[Row]:
    """Return the rows of one part."""
    rows = [row for row in _read()["rows"] if row["part"] == part]
    if not rows:
        raise FileNotFoundError(f"{PATH} has no part {part!r}: run `python -m benchmarks.frozen_lake run` first")
    return rows


def _read() -> dict[str, Any]:
    return dict(json.loads(PATH.read_text())) if PATH.exists() else {"parts": [], "rows": []}
