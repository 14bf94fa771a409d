"""The metrics of a meta-iteration, see docs/logging.md, and the checks that stop it where a number is not finite."""

from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import VecEnv

from sb3_bomrl.core.inner_solvers import InnerStatus
from sb3_bomrl.core.linear_solve import SolveStatus
from sb3_bomrl.core.trust_region import OuterInfo
from sb3_bomrl.meta.gradients import MetaGradient
from sb3_bomrl.rollout.returns import episode_returns
from sb3_bomrl.types import Adaptation, MetaBatch, Rollout
from sb3_bomrl.vec_env import BatchTaskVecEnv


def record(logger: Logger, data: MetaBatch, gradient: MetaGradient, outer: OuterInfo, env: VecEnv | None) -> None:
    """
    Log a whole meta-iteration.

    :param logger: SB3 logger
    :param data: what it has collected, and the adaptations
    :param gradient: its meta-gradient
    :param outer: its outer step
    :param env: training environment
    """
    record_returns(logger, data.supports[0].rollout, data.query.rollout)
    record_adaptation(logger, data.adapted[-1])
    record_meta_gradient(logger, gradient)
    record_outer_step(logger, outer)
    record_divergence(logger, env)


def record_returns(logger: Logger, support: Rollout, query: Rollout) -> None:
    """
    Log returns before and after adaptation.

    :param logger: SB3 logger
    :param support: pre-adaptation rollout
    :param query: post-adaptation rollout of the same tasks
    """
    before, after = episode_returns(support), episode_returns(query)
    logger.record("meta/pre_adapt_return", float(before.mean()))
    logger.record("meta/post_adapt_return", float(after.mean()))
    logger.record("meta/adaptation_gain", float((after - before).mean()))
    logger.record("meta/fraction_improved", float((after > before).double().mean()))


def record_adaptation(logger: Logger, adapted: Adaptation) -> None:
    """
    Log how the lower level was solved.

    :param logger: SB3 logger
    :param adapted: the solver's report
    """
    logger.record("inner/n_steps", float(adapted.n_steps.double().mean()))
    logger.record("inner/objective", float(adapted.objective.mean()))
    logger.record("inner/distance", float(adapted.distance.mean()))
    logger.record("inner/kl", float(adapted.kl.mean()))
    logger.record("inner/gradient_norm", float(adapted.gradient_norm.mean()))
    logger.record("inner/kl_limit_count", int((adapted.status == InnerStatus.KL_LIMIT).sum()))


def record_meta_gradient(logger: Logger, gradient: MetaGradient) -> None:
    """
    Log the meta-gradient and, where one was solved, the linear system behind it.

    :param logger: SB3 logger
    :param gradient: meta-gradient with its reports
    """
    norm = th.stack([value.square().sum() for value in gradient.gradient.values()]).sum().sqrt()
    for prefix in ("meta_gradient", "hypergradient"):  # the second one is the name of 0.1, for one more version
        logger.record(f"{prefix}/norm", float(norm))
        logger.record(f"{prefix}/largest_task_norm", float(gradient.task_norms.max()))
    if gradient.solve is None:
        return
    info = gradient.solve
    logger.record("hypergradient/cg_residual", float(info.residual.mean()))
    logger.record("hypergradient/cg_iterations", float(info.n_iterations.double().mean()))
    for status in (SolveStatus.NEGATIVE_CURVATURE, SolveStatus.NON_FINITE):
        logger.record(f"hypergradient/{status.name.lower()}_count", int((info.status == status).sum()))


def record_outer_step(logger: Logger, info: OuterInfo) -> None:
    """
    Log the outer step.

    :param logger: SB3 logger
    :param info: the step's report
    """
    for name, value in info._asdict().items():
        if not (isinstance(value, float) and np.isnan(value)):
            logger.record(f"outer/{name}", float(value))


def check_finite_params(policy: th.nn.Module) -> None:
    """
    Stop where a parameter is not finite.

    :param policy: any module
    :raises FloatingPointError: that names the parameter
    """
    for name, value in policy.named_parameters():
        if not value.isfinite().all():
            raise FloatingPointError(f"policy parameter {name!r} is not finite")


def record_divergence(logger: Logger, env: VecEnv | None) -> None:
    """
    Log how many simulations have diverged so far, where the environments count them, and warn of new ones.

    :param logger: SB3 logger
    :param env: training environment
    """
    base = env.unwrapped if env is not None else None
    if isinstance(base, BatchTaskVecEnv):
        logger.record("rollout/n_diverged", base.n_diverged)
        base.report_diverged()


def check_finite_tasks(name: str, values: th.Tensor, tasks: list[Any]) -> None:
    """
    Stop where a task's number is not finite.

    :param name: what the values are
    :param values: (n_tasks,)
    :param tasks: the tasks
    :raises FloatingPointError: that says which task
    """
    bad = ~values.isfinite()
    if bad.any():
        index = int(bad.nonzero()[0])
        raise FloatingPointError(
            f"{name} of task {index} ({tasks[index]!r}) is not finite: {float(values[index])}. "
            "The meta-parameters are those of the last complete iteration"
        )
