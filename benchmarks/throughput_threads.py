"""Which thread counts are fastest, and whether the learning phase pays for running beside rollouts."""

import statistics
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch as th

from benchmarks.provenance import n_cores
from benchmarks.throughput_models import ENV_IDS, make_model, meta_iteration, rollouts
from sb3_bomrl import BOMRL, make_meta_vec_env
from sb3_bomrl.core.params import stack
from sb3_bomrl.types import Params

Row = dict[str, Any]
COMMON = {"part": "threads", "env": "HalfCheetah"}


def measure(n_tasks: int, n_envs_per_task: int, n_steps: int, n_repetitions: int) -> Iterator[list[Row]]:
    """Rollouts and learning phases under all pairs of thread counts, then side by side."""
    counts = sorted({1, n_cores()})
    chosen = th.get_num_threads()
    try:
        for physics in counts:
            env = make_meta_vec_env(
                ENV_IDS["HalfCheetah"], n_tasks * n_envs_per_task, seed=0, env_kwargs={"n_threads": physics}
            )
            model = make_model("", n_tasks, n_envs_per_task, env=env, n_steps=n_steps)
            for torch_threads in counts:
                yield [_iteration(model, physics, torch_threads, n_repetitions)]
            env.close()
        th.set_num_threads(chosen)
        yield _overlap(n_tasks, n_envs_per_task, n_steps, n_repetitions)
    finally:
        th.set_num_threads(chosen)


def _iteration(model: BOMRL, physics: int, torch_threads: int, n_repetitions: int) -> Row:
    """A meta-iteration with as many torch threads in the rollouts as in the learning phase."""
    th.set_num_threads(torch_threads)
    model.n_rollout_threads = torch_threads
    timings = [meta_iteration(model) for _ in range(n_repetitions + 1)][1:]
    rollout = statistics.median(t.phases["rollout"] for t in timings if t.phases)
    total = statistics.median(sum(t.phases.values()) for t in timings if t.phases)
    print(f"  {physics} physics, {torch_threads} torch threads: rollouts {rollout:.2f} s, rest {total - rollout:.2f} s")
    return {
        **COMMON,
        "what": "meta_iteration/default",
        "axis": "physics, torch threads",
        "value": [physics, torch_threads],
        "n_tasks": model.meta_batch_size,
        "rollout_seconds": round(rollout, 4),
        "learning_seconds": round(total - rollout, 4),
        "repetitions": n_repetitions,
    }


def _overlap(n_tasks: int, n_envs_per_task: int, n_steps: int, n_repetitions: int) -> list[Row]:
    """The lower level of one half of the tasks after the rollouts of the other half, and at the same time."""
    halves = [make_model(ENV_IDS["HalfCheetah"], n_tasks // 2, n_envs_per_task, n_steps=n_steps) for _ in range(2)]
    learner, player = halves
    learner.learn(1)
    support = learner._collect([1.0] * (n_tasks // 2), _params(learner), phase=0)

    def learn() -> None:
        learner.adapt_params(_params(learner), support)

    def play() -> None:
        rollouts(player, n_steps)

    def both() -> None:
        thread = threading.Thread(target=learn)
        thread.start()
        play()
        thread.join()

    def one_after_the_other() -> None:
        play()
        learn()

    rows = []
    for name, work in (("one after the other", one_after_the_other), ("side by side", both)):
        seconds = _median(work, n_repetitions)
        print(f"  learning and rollouts {name}: {seconds:.2f} s", flush=True)
        rows.append({**COMMON, "what": name, "n_tasks": n_tasks, "seconds": round(seconds, 4)})
    for model in halves:
        model.env.close()
    return rows


def _params(model: BOMRL) -> Params:
    return stack(model.actor.params(), model.meta_batch_size)


def _median(work: Callable[[], None], n_repetitions: int) -> float:
    seconds = []
    for _ in range(n_repetitions):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)
