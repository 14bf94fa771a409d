"""Result files: written at once or not at all, each with what it takes to make it again."""

import json
import platform
from pathlib import Path
from typing import Any

from benchmarks import provenance as shared
from benchmarks.provenance import FIGURES, provenance, write_json

__all__ = ["FIGURES", "RESULTS", "load", "save"]

RESULTS = shared.RESULTS / "frozen_lake"


def save(name: str, command: str, settings: dict[str, Any], rows: list[dict[str, Any]]) -> Path:
    """
    Write ``benchmarks/results/frozen_lake/<name>.json``.

    :param name: file name without its ending
    :param command: command line that makes the file
    :param settings: everything that is not in the command, seeds included
    :param rows: results
    :return: the file
    """
    source = provenance(command, f"{platform.machine()}, one core")
    return write_json(RESULTS / f"{name}.json", {"provenance": source, "settings": settings, "rows": rows})


def load(name: str) -> dict[str, Any]:
    """
    Read a result file.

    :param name: file name without its ending
    :raises FileNotFoundError: if it has not been made
    """
    path = RESULTS / f"{name}.json"
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: run `python -m benchmarks.frozen_lake run` first")
    return json.loads(path.read_text())
