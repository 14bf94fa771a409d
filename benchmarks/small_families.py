"""
Measure environment steps per second of the small families, as a batch and one by one.

    python -m benchmarks.small_families

Seconds are those of the processor, both kinds take turns, and both are monitored. Single environments are Gymnasium's
own where there is one. Writes ``results/small_families.json`` and prints the table of the documentation.
"""

import argparse
import time
from functools import partial

import numpy as np
from stable_baselines3.common.vec_env import VecEnv

from benchmarks.provenance import RESULTS, provenance, write_json
from benchmarks.throughput import Timing, interleaved, rates
from sb3_bomrl import make_meta_vec_env

N_ENVS = 100
SINGLE = {
    "bomrl/CartPoleForce-v0": "CartPole-v1",
    "bomrl/PendulumParams-v0": "Pendulum-v1",
    "bomrl/AcrobotTorque-v0": "Acrobot-v1",
    "bomrl/MountainCarPower-v0": "MountainCarContinuous-v0",
    "bomrl/GridGoal-v0": "bomrl/GridGoal-v0",
    "bomrl/ReachGoal-v0": "bomrl/ReachGoal-v0",
    "bomrl/PointMassGoal-v0": "bomrl/PointMassGoal-v0",
}


def random_steps(venv: VecEnv, n_steps: int) -> Timing:
    """
    Step with random actions.

    :param venv: environments that have been reset
    :param n_steps: steps of each
    :return: environment steps, and seconds of processor time
    """
    rng = np.random.default_rng(0)
    venv.action_space.seed(0)
    actions = np.array([venv.action_space.sample() for _ in range(1000)])
    start = time.process_time()
    for _ in range(n_steps):
        venv.step(actions[rng.integers(1000, size=venv.num_envs)])
    return Timing(n_steps * venv.num_envs, time.process_time() - start)


def main() -> None:
    """Measure all families."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="turns, of which the medians are taken")
    n_rounds, rows = parser.parse_args().rounds, {}
    print("| id | batch | DummyVecEnv | ratio |\n|---|---|---|---|")
    for env_id, single_id in SINGLE.items():
        batch = make_meta_vec_env(env_id, N_ENVS, "numpy", seed=0)
        single = make_meta_vec_env(single_id, N_ENVS, "dummy", seed=0)
        batch.reset(), single.reset()
        pieces = {"batch": partial(random_steps, batch, 500), "single": partial(random_steps, single, 50)}
        fast, slow = rates(interleaved(pieces, n_rounds)).values()
        rows[env_id] = {"batch": round(fast), "single": round(slow), "single_id": single_id}
        print(f"| `{env_id}` | {fast:,.0f} | {slow:,.0f} | {fast / slow:.0f} |", flush=True)
    origin = provenance(f"python -m benchmarks.small_families --rounds {n_rounds}")
    write_json(RESULTS / "small_families.json", {**origin, "n_envs": N_ENVS, "env_steps_per_second": rows})


if __name__ == "__main__":
    main()
