"""BO-MRL: bilevel meta-reinforcement learning with universal policy adaptation."""

from functools import partial
from typing import Any, ClassVar, Literal

import torch as th
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule

from sb3_bomrl.algorithms.arguments import arguments_of, renamed_arguments
from sb3_bomrl.algorithms.meta_algorithm import MetaAlgorithm
from sb3_bomrl.checks import check_choice, check_count, check_non_negative, check_positive
from sb3_bomrl.core.distances import DISTANCES
from sb3_bomrl.core.inner_solvers import INNER_METHODS, NOT_DIFFERENTIABLE, InnerSolver
from sb3_bomrl.core.surrogates import SURROGATES
from sb3_bomrl.meta.closed_form import check_closed_form, closed_form_adaptation
from sb3_bomrl.meta.gradients import MetaGradient, bomrl_meta_gradient
from sb3_bomrl.meta.hypergradients import HYPERGRADIENTS
from sb3_bomrl.meta.lower_level import LowerLevel, adapt
from sb3_bomrl.meta.reg_coef import calibrated_reg_coef, default_ridge_coef, default_target_kl, next_reg_coef
from sb3_bomrl.meta.sampling_term import sampling_term
from sb3_bomrl.types import Adaptation, Batch, Experience, MetaBatch, Params


class BOMRL(MetaAlgorithm):
    r"""
    Bilevel Optimisation for Meta-Reinforcement Learning (Xu and Zhu, NeurIPS 2024, arXiv 2410.09728).

    The lower level adapts the meta-policy to a task by *many* optimisation steps on *one* data collection, Eq. (A2):

        θ' = argmin_θ −(1/λ) E_{s~ν^φ, a~π_φ}[h(π_θ/π_φ) A^φ] + D(φ, θ);

    the upper level follows the *hypergradient* through that optimum, Eq. (A3), by the implicit function theorem and
    conjugate gradients.

    :param policy: ``"MlpPolicy"``, ``"CnnPolicy"``, ``"MultiInputPolicy"``, ``"TabularPolicy"``, or a class
    :param env: environment, VecEnv, or the id of a registered environment, from which a VecEnv of
        ``meta_batch_size`` · ``n_envs_per_task`` environments is made; environments with ``sample_tasks(n)`` and
        ``set_task(task)`` have tasks, any other is one task
    :param learning_rate: step size of ``outer_step="adam"`` and of the value network, or a schedule
    :param n_steps: steps per phase and environment
    :param meta_batch_size: tasks per meta-iteration; it must divide the number of environments, or be a multiple of it
    :param n_envs_per_task: environments per task where ``env`` is an id; ``None`` is 20 where they are stepped as a
        batch, and 4 where they are stepped one by one
    :param gamma: discount factor
    :param gae_lambda: λ of generalised advantage estimation
    :param distance: D, ``"kl_meta_task"`` KL(π_φ ‖ π_θ), Alg(1), ``"kl_task_meta"`` KL(π_θ ‖ π_φ), Alg(2), or
        ``"parameter"`` ‖θ − φ‖², Alg(3)
    :param reg_coef: λ > 0, weight of the distance, or a schedule; ``"auto"`` finds the one at which the median task
        adapts by ``inner_target_kl``. A number has the scale of the advantages
    :param inner_target_kl: mean KL(π_φ ‖ π_θ') that ``reg_coef="auto"`` aims at, in nats; by default 0.05 for each
        dimension of a continuous action, and 0.25 for each choice of a discrete one
    :param ridge_coef: κ ≥ 0, weight of ‖θ − φ‖² beside a distance that is a KL: it gives the lower level a minimum; by
        default 0.1 for continuous actions, and 1 for discrete ones
    :param surrogate: h, ``"linear"`` r, ``"sigmoid"`` 2σ(2(r−1)) or ``"clip"`` (PPO's)
    :param clip_range: ε of ``"clip"``, or a schedule
    :param inner_solver: ``"lbfgs"`` (limited-memory BFGS with a line search), ``"adam"``, ``"sgd"``, ``"rmsprop"`` or
        ``"natural_gradient"``, on all tasks at once; for ``"TabularPolicy"`` with a KL distance and the linear
        surrogate also ``"closed_form"``, the exact solution
    :param inner_lr: step size of the inner solvers other than ``"lbfgs"``, or a schedule; adapting after training uses
        its last value
    :param n_inner_steps: largest number of inner steps
    :param inner_max_kl: an inner step to a mean KL(π_φ ‖ π_θ) above this, in nats, is undone, and the task goes on with
        half the step size; ``float("inf")`` for no limit, also where a probability underflows to 0 and the KL is
        infinite
    :param inner_gradient_tolerance: a task's inner steps stop where the norm of ∇_θ F is at most this times its norm at
        θ = φ
    :param inner_cg_max_steps: conjugate-gradient iterations of a step of ``inner_solver="natural_gradient"``
    :param inner_cg_damping: damping of the Fisher matrix in such a step
    :param hypergradient: ``"implicit"`` (distance term), ``"implicit_sampling"`` (distance and sampling term, Eq. A6),
        ``"unrolled"`` (through the inner steps) or ``"first_order"``
    :param hypergradient_cg_max_steps: conjugate-gradient iterations of the implicit modes
    :param hypergradient_damping: damping of the inner Hessian relative to its curvature along the right-hand side, see
        :func:`~sb3_bomrl.core.linear_solve.damped_solve`. On HalfCheetahVel ten iterations leave a relative residual
        of 0.8 without damping, 0.4 with 0.01 and 0.03 with 0.1
    :param normalize_advantage: scale the advantages to unit standard deviation, support data per task, query data over
        all tasks (so that the outer objective stays the mean return); they are centred per task in any case
    :param baseline: ``"linear"`` (features of the observation, fitted per task in closed form), ``"value_net"``
        (SB3's critic) or ``"auto"`` (linear unless the observation is large)
    :param discount_states: weight the t-th step of an episode by γ^t, as the equations do; by default all steps count
        equally, as in most deep RL
    :param outer_step: ``"trpo"`` (natural gradient in a KL radius) or ``"adam"`` (the policy's optimiser)
    :param trust_region: what ``max_kl`` bounds in ``"trpo"``: ``"adapted"``, the mean KL(π_θ' ‖ π_θ'_new) of the
        adapted policies at the query states, for which every candidate adapts to the support data anew, or ``"meta"``,
        the mean KL(π_φ ‖ π_φ_new) at the support states
    :param max_kl: KL radius of ``"trpo"``, in nats, or a schedule
    :param cg_max_steps: conjugate-gradient iterations of ``"trpo"``
    :param cg_damping: damping of the Fisher matrix in ``"trpo"``
    :param sub_sampling_factor: estimate the Fisher matrix of ``"trpo"`` from one state in this many, as sb3-contrib's
        TRPO does; the KL is checked on all
    :param line_search: also require of a step of ``"trpo"`` that adapting again from the new meta-policy improves the
        query surrogate; only for meta-gradients that are its gradient: BO-MRL's ``"implicit"`` and ``"unrolled"``,
        MAML's
    :param max_grad_norm: largest gradient norm of ``"adam"`` and of the value network
    :param n_critic_updates: passes over the support data per meta-iteration (``baseline="value_net"``)
    :param batch_size: minibatch size of the value network's regression
    :param tasks_per_chunk: tasks that the learning phase works on at once; ``None`` chooses by the size of the network
        and the data
    :param n_rollout_threads: torch threads while rollouts run; the learning phase has those of
        ``torch.set_num_threads``
    :param rollout_buffer_class: rollout buffer class; chosen by the observation space if not given
    :param rollout_buffer_kwargs: keyword arguments of the rollout buffer
    :param stats_window_size: episodes that ``rollout/ep_rew_mean`` averages over
    :param tensorboard_log: log location for TensorBoard
    :param policy_kwargs: keyword arguments of the policy
    :param verbose: 0 no output, 1 info, 2 debug
    :param seed: seed of the pseudo-random generators
    :param device: device of the networks
    :param _init_setup_model: build the network at creation
    """

    distance: str
    reg_coef: float | Schedule | Literal["auto"]
    inner_target_kl: float | None
    ridge_coef: float | None
    surrogate: str
    clip_range: float | Schedule
    inner_solver: str
    inner_lr: float | Schedule
    n_inner_steps: int
    inner_max_kl: float
    inner_gradient_tolerance: float
    inner_cg_max_steps: int
    inner_cg_damping: float
    hypergradient: str
    hypergradient_cg_max_steps: int
    hypergradient_damping: float

    scheduled: ClassVar[tuple[str, ...]] = (*MetaAlgorithm.scheduled, "inner_lr", "clip_range", "reg_coef")

    @renamed_arguments()
    def __init__(
        self,
        policy: str | type[ActorCriticPolicy],
        env: GymEnv | str | None,
        learning_rate: float | Schedule = 3e-4,
        n_steps: int = 200,
        meta_batch_size: int = 5,
        n_envs_per_task: int | None = None,
        gamma: float = 0.99,
        gae_lambda: float = 0.97,
        distance: str = "kl_meta_task",
        reg_coef: float | Schedule | Literal["auto"] = "auto",
        inner_target_kl: float | None = None,
        ridge_coef: float | None = None,
        surrogate: str = "sigmoid",
        clip_range: float | Schedule = 0.2,
        inner_solver: str = "lbfgs",
        inner_lr: float | Schedule = 3e-3,
        n_inner_steps: int = 50,
        inner_max_kl: float = 3.0,
        inner_gradient_tolerance: float = 0.01,
        inner_cg_max_steps: int = 10,
        inner_cg_damping: float = 1e-3,
        hypergradient: str = "implicit",
        hypergradient_cg_max_steps: int = 10,
        hypergradient_damping: float = 0.01,
        normalize_advantage: bool = True,
        baseline: str = "auto",
        discount_states: bool = False,
        outer_step: str = "trpo",
        trust_region: str = "meta",
        max_kl: float | Schedule = 0.02,
        cg_max_steps: int = 10,
        cg_damping: float = 1e-3,
        sub_sampling_factor: int = 1,
        line_search: bool = False,
        max_grad_norm: float = 0.5,
        n_critic_updates: int = 10,
        batch_size: int = 256,
        tasks_per_chunk: int | None = None,
        n_rollout_threads: int = 1,
        rollout_buffer_class: type[RolloutBuffer] | None = None,
        rollout_buffer_kwargs: dict[str, Any] | None = None,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: th.device | str = "auto",
        _init_setup_model: bool = True,
    ) -> None:
        self.reg_coef_now = 0.0  # that of "auto", once it is known
        super().__init__(**arguments_of(locals()))

    def _check_arguments(self) -> None:
        check_choice("distance", self.distance, DISTANCES)
        check_choice("surrogate", self.surrogate, SURROGATES)
        check_choice("inner_solver", self.inner_solver, (*INNER_METHODS, "closed_form"))
        check_choice("hypergradient", self.hypergradient, tuple(HYPERGRADIENTS))
        super()._check_arguments()
        if self.ridge_coef is not None:
            check_non_negative("ridge_coef", self.ridge_coef)
        check_positive("inner_target_kl", self.inner_target_kl, optional=True)
        check_non_negative("reg_coef_now", self.reg_coef_now)  # load() puts the saved one there before
        if self.inner_max_kl != float("inf"):
            check_positive("inner_max_kl", self.inner_max_kl)
        for name in ("n_inner_steps", "inner_cg_max_steps", "hypergradient_cg_max_steps"):
            check_count(name, getattr(self, name))
        for name in ("inner_gradient_tolerance", "inner_cg_damping", "hypergradient_damping"):
            check_non_negative(name, getattr(self, name))
        if self.inner_solver in (*NOT_DIFFERENTIABLE, "closed_form") and self.hypergradient == "unrolled":
            raise ValueError(
                "hypergradient='unrolled' differentiates through the inner steps, which inner_solver="
                f"{self.inner_solver!r} does not support: use 'implicit', or inner_solver='adam'"
            )

    def _without_effect(self) -> dict[str, str]:
        reasons = super()._without_effect()
        if self.surrogate != "clip":
            reasons["clip_range"] = f"with surrogate={self.surrogate!r}"
        if self.inner_solver != "natural_gradient":
            solve = ("inner_cg_max_steps", "inner_cg_damping")
            reasons |= dict.fromkeys(solve, f"with inner_solver={self.inner_solver!r}")
        if self.reg_coef != "auto":
            reasons["inner_target_kl"] = f"with reg_coef={self.reg_coef!r}"
        if self.inner_solver == "lbfgs":
            reasons["inner_lr"] = "with inner_solver='lbfgs'"
        if self.distance == "parameter" and self.ridge_coef:
            reasons["ridge_coef"] = "with distance='parameter', which is a ridge"
        if self.inner_solver == "closed_form":
            steps = ("inner_lr", "n_inner_steps", "inner_max_kl", "inner_gradient_tolerance", "ridge_coef")
            reasons |= dict.fromkeys(steps, "with inner_solver='closed_form'")
        if self.hypergradient not in ("implicit", "implicit_sampling"):
            solve = ("hypergradient_cg_max_steps", "hypergradient_damping")
            reasons |= dict.fromkeys(solve, f"with hypergradient={self.hypergradient!r}")
        return reasons

    def _setup_model(self) -> None:
        super()._setup_model()
        if self.inner_solver == "closed_form":
            check_closed_form(self.policy, self.distance, self.surrogate)

    def _inner_solver(self) -> InnerSolver:
        return InnerSolver(
            self.inner_solver,
            self._now("inner_lr"),
            self.n_inner_steps,
            self.inner_max_kl,
            self.inner_gradient_tolerance,
            self.inner_cg_max_steps,
            self.inner_cg_damping,
        )

    def _lower_level(self, batch: Batch, reg_coef: float) -> LowerLevel:
        clip_range = self._now("clip_range") if self.surrogate == "clip" else 0.0
        ridge_coef = default_ridge_coef(self.action_space) if self.ridge_coef is None else self.ridge_coef
        if self.inner_solver == "closed_form":
            ridge_coef = 0.0
        return LowerLevel(self.actor, batch, self.distance, self.surrogate, reg_coef, clip_range, ridge_coef)

    def adapt_params(self, meta_params: Params, support: Experience) -> Adaptation:
        return self._solve(meta_params, support, self._reg_coef(meta_params, support))

    def _solve(self, meta_params: Params, support: Experience, reg_coef: float) -> Adaptation:
        """Solve the lower level with a given λ."""
        if self.inner_solver == "closed_form":
            return closed_form_adaptation(self._lower_level(support.batch, reg_coef), meta_params)
        solver = self._inner_solver()

        def adapt_tasks(batch: Batch, phi: Params) -> Adaptation:
            return adapt(self._lower_level(batch, reg_coef), phi, solver)

        return self.over_tasks(adapt_tasks, support.batch, meta_params, sized_by=support.batch)

    def _reg_coef(self, meta_params: Params, support: Experience) -> float:
        """Return λ as it is now; ``"auto"`` finds it on the data before it is trained."""
        if self.reg_coef != "auto":
            return self._now("reg_coef")
        if self.reg_coef_now:
            return self.reg_coef_now
        return calibrated_reg_coef(
            lambda value: self._solve(meta_params, support, value).kl, support.batch, self._target_kl()
        )

    def _before_adaptation(self, params: Params, support: Experience) -> None:
        if self.reg_coef == "auto":
            self.reg_coef_now = self._reg_coef(params, support)

    def _target_kl(self) -> float:
        return default_target_kl(self.action_space) if self.inner_target_kl is None else self.inner_target_kl

    def meta_gradient(self, data: MetaBatch) -> MetaGradient:
        support = data.supports[0]
        solver, is_fitted = self._inner_solver(), self.resolved_baseline() == "linear"
        cg_settings = (self.hypergradient_cg_max_steps, self.hypergradient_damping)
        reg_coef = self._reg_coef(data.meta_params, support)

        def of_tasks(support: Experience, phi: Params, theta: Params, query: Batch) -> MetaGradient:
            lower, steps = (self._lower_level(batch, reg_coef) for batch in (support.batch, support.steps))
            part_b = partial(
                sampling_term, steps, support.rollout, phi, theta, self.gamma, baseline_is_fitted=is_fitted
            )
            return bomrl_meta_gradient(lower, phi, theta, query, self.hypergradient, solver, *cg_settings, part_b)

        trees = (support, data.meta_params, data.adapted_params, data.query.batch)
        return self.over_tasks(of_tasks, *trees, sized_by=support.batch)

    def _after_outer_step(self, data: MetaBatch) -> None:
        super()._after_outer_step(data)
        self.logger.record("inner/reg_coef", self._reg_coef(data.meta_params, data.supports[0]))
        if self.reg_coef == "auto":
            self.reg_coef_now = next_reg_coef(self.reg_coef_now, data.adapted[0].kl, self._target_kl())

    def supports_line_search(self) -> bool:
        # adapting again on the same data shows neither what other data φ would have sampled, part (b), nor what the
        # first-order gradient leaves out
        return self.hypergradient in ("implicit", "unrolled")
