"""Result files: written at once or not at all, each with what it takes to make it again."""

import json
import platform
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sb3_bomrl.files import write_atomically

RESULTS = Path(__file__).parents[1] / "results" / "frozen_lake"
FIGURES = Path(__file__).parents[2] / "docs" / "figures"
PACKAGES = ("sb3-bomrl", "stable-baselines3", "gymnasium", "torch", "numpy")


def save(name: str, command: str, settings: dict[str, Any], rows: list[dict[str, Any]]) -> Path:
    """
    Write ``benchmarks/results/frozen_lake/<name>.json``.

    :param name: file name without its ending
    :param command: command line that makes the file
    :param settings: everything that is not in the command, seeds included
    :param rows: results
    :return: the file
    """
    RESULTS.mkdir(parents=True, exist_ok=True)
    provenance = {
        "command": command,
        "commit": current_commit(),
        "versions": {"python": platform.python_version(), **{package: version(package) for package in PACKAGES}},
        "hardware": f"{platform.machine()}, one core",
    }
    # One row per line: small files, readable differences.
    lines = ",\n".join("    " + json.dumps(row) for row in rows)
    head = json.dumps({"provenance": provenance, "settings": settings}, indent=2)
    text = head[:-2] + ',\n  "rows": [\n' + lines + "\n  ]\n}\n"
    path = RESULTS / f"{name}.json"
    write_atomically(path, lambda file: file.write(text.encode()))
    return path


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


@cache
def current_commit() -> str | None:
    """
    The commit that is checked out, marked where the working tree differs from it; None outside a repository.

    It is looked up once: the first call must come before the first result is written, which itself changes the tree.
    """
    git = ["git", "-C", str(Path(__file__).parent)]
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    if head.returncode != 0:
        return None
    changes = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=False)
    return head.stdout.strip() + ("+changes" if changes.stdout.strip() else "")
