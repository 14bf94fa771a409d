"""The sampled lower level of a softmax table, solved exactly."""

import pytest
import torch as th
from gymnasium import spaces

from sb3_bomrl.core.inner_solvers import InnerSolver, InnerStatus
from sb3_bomrl.core.params import stack
from sb3_bomrl.meta.closed_form import check_closed_form, closed_form_adaptation
from sb3_bomrl.meta.lower_level import LowerLevel, adapt
from sb3_bomrl.policies import TabularPolicy
from sb3_bomrl.policies.actor import Actor
from sb3_bomrl.types import Batch

N_TASKS, N_STATES, N_ACTIONS, N_SAMPLES = 3, 6, 3, 400


def make_lower(distance, reg_coef, seed=0, behaviour_shift=0.0):
    th.manual_seed(seed)
    policy = TabularPolicy(spaces.Discrete(N_STATES), spaces.Discrete(N_ACTIONS), lambda _: 1e-3).double()
    actor = Actor(policy)
    phi = stack(actor.params(), N_TASKS)
    phi["action_net.weight"] = th.randn_like(phi["action_net.weight"])
    # the last state is never visited
    states = th.randint(N_STATES - 1, (N_TASKS, N_SAMPLES))
    observations = actor.preprocess(states)
    behaviour = {k: v + behaviour_shift * th.randn_like(v) for k, v in phi.items()}
    actions = actor(behaviour, observations).sample()
    weights = th.rand(N_TASKS, N_SAMPLES, dtype=th.double)
    weights /= weights.sum(1, keepdim=True)
    advantages = th.randn(N_TASKS, N_SAMPLES, dtype=th.double)
    batch = Batch(observations, actions, actor(behaviour, observations).log_prob(actions), advantages, weights)
    return LowerLevel(actor, batch, distance, "linear", reg_coef), phi


@pytest.mark.parametrize("distance", ["kl_meta_task", "kl_task_meta"])
@pytest.mark.parametrize("behaviour_shift", [0.0, 0.4])  # the line search solves for another φ than the one that acted
@pytest.mark.parametrize("reg_coef", [0.05, 0.5, 5.0])
def test_is_a_stationary_point_that_no_neighbour_beats(distance, reg_coef, behaviour_shift):
    lower, phi = make_lower(distance, reg_coef, behaviour_shift=behaviour_shift)
    solved = closed_form_adaptation(lower, phi)
    assert (solved.gradient_norm < 1e-9).all()
    meta_policy = lower.policy(phi)
    for seed in range(20):
        th.manual_seed(seed)
        for scale in (1e-3, 0.1, 1.0):
            other = {k: v + scale * th.randn_like(v) for k, v in solved.params.items()}
            assert (lower.value(other, phi, meta_policy).objective >= solved.objective - 1e-12).all()


@pytest.mark.parametrize("distance", ["kl_meta_task", "kl_task_meta"])
def test_gradient_descent_finds_the_same_policy(distance):
    lower, phi = make_lower(distance, 1.0)
    solved = closed_form_adaptation(lower, phi)
    descended = adapt(lower, phi, InnerSolver("adam", 0.02, 3000, max_kl=1e3, gradient_tolerance=1e-10))
    th.testing.assert_close(descended.objective, solved.objective, rtol=0, atol=1e-8)
    probs = [p["action_net.weight"].softmax(1)[..., : N_STATES - 1] for p in (solved.params, descended.params)]
    th.testing.assert_close(probs[0], probs[1], rtol=0, atol=1e-4)


@pytest.mark.parametrize("distance", ["kl_meta_task", "kl_task_meta"])
def test_states_not_visited_keep_the_meta_policy(distance):
    lower, phi = make_lower(distance, 0.2)
    solved = closed_form_adaptation(lower, phi)
    before, after = (p["action_net.weight"].softmax(1) for p in (phi, solved.params))
    th.testing.assert_close(after[..., -1], before[..., -1])
    assert not th.allclose(after[..., :-1], before[..., :-1])
    assert (solved.status == InnerStatus.GRADIENT_TOLERANCE).all()


def test_says_what_it_needs():
    policy = TabularPolicy(spaces.Discrete(2), spaces.Discrete(2), lambda _: 1e-3)
    with pytest.raises(ValueError, match="needs policy='TabularPolicy', got int"):
        check_closed_form(3, "kl_meta_task", "linear")
    with pytest.raises(ValueError, match="needs a KL distance, got distance='parameter'"):
        check_closed_form(policy, "parameter", "linear")
    with pytest.raises(ValueError, match="needs surrogate='linear', got 'clip'"):
        check_closed_form(policy, "kl_task_meta", "clip")
