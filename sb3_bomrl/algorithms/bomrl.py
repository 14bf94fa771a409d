"""BO-MRL: bilevel meta-reinforcement learning with universal policy adaptation."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch as th
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule

from sb3_bomrl.algorithms.meta_algorithm import MetaAlgorithm
from sb3_bomrl.checks import check_choice, check_positive, check_range
from sb3_bomrl.core.distances import DISTANCES
from sb3_bomrl.core.hypergradient import HYPERGRADIENTS
from sb3_bomrl.core.inner_solvers import INNER_METHODS, InnerSolver
from sb3_bomrl.core.surrogates import SURROGATES
from sb3_bomrl.meta.closed_form import check_closed_form, closed_form_adaptation
from sb3_bomrl.meta.gradients import MetaGradient, bomrl_meta_gradient
from sb3_bomrl.meta.lower_level import LowerLevel, adapt
from sb3_bomrl.types import Adaptation, Batch, Experience, Params


class BOMRL(MetaAlgorithm):
    r"""
    Bilevel Optimisation for Meta-Reinforcement Learning (Xu and Zhu, NeurIPS 2024, arXiv 2410.09728).

    The lower level adapts the meta-policy to a task by *many* optimisation steps on *one* data collection, Eq. (A2):

        θ' = argmin_θ −(1/λ) E_{s~ν^φ, a~π_φ}[h(π_θ/π_φ) A^φ] + D(φ, θ);

    the upper level follows the hypergradient through that optimum, Eq. (A3), by the implicit function theorem and
    conjugate gradients.

    The parameters that are not listed here are :class:`~sb3_bomrl.algorithms.meta_algorithm.MetaAlgorithm`'s.

    :param distance: D, ``"kl_meta_task"`` KL(π_φ ‖ π_θ), Alg(1), ``"kl_task_meta"`` KL(π_θ ‖ π_φ), Alg(2), or
        ``"parameter"`` ‖θ − φ‖², Alg(3)
    :param reg_coef: λ > 0, weight of the distance. It has the scale of the advantages: with
        ``normalize_advantage=False`` it must be tuned anew
    :param surrogate: h, ``"linear"`` r, ``"sigmoid"`` 2σ(2(r−1)) or ``"clip"`` (PPO's)
    :param clip_range: ε of ``"clip"``, or a schedule
    :param inner_solver: ``"adam"``, ``"sgd"``, ``"rmsprop"`` or ``"natural_gradient"``, on all tasks at once; for
        ``"TabularPolicy"`` with a KL distance and the linear surrogate also ``"closed_form"``, the exact solution
    :param inner_lr: step size of the inner solver, or a schedule; adapting after training uses its last value
    :param n_inner_steps: largest number of inner steps
    :param inner_max_kl: an inner step to a mean KL(π_φ ‖ π_θ) above this, in nats, is undone, and the task goes on with
        half the step size; ``float("inf")`` for no limit, also where a probability underflows to 0 and the KL is
        infinite
    :param inner_gradient_tolerance: a task's inner steps stop at this norm of ∇_θ F
    :param hypergradient: ``"implicit"`` (distance term), ``"implicit_sampling"`` (distance and sampling term, Eq. A6),
        ``"unrolled"`` (through the inner steps) or ``"first_order"``
    :param hypergradient_cg_max_steps: conjugate-gradient iterations of the implicit modes
    :param hypergradient_damping: damping of the inner Hessian relative to its curvature along the right-hand side, see
        :func:`~sb3_bomrl.core.linear_solve.damped_solve`. On HalfCheetahVel ten iterations leave a relative residual
        of 0.8 without damping, 0.4 with 0.01 and 0.03 with 0.1
    """

    step_sizes: ClassVar[tuple[str, ...]] = (*MetaAlgorithm.step_sizes, "inner_lr", "clip_range")

    def __init__(
        self,
        policy: str | type[ActorCriticPolicy],
        env: GymEnv | str | None,
        learning_rate: float | Schedule = 3e-4,
        n_steps: int = 200,
        meta_batch_size: int = 5,
        n_envs_per_task: int = 20,
        gamma: float = 0.99,
        gae_lambda: float = 0.97,
        distance: str = "kl_meta_task",
        reg_coef: float = 0.1,
        surrogate: str = "sigmoid",
        clip_range: float | Schedule = 0.2,
        inner_solver: str = "adam",
        inner_lr: float | Schedule = 3e-3,
        n_inner_steps: int = 50,
        inner_max_kl: float = 3.0,
        inner_gradient_tolerance: float = 0.0,
        hypergradient: str = "implicit",
        hypergradient_cg_max_steps: int = 10,
        hypergradient_damping: float = 0.01,
        normalize_advantage: bool = True,
        baseline: str = "auto",
        discount_states: bool = False,
        outer_step: str = "trpo",
        max_kl: float | Schedule = 0.02,
        cg_max_steps: int = 10,
        cg_damping: float = 1e-3,
        sub_sampling_factor: int = 1,
        line_search: bool = True,
        max_grad_norm: float = 0.5,
        n_critic_updates: int = 10,
        batch_size: int = 256,
        rollout_buffer_class: type[RolloutBuffer] | None = None,
        rollout_buffer_kwargs: dict[str, Any] | None = None,
        use_sde: bool = False,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: th.device | str = "auto",
        _init_setup_model: bool = True,
    ) -> None:
        self.distance = distance
        self.reg_coef = reg_coef
        self.surrogate = surrogate
        self.clip_range = clip_range
        self.inner_solver = inner_solver
        self.inner_lr = inner_lr
        self.n_inner_steps = n_inner_steps
        self.inner_max_kl = inner_max_kl
        self.inner_gradient_tolerance = inner_gradient_tolerance
        self.hypergradient = hypergradient
        self.hypergradient_cg_max_steps = hypergradient_cg_max_steps
        self.hypergradient_damping = hypergradient_damping
        super().__init__(
            policy,
            env,
            learning_rate=learning_rate,
            n_steps=n_steps,
            meta_batch_size=meta_batch_size,
            n_envs_per_task=n_envs_per_task,
            gamma=gamma,
            gae_lambda=gae_lambda,
            normalize_advantage=normalize_advantage,
            baseline=baseline,
            discount_states=discount_states,
            outer_step=outer_step,
            max_kl=max_kl,
            cg_max_steps=cg_max_steps,
            cg_damping=cg_damping,
            sub_sampling_factor=sub_sampling_factor,
            line_search=line_search,
            max_grad_norm=max_grad_norm,
            n_critic_updates=n_critic_updates,
            batch_size=batch_size,
            rollout_buffer_class=rollout_buffer_class,
            rollout_buffer_kwargs=rollout_buffer_kwargs,
            use_sde=use_sde,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            policy_kwargs=policy_kwargs,
            verbose=verbose,
            seed=seed,
            device=device,
            _init_setup_model=_init_setup_model,
        )

    def _check_arguments(self) -> None:
        super()._check_arguments()
        check_choice("distance", self.distance, DISTANCES)
        check_choice("surrogate", self.surrogate, SURROGATES)
        check_choice("inner_solver", self.inner_solver, (*INNER_METHODS, "closed_form"))
        check_choice("hypergradient", self.hypergradient, HYPERGRADIENTS)
        check_positive("reg_coef", self.reg_coef)
        if self.inner_max_kl != float("inf"):
            check_positive("inner_max_kl", self.inner_max_kl)
        for name in ("n_inner_steps", "hypergradient_cg_max_steps"):
            check_positive(name, getattr(self, name), integer=True)
        for name in ("inner_gradient_tolerance", "hypergradient_damping"):
            check_range(name, getattr(self, name), 0.0, float("inf"))
        if self.inner_solver in ("natural_gradient", "closed_form") and self.hypergradient == "unrolled":
            raise ValueError(
                "hypergradient='unrolled' differentiates through the inner steps, which inner_solver="
                f"{self.inner_solver!r} does not support: use 'implicit', or another inner_solver"
            )

    def _setup_model(self) -> None:
        super()._setup_model()
        if self.inner_solver == "closed_form":
            check_closed_form(self.policy, self.distance, self.surrogate)

    def _inner_solver(self) -> InnerSolver:
        return InnerSolver(
            self.inner_solver,
            self._step_size("inner_lr"),
            self.n_inner_steps,
            self.inner_max_kl,
            self.inner_gradient_tolerance,
            self.cg_max_steps,
            self.cg_damping,
        )

    def _lower_level(self, batch: Batch) -> LowerLevel:
        clip_range = self._step_size("clip_range") if self.surrogate == "clip" else 0.0
        return LowerLevel(
            self.actor, batch, self.distance, self.surrogate, self.reg_coef, clip_range, self.tasks_per_chunk
        )

    def adapt_params(self, meta_params: Params, support: Experience) -> Adaptation:
        lower = self._lower_level(support.batch)
        if self.inner_solver == "closed_form":
            return closed_form_adaptation(lower, meta_params)
        return adapt(lower, meta_params, self._inner_solver())

    def meta_gradient(
        self,
        meta_params: Params,
        supports: Sequence[Experience],
        adapted: Sequence[Adaptation],
        query: Experience,
    ) -> MetaGradient:
        support = supports[0]
        return bomrl_meta_gradient(
            self._lower_level(support.batch),
            support.rollout,
            meta_params,
            adapted[0].params,
            query.batch,
            self._inner_solver(),
            self.hypergradient,
            self.gamma,
            self.hypergradient_cg_max_steps,
            self.hypergradient_damping,
            self._lower_level(self.full_batch(support.rollout)) if self.hypergradient == "implicit_sampling" else None,
            baseline_is_fitted=self._resolved_baseline() == "linear",
        )

    def can_search(self) -> bool:
        # adapting again on the same data shows neither what other data φ would have sampled, part (b), nor what the
        # first-order gradient leaves out
        return self.hypergradient in ("implicit", "unrolled")
