"""Provenance of result files: command, commit, versions, machine."""

import json
import os
import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from sb3_bomrl.saving.files import write_atomically

RESULTS = Path(__file__).parent / "results"
FIGURES = Path(__file__).parents[1] / "docs" / "figures"
_OUTPUTS = tuple(f":(top,exclude){folder}" for folder in ("benchmarks/results", "docs/figures"))
PACKAGES = ("sb3-bomrl", "stable-baselines3", "sb3-contrib", "gymnasium", "mujoco", "torch", "numpy")


def provenance(command: str) -> dict[str, Any]:
    """Return where a result comes from: command, commit, versions, hardware."""
    return {"command": command, "commit": commit(), "versions": versions(), "hardware": machine()}


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that matter."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def machine() -> str:
    """Return the processor, as far as the system says, and the number of cores this process may use."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line]
        name = models[0] if models else name
    return f"{name}, {n_cores()} cores"


def n_cores() -> int:
    """Return the number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def commit() -> str:
    """
    Return the commit that is checked out, shortened, with a plus where the working tree differs from it.

    It is looked up once, as what runs is what was imported. Results and figures are no part of it.
    """
    git = ["git", "-C", str(Path(__file__).parent)]
    head = subprocess.run([*git, "rev-parse", "--short=10", "HEAD"], capture_output=True, text=True, check=False)
    if head.returncode != 0:
        return "unknown"
    command = [*git, "status", "--porcelain", "--", ":(top)", *_OUTPUTS]
    changes = subprocess.run(command, capture_output=True, text=True, check=False)
    return head.stdout.strip() + ("+" if changes.stdout.strip() else "")


def write_text(path: Path, text: str) -> Path:
    """Write a text file, a newline at its end, at once or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda file: file.write(f"{text}\n".encode()))
    return path


def write_json(path: Path, content: dict[str, Any]) -> Path:
    """Write a JSON file at once or not at all; the elements of its lists take one line each."""
    parts = []
    for name, value in content.items():
        text = json.dumps(value)
        if isinstance(value, list) and value:
            text = "[\n    " + ",\n    ".join(json.dumps(element) for element in value) + "\n  ]"
        parts.append(f"  {json.dumps(name)}: {text}")
    return write_text(path, "{\n" + ",\n".join(parts) + "\n}")
