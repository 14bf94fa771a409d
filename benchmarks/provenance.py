"""What it takes to make a result file again, and one way to write such files."""

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sb3_bomrl.saving.files import write_atomically

RESULTS = Path(__file__).parent / "results"
FIGURES = Path(__file__).parents[1] / "docs" / "figures"
_OUTPUTS = tuple(f":(top,exclude){folder}" for folder in ("benchmarks/results", "benchmarks/policies", "docs/figures"))
PACKAGES = ("sb3-bomrl", "stable-baselines3", "gymnasium", "torch", "numpy")


def provenance(command: str, hardware: str, packages: Sequence[str] = PACKAGES) -> dict[str, Any]:
    """
    Where a result comes from.

    :param command: command line that makes it
    :param hardware: what it ran on
    :param packages: distributions whose versions matter
    :return: command, commit, versions, hardware
    """
    return {
        "command": command,
        "commit": commit(),
        "versions": {"python": platform.python_version(), **{package: version(package) for package in packages}},
        "hardware": hardware,
    }


def machine() -> str:
    """
    :return: the processor, as far as the system says, and the number of cores this process may use
    """
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line]
        name = models[0] if models else name
    return f"{name}, {n_cores()} cores"


def n_cores() -> int:
    """
    :return: cores this process may use
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def commit() -> str | None:
    """
    It is looked up once, as what runs is what was imported. Results and figures are no part of it.

    :return: the commit that is checked out, marked where the working tree differs; ``None`` outside a repository
    """
    git = ["git", "-C", str(Path(__file__).parent)]
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    if head.returncode != 0:
        return None
    changes = subprocess.run(
        [*git, "status", "--porcelain", "--", ":(top)", *_OUTPUTS], capture_output=True, text=True, check=False
    )
    return head.stdout.strip() + ("+changes" if changes.stdout.strip() else "")


def write_text(path: Path, text: str) -> Path:
    """
    Write a text file, a newline at its end, at once or not at all.

    :param path: the file
    :param text: its content
    :return: the file
    """
    write_atomically(path, lambda file: file.write(f"{text}\n".encode()))
    return path


def write_json(path: Path, content: Any) -> Path:
    """
    Write a JSON file at once or not at all.

    :param path: the file; its folder is made
    :param content: what ``json`` can write; rows of a list under ``"rows"`` take one line each
    :return: the file
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, dict) and "rows" in content:
        # one row per line: small files, readable differences
        lines = ",\n".join("    " + json.dumps(row) for row in content["rows"])
        head = json.dumps({key: value for key, value in content.items() if key != "rows"}, indent=2)
        return write_text(path, head[:-2] + ',\n  "rows": [\n' + lines + "\n  ]\n}")
    return write_text(path, json.dumps(content, indent=2))
