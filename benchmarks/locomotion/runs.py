"""One run: train in segments, evaluate after each, keep everything."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.locomotion.methods import FAMILIES, METHODS, env_id, make_model, settings_of
from benchmarks.provenance import RESULTS, machine, provenance, write_json
from sb3_bomrl import evaluate_adaptation, make_meta_vec_env
from sb3_bomrl.zoo import REGISTRY

PACKAGES = ("sb3-bomrl", "stable-baselines3", "gymnasium", "mujoco", "torch", "numpy")
CAUSES = (
    "hypergradient/cg_residual",
    "hypergradient/negative_curvature_count",
    "hypergradient/norm",
    "inner/n_steps",
    "inner/kl",
    "inner/kl_limit_count",
    "outer/kl",
    "meta/pre_adapt_return",
    "meta/post_adapt_return",
)
"""What the last meta-iteration before an evaluation logged: where a method that loses can be seen to lose."""


class Protocol(NamedTuple):
    """
    How runs are scored.

    :param n_segments: evaluations while training, equally spaced
    :param n_adaptations: K at the end of training; 1 before
    :param n_eval_episodes: fresh episodes per task and score at the end of training
    :param n_eval_episodes_before: the same before
    """

    n_segments: int = 10
    n_adaptations: int = 3
    n_eval_episodes: int = 20
    n_eval_episodes_before: int = 4


PROTOCOL = Protocol()


def result_path(root: Path, family: str, method: str, seed: int) -> Path:
    """
    :return: the run's result file
    """
    return root / family / method / f"seed_{seed}.json"


def scores(model: Any, family: str, n_adaptations: int, n_eval_episodes: int, n_threads: int) -> dict[str, Any]:
    """
    Mean undiscounted return of every test task after 0 … K adaptations, of both kinds of policy.

    :return: by kind of policy, (K + 1) lists of one number per test task
    """
    env = make_meta_vec_env(env_id(family), 100, env_kwargs=_threads(family, n_threads))
    returns = {}
    for kind in ("deterministic", "stochastic"):
        curve = evaluate_adaptation(
            model, env, None, n_adaptations, FAMILIES[family], n_eval_episodes, kind == "deterministic", seed=0
        )
        returns[kind] = np.round(curve.returns.mean(2), 2).tolist()
    env.close()
    return returns


def run(
    method: str,
    family: str,
    seed: int,
    timesteps: int,
    command: str,
    root: Path = RESULTS / "locomotion",
    checkpoints: Path = Path("runs") / "locomotion",
    protocol: Protocol = PROTOCOL,
    overrides: dict[str, Any] | None = None,
    n_threads: int = 1,
) -> Path:
    """
    Train and score, or go on with a run that was stopped.

    :param method: a key of :data:`~benchmarks.locomotion.methods.METHODS`
    :param family: a key of :data:`~benchmarks.locomotion.methods.FAMILIES`
    :param seed: of everything
    :param timesteps: environment steps of training, support and query together
    :param command: what to name as the command in the file
    :param root: folder of the results
    :param checkpoints: folder of the models of unfinished runs
    :param protocol: how to score
    :param overrides: settings other than the configuration file's
    :param n_threads: physics threads
    :return: the result file
    :raises ValueError: if the file holds a run with other settings
    """
    settings = {**settings_of(method, family), **(overrides or {})}
    path, saved = result_path(root, family, method, seed), checkpoints / family / method / f"seed_{seed}.zip"
    head = {"method": method, "env": env_id(family), "seed": seed, "timesteps": timesteps, "settings": settings}
    head |= {"protocol": {**protocol._asdict(), "n_episodes": FAMILIES[family]}}
    rows = _rows_so_far(path, head)
    env = make_meta_vec_env(env_id(family), settings["n_envs"], seed=seed, env_kwargs=_threads(family, n_threads))
    goes_on = bool(rows) and saved.exists()
    model = make_model(method, env, settings, seed)
    if goes_on:
        model = REGISTRY[METHODS[method].algorithm].load(saved, env=env, device="cpu")
    rows = rows if goes_on else []
    while not rows or not rows[-1]["is_final"]:
        seconds = rows[-1]["train_seconds"] if rows else 0.0
        if rows and METHODS[method].is_trained:
            seconds += _train(model, max(1, timesteps * len(rows) // protocol.n_segments - model.num_timesteps))
        is_final = not METHODS[method].is_trained or model.num_timesteps >= timesteps
        k = protocol.n_adaptations if is_final else 1
        n_eval = protocol.n_eval_episodes if is_final else protocol.n_eval_episodes_before
        row = {"env_steps": model.num_timesteps, "train_seconds": round(seconds, 1), "is_final": is_final}
        rows.append({**row, "causes": _causes(model), **scores(model, family, k, n_eval, n_threads)})
        saved.parent.mkdir(parents=True, exist_ok=True)
        model.save(saved)
        write_json(path, {"provenance": provenance(command, machine(), PACKAGES), **head, "rows": rows})
        _show(method, family, seed, rows, timesteps)
    env.close()
    return path


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


def _train(model: Any, n_steps: int) -> float:
    """Train for at least so many steps; returns the seconds it took."""
    start = time.perf_counter()
    model.learn(n_steps, log_interval=None, reset_num_timesteps=False)
    return time.perf_counter() - start


def _causes(model: Any) -> dict[str, float]:
    logged = model.logger.name_to_value if hasattr(model, "_logger") else {}
    return {name: round(float(logged[name]), 4) for name in CAUSES if name in logged}


def _threads(family: str, n_threads: int) -> dict[str, Any]:
    return {} if family == "Navigation2D" else {"n_threads": n_threads}


def _show(method: str, family: str, seed: int, rows: Sequence[dict[str, Any]], timesteps: int) -> None:
    """One line of progress, with the time that is left."""
    row = rows[-1]
    before, after = (np.mean(row["stochastic"][k]) for k in (0, 1))
    share = row["env_steps"] / timesteps
    left = f", {row['train_seconds'] * (1 / share - 1) / 60:.0f} min of training left" if 0 < share < 1 else ""
    print(
        f"{family} {method} seed {seed}: {row['env_steps']:,} steps, {row['train_seconds']:.0f} s, "
        f"stochastic {before:.1f} -> {after:.1f}{left}",
        flush=True,
    )
