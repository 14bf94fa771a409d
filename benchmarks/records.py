"""Results: one CSV in long form per suite, which several processes append to, and one JSON of how it was made."""

import csv
import fcntl
import io
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from benchmarks.provenance import RESULTS, commit, machine, versions, write_json
from benchmarks.scoring import Scores
from benchmarks.suites import Run
from sb3_bomrl.saving.files import write_atomically

COLUMNS = tuple("suite method env seed env_steps adaptations policy task return seconds commit".split())  # noqa: SIM905


class Row(NamedTuple):
    """One mean return: a line of the CSV."""

    suite: str
    method: str
    env: str
    seed: int
    env_steps: int
    adaptations: int
    policy: str
    task: str
    score: float
    seconds: float
    commit: str


def csv_path(suite: str, folder: Path = RESULTS) -> Path:
    """Return the path of a suite's CSV."""
    return folder / f"{suite}.csv"


def rows_of(run: Run, env_steps: int, seconds: float, scores: Scores) -> list[Row]:
    """Return the lines of one evaluation; a task that was adapted to repeatedly has one, with the mean."""
    names = [json.dumps(task, separators=(",", ":"), default=list) for task in scores.tasks]
    key, made_by = (run.suite, run.label, run.env, run.seed, env_steps), commit()
    return [
        Row(*key, k, policy, name, _mean(returns[k], names, name), round(seconds, 1), made_by)
        for policy, returns in scores.returns.items()
        for k in range(len(returns))
        for name in dict.fromkeys(names)
    ]


def _mean(returns: Iterable[float], names: list[str], name: str) -> float:
    chosen = [value for value, other in zip(returns, names, strict=True) if other == name]
    return round(float(sum(chosen)) / len(chosen), 2)


def append_rows(path: Path, rows: Iterable[Row]) -> None:
    """Append lines in one piece; what a killed process left of a line goes."""
    with _locked(path) as file:
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerows(rows if b"\n" in content else [COLUMNS, *rows])
        file.seek(0, os.SEEK_END)
        file.write(text.getvalue().encode())
        file.flush()
        os.fsync(file.fileno())


def read_rows(path: Path) -> list[Row]:
    """
    Return the lines of a CSV without those that are not whole; of an evaluation that was repeated the last ones.
    """
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    found: dict[tuple, Row] = {}
    for cells in csv.reader(text[: text.rfind("\n") + 1].splitlines()[1:]):
        with suppress(ValueError):  # a line that is not whole
            row = _parse(cells)
            found[row[:8]] = row
    return list(found.values())


def _parse(cells: list[str]) -> Row:
    suite, method, env, seed, env_steps, adaptations, policy, task, score, seconds, made_by = cells
    numbers = int(seed), int(env_steps), int(adaptations)
    return Row(suite, method, env, *numbers, policy, task, float(score), float(seconds), made_by)


def provenance_path(path: Path) -> Path:
    """Return the path of the JSON beside a CSV."""
    return path.with_suffix(".json")


def read_provenance(path: Path) -> dict[str, Any]:
    """Return how the lines of a CSV were made; an empty form if nothing was."""
    other = provenance_path(path)
    if other.exists():
        return dict(json.loads(other.read_text(encoding="utf-8")))
    return {"suite": path.stem, **{table: [] for table in TABLES}, "runs": []}


TABLES = ("commands", "versions", "hardware", "evaluations", "settings")
"""Lists of what differs between runs; a run has the index of its own in each."""


def record_run(path: Path, run: Run, settings: dict[str, Any], command: str) -> None:
    """Note that a run is finished, and how it was made."""
    values = (command, versions(), machine(), evaluation_as_dict(run), settings)
    add_to_provenance(path, run, dict(zip(TABLES, values, strict=True)))


def add_to_provenance(path: Path, run: Run, values: dict[str, Any]) -> None:
    """Add a finished run to the JSON beside a CSV."""
    with _locked(path):
        content = read_provenance(path)
        entry: dict[str, Any] = {"method": run.label, "env": run.env, "seed": run.seed, "env_steps": run.env_steps}
        for table in TABLES:
            if values[table] not in content[table]:
                content[table].append(values[table])
            entry[table] = content[table].index(values[table])
        content["runs"] = [old for old in content["runs"] if _key(old) != _key(entry)] + [entry]
        write_json(provenance_path(path), content)


def finished_runs(path: Path) -> dict[tuple[str, str, int], int]:
    """Return the environment steps asked for of every finished run, by (label, env, seed)."""
    return {_key(entry): entry["env_steps"] for entry in read_provenance(path)["runs"]}


def _key(entry: dict[str, Any]) -> tuple[str, str, int]:
    return entry["method"], entry["env"], entry["seed"]


def evaluation_as_dict(run: Run) -> dict[str, Any]:
    """Return how a run is scored, in the form of a suite's file."""
    evaluation = run.evaluation
    plans = {"final": evaluation.final._asdict(), "training": evaluation.training._asdict()}
    return {"n_evaluations": evaluation.n_evaluations, **plans}


@contextmanager
def _locked(path: Path) -> Iterator[BinaryIO]:
    """The CSV, open for appending, while no other process writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        yield file


class Stopwatch:
    """A line per iteration, written before the checkpoint of that iteration."""

    def __init__(self, path: Path, n_done: int) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_text(encoding="utf-8").split("\n")[:-1][:n_done] if path.exists() else []
        self.seconds = [float(line) for line in lines]
        write_atomically(path, lambda file: file.write("".join(f"{line}\n" for line in lines).encode()))

    def add(self, seconds: float) -> None:
        """Append the seconds of one iteration."""
        self.seconds.append(seconds)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(f"{seconds}\n")
            file.flush()
            os.fsync(file.fileno())
