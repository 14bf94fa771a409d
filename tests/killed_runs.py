"""
Kill a run with SIGKILL at random moments, resume it each time, and compare it with the run that was left alone.

    python -m tests.killed_runs --kills 300

Bit for bit: weights, optimiser, random state, counters, normaliser statistics, episode statistics, and the rows that
the logger wrote (those of an iteration that was repeated must repeat). Stops at the first difference.
"""

import argparse
import csv
import io
import json
import multiprocessing
import os
import random
import signal
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

import torch as th
from stable_baselines3.common.logger import CSVOutputFormat, Logger
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecNormalize

from sb3_bomrl import BOMRL, ExactCheckpointCallback, load_checkpoint, make_meta_vec_env
from sb3_bomrl.saving.safe_json import decode

N_ITERATIONS = 8
ITERATION = 2 * 20 * 4
WALL_CLOCK = ("start_time", "_num_timesteps_at_start", "_last_obs", "_last_original_obs", "_last_episode_starts")
"""Settings that an interrupted run cannot share: times, and what only a reset that nothing depends on has shown."""


def run(folder: Path) -> None:
    """Start the run of this folder or go on with it, to its end."""
    env = VecNormalize(make_meta_vec_env("bomrl/Navigation2D-v0", 4, env_kwargs={"horizon": 10}))
    model = load_checkpoint(BOMRL, folder, env, device="cpu")
    is_new = model is None
    if model is None:
        model = BOMRL(
            "MlpPolicy",
            env,
            learning_rate=LinearSchedule(1e-2, 1e-3, 1.0),
            n_steps=20,
            meta_batch_size=2,
            n_inner_steps=3,
            outer_step="adam",
            baseline="value_net",
            n_critic_updates=1,
            policy_kwargs={"net_arch": [8]},
            seed=0,
            device="cpu",
        )
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"log_{time.time_ns()}.csv"
    model.set_logger(Logger(None, [CSVOutputFormat(str(log))]))
    callback = ExactCheckpointCallback(folder, save_freq=1)
    if is_new:
        model.learn(N_ITERATIONS * ITERATION, callback=callback, log_interval=2)
    else:
        model.resume(callback=callback, log_interval=2)
    model.save(folder / "final.zip")


def outcome(folder: Path) -> dict[str, Any]:
    """Everything of a finished run that must not depend on interruptions."""
    with zipfile.ZipFile(folder / "final.zip") as archive:
        settings = json.loads(archive.read("data"))
        weights = {
            name: th.load(io.BytesIO(archive.read(name)), weights_only=True)
            for name in ("policy.pth", "policy.optimizer.pth")
        }
    kept = {key: value for key, value in settings.items() if key not in WALL_CLOCK}
    episodes = decode(kept.pop("ep_info_buffer")[":safe:"])
    rest = {key: value.get(":safe:", value) if isinstance(value, dict) else value for key, value in kept.items()}
    return {**rest, "episodes": [(e["r"], e["l"]) for e in episodes], "weights": repr_exact(weights)}


def repr_exact(value: Any) -> Any:
    """Tensors as their bytes."""
    if isinstance(value, th.Tensor):
        return (str(value.dtype), tuple(value.shape), value.numpy().tobytes())
    if isinstance(value, dict):
        return {key: repr_exact(part) for key, part in value.items()}
    return [repr_exact(part) for part in value] if isinstance(value, list | tuple) else value


def log_rows(folder: Path) -> dict[str, set[tuple[tuple[str, str], ...]]]:
    """What was logged at each number of environment steps, without times."""
    rows: dict[str, set[tuple[tuple[str, str], ...]]] = {}
    for path in sorted(folder.glob("log_*.csv")):
        for row in csv.DictReader(path.read_text().splitlines()):
            if None in row or None in row.values():
                continue  # the process died while it wrote this row
            kept = tuple(
                sorted((key, value) for key, value in row.items() if not key.startswith("time/") or "iter" in key)
            )
            rows.setdefault(row["time/total_timesteps"], set()).add(kept)
    return rows


def killed_run(folder: Path, n_kills: int, rng: random.Random, longest: float) -> int:
    """Run with up to so many kills, each after a random time in seconds; returns how many there were."""
    context, done = multiprocessing.get_context("fork"), 0
    while True:
        process = context.Process(target=run, args=(folder,))
        process.start()
        process.join(rng.uniform(0.0, longest) if done < n_kills else None)
        if process.exitcode == 0:
            return done
        if process.exitcode is not None:
            raise RuntimeError(f"the run ended with exit code {process.exitcode}")
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        done += 1


def compare(expected: Path, folder: Path) -> list[str]:
    """Names of what differs."""
    a, b = outcome(expected), outcome(folder)
    different = [key for key in {*a, *b} if a.get(key) != b.get(key)]
    rows, others = log_rows(expected), log_rows(folder)
    different += [f"log at {steps} steps" for steps, found in others.items() if found != rows[steps]]
    return different


def kill_and_compare(folder: Path, n_kills: int, kills_per_run: int, rng: random.Random) -> int:
    """
    Kill runs until there were so many kills, and compare each with the one that was left alone.

    :return: how many runs it took
    :raises AssertionError: if one differs; the message names what does
    """
    start, straight = time.perf_counter(), folder / "straight"
    killed_run(straight, 0, rng, 0.0)
    longest = 0.3 * (time.perf_counter() - start)
    done, n_runs = 0, 0
    while done < n_kills:
        run_folder = folder / f"killed_{n_runs}"
        done += killed_run(run_folder, min(kills_per_run, n_kills - done), rng, longest)
        n_runs += 1
        different = compare(straight, run_folder)
        assert not different, f"run {n_runs}, after {done} kills in all, differs in {', '.join(map(str, different))}"
        print(f"{n_runs} runs, {done} kills: no difference", flush=True)
    return n_runs


def main() -> None:
    """Run, kill, compare; print what was done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=300, help="kills in all")
    parser.add_argument("--kills-per-run", type=int, default=10, help="largest number of kills of one run")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    args = parser.parse_args()
    th.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        n_runs = kill_and_compare(Path(name), args.kills, args.kills_per_run, random.Random(args.seed))
    print(f"{n_runs} runs with {args.kills} kills in all ended as the run that was left alone, bit for bit")


if __name__ == "__main__":
    main()
