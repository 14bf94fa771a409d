"""One run: train, evaluate at points of equal distance, keep everything."""

import fcntl
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.locomotion.learners import Learner, MetaLearner, evaluation_points
from benchmarks.locomotion.methods import FAMILIES, METHODS, env_id, settings_of
from benchmarks.locomotion.scoring import Plan
from benchmarks.provenance import RESULTS, commit, machine, provenance, write_json

PACKAGES = ("sb3-bomrl", "stable-baselines3", "sb3-contrib", "gymnasium", "mujoco", "torch", "numpy")
CHECKPOINTS = Path("runs") / "locomotion"
POLICIES = Path(__file__).parents[1] / "policies"


class Protocol(NamedTuple):
    """
    How runs are scored.

    :param n_segments: evaluations while training, equally spaced, after the one at the start
    :param n_episodes: support episodes per task and adaptation; ``None`` for the family's number
    :param n_adaptations: K at the end of training
    :param n_eval_episodes: fresh episodes per task and score at the end of training
    :param max_tasks: test tasks at the end of training, evenly spaced, at most; ``None`` for all. See
        :func:`~benchmarks.locomotion.scoring.choose_tasks` for families of few tasks
    :param n_adaptations_before: K while training
    :param n_eval_episodes_before: fresh episodes per task and score while training
    :param max_tasks_before: test tasks while training, evenly spaced, at most
    """

    n_segments: int = 10
    n_episodes: int | None = None
    n_adaptations: int = 3
    n_eval_episodes: int = 20
    max_tasks: int | None = None
    n_adaptations_before: int = 1
    n_eval_episodes_before: int = 5
    max_tasks_before: int = 10


PROTOCOL = Protocol()


class Place(NamedTuple):
    """
    Where a run's files go.

    :param results: folder of the results
    :param checkpoints: folder of what unfinished runs go on from
    :param label: name of the run among others of the same method; the method's if ``None``
    :param policies: folder for the trained meta-policy, ``None`` to keep none
    """

    results: Path = RESULTS / "locomotion"
    checkpoints: Path = CHECKPOINTS
    label: str | None = None
    policies: Path | None = None


def result_path(root: Path, family: str, label: str, seed: int) -> Path:
    """
    :return: the run's result file
    """
    return root / family / label / f"seed_{seed}.json"


def run(
    method: str,
    family: str,
    seed: int,
    timesteps: int,
    command: str,
    place: Place = Place(),  # noqa: B008 — immutable
    protocol: Protocol = PROTOCOL,
    overrides: dict[str, Any] | None = None,
    n_threads: int = 1,
) -> Path:
    """
    Train and score, or go on with a run that was stopped; at once if the file is complete.

    :param method: a key of :data:`~benchmarks.locomotion.methods.METHODS`
    :param family: a key of :data:`~benchmarks.locomotion.methods.FAMILIES`
    :param seed: of everything
    :param timesteps: environment steps of training, support and query together
    :param command: what to name as the command in the file
    :param place: where the files go
    :param protocol: how to score
    :param overrides: settings other than the configuration file's
    :param n_threads: physics threads
    :return: the result file
    :raises ValueError: if the file holds a run with other settings
    """
    settings = {**settings_of(method, family), **(overrides or {})}
    label = place.label or method
    path, folder = result_path(place.results, family, label, seed), place.checkpoints / family / label / f"seed_{seed}"
    protocol = protocol._replace(n_episodes=protocol.n_episodes or FAMILIES[family])
    head = {"method": method, "env": env_id(family), "seed": seed, "timesteps": timesteps, "label": label}
    head |= {"settings": settings, "overrides": overrides or {}, "n_threads": n_threads, "protocol": protocol._asdict()}
    with _alone(folder) as is_alone:
        if not is_alone:
            print(f"{family} {label} seed {seed}: another process is at it", flush=True)
            return path
        rows = _rows_so_far(path, head)
        if not (rows and rows[-1]["is_final"]):
            learner = make_learner(method, family, settings, seed, timesteps, folder, n_threads)
            # what is past the checkpoint is done again, to the same numbers where the method is exact
            rows = [row for row in rows if row["iteration"] <= learner.n_done]
            for row in _new_rows(learner, rows, protocol):
                rows.append(row)
                if row["is_final"] and place.policies is not None:
                    learner.save(place.policies / f"{family}_{label}_seed_{seed}.zip")
                write_json(path, {"provenance": provenance(command, machine(), PACKAGES), **head, "rows": rows})
                _show(f"{family} {label} seed {seed}", row, learner)
        shutil.rmtree(folder)
    return path


@contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    """Whether no other process works in a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def make_learner(
    method: str,
    family: str,
    settings: dict[str, Any],
    seed: int,
    timesteps: int,
    folder: Path,
    n_threads: int,
) -> Learner:
    """
    What trains a method, as it was left in a folder, or new.

    :param method: a key of :data:`~benchmarks.locomotion.methods.METHODS`
    :param family: a key of :data:`~benchmarks.locomotion.methods.FAMILIES`
    :param settings: of the method
    :param seed: of everything
    :param timesteps: environment steps of training
    :param folder: of its checkpoints
    :param n_threads: physics threads
    :return: the learner
    """
    if METHODS[method].kind in ("meta", "untrained"):
        return MetaLearner(method, family, settings, seed, timesteps, folder, n_threads)
    from benchmarks.locomotion.plain import PlainLearner  # needs sb3-contrib

    return PlainLearner(method, family, settings, seed, timesteps, folder, n_threads)


def _plans(protocol: Protocol) -> tuple[Plan, Plan]:
    """While training, and at its end."""
    assert protocol.n_episodes is not None
    before = Plan(
        protocol.n_adaptations_before,
        protocol.n_episodes,
        protocol.n_eval_episodes_before,
        protocol.max_tasks_before,
    )
    return before, Plan(protocol.n_adaptations, protocol.n_episodes, protocol.n_eval_episodes, protocol.max_tasks)


def _new_rows(learner: Learner, rows: Sequence[dict[str, Any]], protocol: Protocol) -> Iterator[dict[str, Any]]:
    """Train from one point to the next; yields the rows that are missing."""
    before, final = _plans(protocol)
    done = [row["iteration"] for row in rows]
    last = max(done, default=0)
    for point in evaluation_points(learner.n_iterations, protocol.n_segments):
        if point not in done:
            learner.train(point)
            yield _row(learner, last, before, is_final=False)
            last = point
    yield _row(learner, 0, final, is_final=True)


def _row(learner: Learner, after: int, plan: Plan, is_final: bool) -> dict[str, Any]:
    head = {
        "iteration": learner.n_done,
        "env_steps": learner.env_steps,
        "train_seconds": round(learner.log.seconds(), 1),
        "is_final": is_final,
        "commit": commit(),
        "n_eval_episodes": plan.n_eval_episodes,
    }
    return {**head, "causes": learner.log.causes(after), **learner.score(plan)}


def _rows_so_far(path: Path, head: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of the run that is in the file, which must be the same one."""
    if not path.exists():
        return []
    content = json.loads(path.read_text(encoding="utf-8"))
    expected = json.loads(json.dumps(head))
    different = [key for key in expected if content.get(key) != expected[key]]
    if different:
        raise ValueError(f"{path} holds a run with another {', '.join(different)}: move it away, or ask for the same")
    return list(content["rows"])


def _show(name: str, row: dict[str, Any], learner: Learner) -> None:
    """One line of progress, with the time that is left."""
    returns = " -> ".join(f"{np.mean(values):.1f}" for values in row["stochastic"])
    left = ""
    if 0 < learner.n_done < learner.n_iterations:
        minutes = row["train_seconds"] * (learner.n_iterations / learner.n_done - 1) / 60
        left = f", {minutes:.0f} min of training left"
    print(
        f"{name}: {row['env_steps']:,} steps, {row['train_seconds']:.0f} s, stochastic {returns}{left}",
        flush=True,
    )
