"""Eq. (A6) on sampled trajectories against the exact derivative of Eq. (A5), by autograd through the Bellman solve."""

from functools import partial
from typing import NamedTuple

import numpy as np
import pytest
import torch as th

from sb3_bomrl.core.surrogates import get_surrogate
from sb3_bomrl.meta.batches import make_batch, state_visitation
from sb3_bomrl.meta.gradients import bomrl_meta_gradient
from sb3_bomrl.meta.lower_level import LowerLevel
from sb3_bomrl.meta.sampling_term import sampling_term
from sb3_bomrl.tabular import FiniteMDP, expected_return
from sb3_bomrl.tabular import adapt as adapt_exactly
from sb3_bomrl.types import Batch, Rollout

N_STATES, N_ACTIONS, GAMMA, REG_COEF, HORIZON = 4, 3, 0.7, 2.0, 28
N_REPEATS = 16


class Chain(NamedTuple):
    """An MDP whose rows of P sum to the probability that the episode goes on."""

    transition: th.Tensor
    reward: th.Tensor
    initial: th.Tensor

    def solve(self, policy: th.Tensor) -> tuple[th.Tensor, th.Tensor, th.Tensor]:
        """Visitation (sums to 1 over the steps that are played), Q and V."""
        matrix = th.eye(N_STATES).double() - GAMMA * th.einsum("sa,sat->st", policy, self.transition)
        values = th.linalg.solve(matrix, (policy * self.reward).sum(1))
        visitation = th.linalg.solve(matrix.T, self.initial)
        return visitation / visitation.sum(), self.reward + GAMMA * self.transition @ values, values


def make_chain(survival: float) -> Chain:
    """``survival`` below 1: the chance to go on is between it and 1 and depends on state and action."""
    generator = th.Generator().manual_seed(3)
    draw = lambda *shape: th.rand(*shape, generator=generator, dtype=th.double)  # noqa: E731
    transition = draw(N_STATES, N_ACTIONS, N_STATES) ** 8
    goes_on = survival + (1 - survival) * draw(N_STATES, N_ACTIONS)
    transition = transition / transition.sum(-1, keepdim=True) * goes_on[..., None]
    return Chain(transition, 2 * draw(N_STATES, N_ACTIONS) - 1, th.tensor([0.5, 0.3, 0.2, 0.0]).double())


def tables(seed: int = 0) -> tuple[th.Tensor, th.Tensor, th.Tensor]:
    """φ, θ' and x."""
    phi, step, x = th.randn(3, N_STATES, N_ACTIONS, generator=th.Generator().manual_seed(seed), dtype=th.double)
    return 0.7 * phi, 0.7 * phi + step, x


def exact_term(
    chain: Chain, distance: str, surrogate: str, baseline_moves: bool = True, visitation_of_distance: bool = True
) -> th.Tensor:
    """∇_φ ⟨∇_θ F, x⟩ without what φ does inside d²: F written out with ν^φ, π_φ and A^φ as functions of φ."""
    phi, theta, x = tables()
    phi.requires_grad_()
    theta.requires_grad_()
    log_pi, log_task = phi.log_softmax(1), theta.log_softmax(1)
    nu, q, v = chain.solve(log_pi.exp())
    advantages = q - (v if baseline_moves else v.detach())[:, None]
    h = get_surrogate(surrogate)((log_task - log_pi).exp(), advantages)
    value = -(nu[:, None] * log_pi.exp() * h * advantages).sum() / REG_COEF
    fixed = log_pi.detach()
    divergence = {
        "kl_meta_task": (fixed.exp() * (fixed - log_task)).sum(1),
        "kl_task_meta": (log_task.exp() * (log_task - fixed)).sum(1),
        "parameter": th.zeros(N_STATES).double(),
    }[distance]
    if visitation_of_distance:
        value = value + (nu * divergence).sum()
    slope = th.autograd.grad(value, theta, create_graph=True)[0]
    return th.autograd.grad((slope * x).sum(), phi)[0]


def simulate(chain: Chain, n_tasks: int, n_episodes: int, seed: int, true_advantages: bool = True) -> Rollout:
    """Episodes of π_φ, side by side; what comes after the end of one is padding."""
    rng = np.random.default_rng(seed)
    policy = tables()[0].softmax(1)
    _, q, v = chain.solve(policy)
    cumulative_actions = policy.cumsum(1).numpy()
    cumulative_states = chain.transition.cumsum(-1).numpy()
    shape = (n_tasks, n_episodes)
    state = (rng.random((*shape, 1)) > chain.initial.cumsum(0).numpy()[:-1]).sum(-1)
    alive = np.ones(shape, dtype=bool)
    states, actions, masks, ends = [], [], [], []
    for t in range(HORIZON):
        action = (rng.random((*shape, 1)) > cumulative_actions[state][..., :-1]).sum(-1)
        following = (rng.random((*shape, 1)) > cumulative_states[state, action]).sum(-1)
        over = (following == N_STATES) | (t == HORIZON - 1)
        for record, value in zip((states, actions, masks, ends), (state, action, alive, alive & over), strict=True):
            record.append(value)
        alive = alive & ~over
        state = np.where(over, 0, following)
    states, actions, mask, ends = (th.from_numpy(np.stack(x, 1)) for x in (states, actions, masks, ends))
    starts = th.zeros_like(mask)
    starts[:, 0] = True
    rewards = chain.reward[states, actions] * mask
    if true_advantages:
        advantages = (q - v[:, None])[states, actions] * mask
    else:  # Monte Carlo: returns minus the value
        decay = GAMMA ** th.arange(HORIZON)[None, :, None].double()
        to_go = (rewards * decay).flip(1).cumsum(1).flip(1) / decay
        advantages = (to_go - v[states]) * mask
    log_probs = policy.log()[states, actions]
    nothing = th.zeros_like(mask)
    return Rollout(
        states, actions, log_probs, rewards, starts, ends, nothing, states[:0, 0, 0], mask, advantages, rewards
    )


def estimate(make_table, rollout: Rollout, distance: str, surrogate: str, baseline_is_fitted: bool = True) -> th.Tensor:
    """(n_tasks, S, A) by the package, from the rollout to the sampling term."""
    phi, theta, x = ({"action_net.weight": t.T.expand(rollout.n_tasks, -1, -1)} for t in tables())
    actor = make_table(N_STATES, N_ACTIONS)
    lower = LowerLevel(
        actor, make_batch(rollout, actor, state_visitation(rollout, GAMMA), False), distance, surrogate, REG_COEF
    )
    return sampling_term(lower, rollout, phi, theta, GAMMA, x, baseline_is_fitted)["action_net.weight"].mT


def cosine(a: th.Tensor, b: th.Tensor) -> float:
    return float((a * b).sum() / (a.norm() * b.norm()))


CASES = [
    # survival, distance, surrogate, Monte Carlo, the baseline is fitted to the data
    (1.0, "parameter", "linear", False, False),
    (1.0, "kl_meta_task", "linear", False, True),
    (1.0, "kl_task_meta", "linear", True, True),
    (0.3, "parameter", "linear", False, True),
    (0.3, "kl_meta_task", "linear", True, True),
    (0.3, "parameter", "sigmoid", False, True),
    (0.3, "parameter", "sigmoid", False, False),
    (1.0, "kl_task_meta", "sigmoid", False, True),
    (1.0, "kl_task_meta", "sigmoid", False, False),
]


@pytest.mark.parametrize(("survival", "distance", "surrogate", "monte_carlo", "fitted"), CASES)
def test_the_estimate_converges_to_the_exact_derivative(survival, distance, surrogate, monte_carlo, fitted, make_table):
    chain = make_chain(survival)
    expected = exact_term(chain, distance, surrogate, baseline_moves=fitted or surrogate == "linear")
    rollout = simulate(chain, N_REPEATS, 700, seed=1, true_advantages=not monte_carlo)
    got = estimate(make_table, rollout, distance, surrogate, fitted)
    standard_error = got.std(0) / N_REPEATS**0.5
    assert cosine(got.mean(0), expected) > 0.99
    assert float(((got.mean(0) - expected).abs() / standard_error).max()) < 4.0
    assert float(standard_error.norm()) < 0.08 * float(expected.norm())


@pytest.mark.parametrize("survival", [1.0, 0.3])
def test_the_error_falls_like_one_over_the_root_of_the_number_of_episodes(survival, make_table):
    chain = make_chain(survival)
    expected = exact_term(chain, "kl_meta_task", "linear")
    sizes = np.array([40, 160, 640])
    errors = []
    for n_episodes in sizes:
        rollout = simulate(chain, N_REPEATS, int(n_episodes), seed=int(n_episodes))
        got = estimate(make_table, rollout, "kl_meta_task", "linear")
        errors.append(float((got - expected).square().sum((1, 2)).mean().sqrt()))
    slope = np.polyfit(np.log(sizes), np.log(errors), 1)[0]
    assert slope == pytest.approx(-0.5, abs=0.1)  # −0.45 to −0.57 over three seeds


def test_the_motion_of_the_baseline_matters_for_other_surrogates_than_the_linear():
    chain = make_chain(1.0)
    for surrogate, share in (("linear", 0.0), ("sigmoid", None)):
        fixed, whole = (exact_term(chain, "parameter", surrogate, baseline_moves=moves) for moves in (False, True))
        difference = float((fixed - whole).norm() / whole.norm())
        if share is None:
            assert difference > 0.05
        else:
            assert difference < 1e-12


@pytest.mark.parametrize("distance", ["kl_meta_task", "kl_task_meta"])
def test_without_the_visitation_of_the_distance_the_estimate_would_be_another(distance):
    chain = make_chain(1.0)
    part = exact_term(chain, distance, "linear", visitation_of_distance=False)
    whole = exact_term(chain, distance, "linear")
    assert float((part - whole).norm()) > 0.1 * float(whole.norm())


def test_episodes_one_after_another_count_like_episodes_side_by_side(make_table):
    chain = make_chain(0.3)
    beside = simulate(chain, 2, 6, seed=5)

    behind = {name: th.zeros(2, 3 * HORIZON, 2, dtype=x.dtype) for name, x in beside._asdict().items()}
    for task, env in np.ndindex(2, 2):
        played = [(episode, t) for episode in range(3 * env, 3 * env + 3) for t in range(HORIZON)]
        played = [(episode, t) for episode, t in played if beside.mask[task, t, episode]]
        for step, (episode, t) in enumerate(played):
            for name, values in behind.items():
                if name != "final_observations":
                    values[task, step, env] = getattr(beside, name)[task, t, episode]
    behind = Rollout(**behind)
    assert int(behind.episode_starts.sum()) == int(behind.episode_ends.sum()) == 12
    for surrogate in ("linear", "sigmoid"):
        a, b = (estimate(make_table, x, "kl_meta_task", surrogate) for x in (beside, behind))
        assert th.allclose(a, b, rtol=1e-12, atol=1e-14)
        assert float(a.norm()) > 0.01


@pytest.mark.parametrize("distance", ["kl_meta_task", "kl_task_meta"])
def test_the_whole_meta_gradient_converges_to_that_of_the_exact_algorithm(distance, make_table):
    """At the exact solution of the lower level; there the motions of ν in surrogate and distance cancel."""
    chain = make_chain(1.0)
    mdp = FiniteMDP(chain.transition, chain.reward, chain.initial, GAMMA)
    phi = tables()[0].requires_grad_()
    gradients = {}
    for whole in (True, False):
        adapted = adapt_exactly(mdp, phi, distance, 0.3, sampling_term=whole)
        value = (1 - GAMMA) * expected_return(mdp, adapted)
        gradients[whole] = th.autograd.grad(value, phi)[0]
    adapted = adapted.detach()

    actor = make_table(N_STATES, N_ACTIONS)
    rollout = simulate(chain, N_REPEATS, 1000, seed=7)
    nu, q, v = chain.solve(adapted)
    pairs = th.cartesian_prod(th.arange(N_STATES), th.arange(N_ACTIONS))
    states, actions = (column.expand(N_REPEATS, -1) for column in pairs.unbind(1))
    query = Batch(
        actor.preprocess(states),
        actions,
        adapted.log()[states, actions],
        (q - v[:, None])[states, actions],
        (nu[:, None] * adapted)[states, actions],
    )
    params = [{"action_net.weight": t.detach().T.expand(N_REPEATS, -1, -1)} for t in (phi, adapted.log())]
    lower = LowerLevel(
        actor, make_batch(rollout, actor, state_visitation(rollout, GAMMA), False), distance, "linear", 0.3
    )
    for mode, whole in (("implicit_sampling", True), ("implicit", False)):
        part_b = partial(sampling_term, lower, rollout, *params, GAMMA)
        result = bomrl_meta_gradient(lower, *params, query, mode, cg_max_steps=12, sampling_term=part_b)
        got = result.gradient["action_net.weight"].T
        assert cosine(got, gradients[whole]) > 0.99
        # 0.07 if the visitation of the distance were left out
        assert float((got - gradients[whole]).norm()) < 0.05 * float(gradients[whole].norm())
    assert cosine(gradients[True], gradients[False]) < 0.98
