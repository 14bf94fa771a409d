"""The models and simulations that ``benchmarks.throughput`` times."""

import time
from typing import Any, NamedTuple

import gymnasium as gym
import mujoco
import numpy as np
import torch as th
from mujoco.batch import Batch
from stable_baselines3.common.logger import KVWriter, Logger
from stable_baselines3.common.vec_env import VecEnv

from benchmarks.provenance import n_cores
from sb3_bomrl import BOMRL, make_meta_vec_env
from sb3_bomrl.core.params import stack
from sb3_bomrl.core.threads import torch_threads
from sb3_bomrl.envs import register_envs
from sb3_bomrl.envs.mujoco_log import mujoco_warnings_to_log
from sb3_bomrl.policies import NormalizedFlattenExtractor
from sb3_bomrl.rollout.tasks import TaskSampler

ENV_IDS = {"HalfCheetah": "bomrl/HalfCheetahVel-v0", "Ant": "bomrl/AntVel-v0"}
PHASES = ("rollout", "adapt", "hypergradient", "outer")
VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    # the outer step without solving the lower level again, and with a quarter of the states in its Fisher matrix
    "no_line_search": {"line_search": False, "sub_sampling_factor": 4},
}


class Recorder(KVWriter):
    """Keeps every row that the logger dumps."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def write(self, key_values: dict, key_excluded: dict, step: int = 0) -> None:
        self.rows.append(dict(key_values))

    def close(self) -> None:
        """Nothing is open."""


def make_model(
    env_id: str, n_tasks: int, n_envs_per_task: int, env: VecEnv | None = None, width: int = 64, **kwargs: Any
) -> BOMRL:
    """BO-MRL on a 2 x ``width`` network with normalised observations; on the fast VecEnv unless one is given."""
    return BOMRL(
        "MlpPolicy",
        env if env is not None else env_id,
        meta_batch_size=n_tasks,
        n_envs_per_task=n_envs_per_task,
        policy_kwargs={
            "features_extractor_class": NormalizedFlattenExtractor,
            "log_std_init": -0.5,
            "net_arch": [width, width],
        },
        seed=0,
        device="cpu",
        **kwargs,
    )


class Timing(NamedTuple):
    """
    One timed piece of work.

    :param env_steps: environment steps done
    :param seconds: wall-clock time
    :param phases: seconds of each phase, of a meta-iteration
    """

    env_steps: int
    seconds: float
    phases: dict[str, float] | None = None


class RawPhysics:
    """MuJoCo alone: controls in, ``mj_step``, on all cores, from the same initial states as the environment's."""

    def __init__(self, env_id: str, n_sims: int) -> None:
        register_envs()
        self._env: Any = gym.make(env_id).unwrapped
        self._batch = Batch(self._env.model, n_sims, min(n_cores(), n_sims))
        self._controls = self._batch.bind("ctrl")
        self._positions, self._velocities = self._batch.bind("qpos"), self._batch.bind("qvel")
        self._generator = np.random.default_rng(0)

    def run(self, n_steps: int) -> Timing:
        """Reset all, then step all ``n_steps`` times with random controls."""
        shape, family = self._controls.shape, self._env.family
        controls = self._generator.uniform(-1.0, 1.0, (n_steps, *shape))
        generators, lift = [self._generator] * shape[0], np.zeros(shape[0])
        positions, velocities = family.initial_state(generators, self._env.init_qpos, self._env.init_qvel, lift)
        with mujoco_warnings_to_log():
            self._batch.reset(np.arange(shape[0]), stage=mujoco.mjtStage.mjSTAGE_NONE.value)
            self._positions[:] = positions
            self._velocities[:] = velocities
            self._batch.forward(np.arange(shape[0]))
            start = time.perf_counter()
            for control in controls:
                self._controls[:] = control
                self._batch.step(nstep=family.frame_skip)
            return Timing(n_steps * shape[0], time.perf_counter() - start)


def random_actions(env: VecEnv, n_steps: int, generator: np.random.Generator) -> Timing:
    """Step a VecEnv with random actions drawn beforehand, from a reset."""
    shape = env.action_space.shape
    actions = generator.uniform(-1.0, 1.0, (n_steps, env.num_envs, *shape)).astype(np.float32)
    env.reset()
    start = time.perf_counter()
    for action in actions:
        env.step(action)
    return Timing(n_steps * env.num_envs, time.perf_counter() - start)


def rollouts(model: BOMRL, n_steps: int) -> Timing:
    """Rollouts with one policy per task, stored and with advantages, as a phase of a meta-iteration has them."""
    generator = np.random.default_rng(0)
    tasks = TaskSampler(model.env).sample(model.meta_batch_size, generator)
    collector = model.make_collector(model.env, generator)
    buffer = model.rollout_buffer_class(
        n_steps, model.observation_space, model.action_space, device="cpu", n_envs=model.env.num_envs
    )
    params = stack(model.actor.params(), len(tasks))
    start = time.perf_counter()
    with torch_threads(1):
        rollout = collector.collect(tasks, params, buffer)
    return Timing(rollout.rewards.numel(), time.perf_counter() - start)


def meta_iteration(model: BOMRL) -> Timing:
    """One call of ``learn`` that does one meta-iteration, everything included."""
    recorder = Recorder()
    model.set_logger(Logger(None, [recorder]))
    start = time.perf_counter()
    model.learn(1)
    seconds = time.perf_counter() - start
    (row,) = recorder.rows
    return Timing(int(model.num_timesteps), seconds, {phase: row[f"time/{phase}"] for phase in PHASES})


def baseline_env(env_id: str, backend: str, n_envs: int) -> VecEnv:
    """SB3's own VecEnvs of the same environments."""
    return make_meta_vec_env(env_id, n_envs, backend=backend, seed=0)  # type: ignore[arg-type]


def settings() -> dict[str, Any]:
    """What the timings depend on besides the sizes."""
    return {"torch_threads": th.get_num_threads(), "physics_threads": n_cores(), "variants": VARIANTS}
