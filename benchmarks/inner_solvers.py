"""
Objective reached against time: Adam, L-BFGS and natural-gradient steps on the lower level of real support data.

    python -m benchmarks.inner_solvers [--n-tasks 5] [--policy fresh|pretrained]

Writes ``benchmarks/results/inner_solvers_<policy>.json``. L-BFGS is no solver of the package: it lives here for the
comparison alone. Time is processor time on one thread, of the solver alone.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch as th

from benchmarks.provenance import RESULTS, machine, provenance, write_json
from sb3_bomrl import BOMRL, make_meta_vec_env
from sb3_bomrl.core.inner_solvers import InnerSolver
from sb3_bomrl.core.params import flatten, stack, unflatten
from sb3_bomrl.meta.lower_level import LowerLevel, adapt
from sb3_bomrl.policies import NormalizedFlattenExtractor
from sb3_bomrl.types import Params

ENV_ID = "bomrl/HalfCheetahVel-v0"
PRETRAINED = Path(__file__).parents[1] / "examples" / "pretrained" / "bomrl_HalfCheetahVel-v0.zip"

Evaluate = Callable[[th.Tensor], tuple[th.Tensor, th.Tensor]]
"""(n_tasks, n_params) -> objective (n_tasks,) and gradient (n_tasks, n_params)."""


def lower_level(policy: str, n_tasks: int, reg_coef: float) -> tuple[LowerLevel, Params]:
    """Support data of 20 episodes per task, and the meta-parameters that played them."""
    env = make_meta_vec_env(ENV_ID, 20 * n_tasks, seed=0)
    if policy == "pretrained":
        model = BOMRL.load(PRETRAINED, env=env, device="cpu", custom_objects={"meta_batch_size": n_tasks})
    else:
        policy_kwargs = {"features_extractor_class": NormalizedFlattenExtractor, "log_std_init": -0.5}
        model = BOMRL("MlpPolicy", env, meta_batch_size=n_tasks, policy_kwargs=policy_kwargs, seed=0, device="cpu")
        model.learn(2 * model.n_steps * env.num_envs)  # one meta-iteration, so that observations are normalised
    model.set_random_seed(1)
    collector = model.make_collector(env, model.task_generator)
    tasks = env.env_method("sample_tasks", n_tasks, indices=[0])[0]
    phi = stack(model.actor.params(), n_tasks)
    batch = model.full_batch(collector.collect_episodes(tasks, phi, 20))
    env.close()
    return LowerLevel(model.actor, batch, "kl_meta_task", "sigmoid", reg_coef), phi


def lbfgs(evaluate: Evaluate, start: th.Tensor, n_steps: int, memory: int = 10) -> tuple[th.Tensor, int]:
    """
    L-BFGS for many tasks at once (Nocedal and Wright, 2006, Alg. 7.4), with a backtracking search per task.

    A task whose search fails, or whose step has no positive curvature, keeps its history and goes on with the others;
    every trial point is one evaluation for all tasks, which is what it costs.
    """
    x, pairs, n_evaluations = start, [], 1
    f, g = evaluate(x)
    for _ in range(n_steps):
        q, alphas = g.clone(), []
        for s, y, rho in reversed(pairs):
            alpha = rho * (s * q).sum(1)
            q = q - alpha[:, None] * y
            alphas.append(alpha)
        if pairs:
            s, y, rho = pairs[-1]
            scale = th.where(rho > 0, 1.0 / (rho * (y * y).sum(1)).clamp(min=1e-12), 0.05 / g.norm(dim=1))
        else:
            scale = 0.05 / g.norm(dim=1)
        q = scale[:, None] * q
        for (s, y, rho), alpha in zip(pairs, reversed(alphas), strict=True):
            q = q + (alpha - rho * (y * q).sum(1))[:, None] * s
        slope = (q * g).sum(1)
        q = th.where(slope[:, None] > 0, q, 0.05 / g.norm(dim=1)[:, None] * g)
        slope = (q * g).sum(1)
        length = th.ones_like(f)
        accepted = th.zeros_like(f, dtype=th.bool)
        x_new, f_new, g_new = x, f, g
        for _ in range(8):
            trial = x - length[:, None] * q
            f_trial, g_trial = evaluate(trial)
            n_evaluations += 1
            good = ~accepted & (f_trial <= f - 1e-4 * length * slope)
            x_new, g_new = th.where(good[:, None], trial, x_new), th.where(good[:, None], g_trial, g_new)
            f_new, accepted = th.where(good, f_trial, f_new), accepted | good
            if accepted.all():
                break
            length = th.where(accepted, length, 0.5 * length)
        s, y = x_new - x, g_new - g
        sy = (s * y).sum(1)
        rho = th.where(sy > 1e-10 * (y * y).sum(1), 1.0 / sy, 0.0)  # 0 leaves the pair out for that task
        pairs = [*pairs, (s, y, rho)][-memory:]
        x, f, g = x_new, f_new, g_new
    return x, n_evaluations


def measure(lower: LowerLevel, phi: Params) -> list[dict]:
    """Objective above the best one found, gradient norm, KL and time of every solver."""
    with th.no_grad():
        meta_policy = lower.policy(phi)

    def evaluate(vector: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        leaf = vector.detach().requires_grad_()
        value = lower.value(unflatten(leaf, phi), phi, meta_policy)
        return value.objective.detach(), th.autograd.grad(value.objective.sum(), leaf)[0]

    rows = []

    def record(name: str, settings: dict, solve: Callable[[], tuple[th.Tensor, int]]) -> None:
        start = time.process_time()
        solution, n_evaluations = solve()
        seconds = time.process_time() - start
        value = lower.value(unflatten(solution, phi), phi, meta_policy)
        norm = evaluate(solution)[1].norm(dim=1)
        rows.append(
            {
                "solver": name,
                **settings,
                "cpu_seconds": round(seconds, 2),
                "gradient_evaluations": n_evaluations,
                "objective": float(value.objective.detach().mean()),
                "gradient_norm": float(norm.mean()),
                "kl": float(value.kl.mean()),
            }
        )
        print(rows[-1], flush=True)

    def packaged(solver: InnerSolver) -> Callable[[], tuple[th.Tensor, int]]:
        def solve() -> tuple[th.Tensor, int]:
            adapted = adapt(lower, phi, solver)
            return flatten(adapted.params), int(adapted.n_steps.max()) + 1

        return solve

    for learning_rate in (3e-3, 1e-2):
        for n in (10, 20, 50, 100, 200):
            record(
                "adam", {"learning_rate": learning_rate, "n_steps": n}, packaged(InnerSolver("adam", learning_rate, n))
            )
    for n in (5, 10, 20, 40):
        record("lbfgs", {"memory": 10, "n_steps": n}, lambda n=n: lbfgs(evaluate, flatten(phi), n))
    for learning_rate in (0.3, 1.0):
        for n in (1, 3, 5):
            solver = InnerSolver("natural_gradient", learning_rate, n, cg_max_steps=10, cg_damping=1e-3)
            record("natural_gradient", {"learning_rate": learning_rate, "n_steps": n}, packaged(solver))
    return rows


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n-tasks", type=int, default=5)
    parser.add_argument("--policy", choices=("fresh", "pretrained"), default="fresh")
    parser.add_argument("--reg-coef", type=float, default=0.1)
    args = parser.parse_args()
    th.set_num_threads(1)
    rows = measure(*lower_level(args.policy, args.n_tasks, args.reg_coef))
    source = provenance(f"python -m benchmarks.inner_solvers {' '.join(sys.argv[1:])}".strip(), machine())
    settings = {**vars(args), "env_id": ENV_ID, "n_episodes": 20, "seed": 0}
    write_json(
        RESULTS / f"inner_solvers_{args.policy}.json", {"provenance": source, "settings": settings, "rows": rows}
    )


if __name__ == "__main__":
    main()
