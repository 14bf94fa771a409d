"""The core's hypergradient of a softmax table is the exact tabular one when transitions are weighted exactly."""

import itertools

import pytest
import torch as th
from torch.distributions import Categorical

from sb3_bomrl.core.distances import policy_distance
from sb3_bomrl.core.hypergradient import implicit_hypergradient, score_function_sampling_term
from sb3_bomrl.core.linear_solve import conjugate_gradient
from sb3_bomrl.core.surrogates import linear
from sb3_bomrl.tabular import (
    FiniteMDP,
    adapt,
    adaptation_path,
    expected_return,
    policy_value,
    random_logits,
)
from sb3_bomrl.types import Params

DISTANCES = ["kl_meta_task", "kl_task_meta", "parameter"]
REG_COEF = 0.7


def deterministic_mdps() -> FiniteMDP:
    """Three tasks with two states and two actions; gamma is so small that eight steps are a whole episode."""
    next_states = th.tensor([[[0, 1], [0, 1]], [[1, 0], [1, 0]], [[1, 1], [0, 1]]])
    transition = th.nn.functional.one_hot(next_states, 2).double()
    reward = th.tensor([[[1.0, 0.0], [0.5, 2.0]], [[0.0, 3.0], [1.0, 0.0]], [[2.0, 1.0], [0.0, 0.5]]])
    return FiniteMDP(transition, reward, th.tensor([0.3, 0.7]).expand(3, 2), 0.05)


def all_trajectories(mdp: FiniteMDP, policy: th.Tensor, n_steps: int) -> tuple[th.Tensor, th.Tensor, th.Tensor]:
    """States and actions, (n_tasks, n_steps, n_trajectories), and the probability of each trajectory."""
    plans = th.tensor(list(itertools.product(range(2), repeat=n_steps + 1)))
    actions = plans[:, 1:].T.expand(3, -1, -1)
    state, states = plans[:, 0].expand(3, -1), []
    probability = mdp.initial.gather(1, state)
    tasks = th.arange(3).unsqueeze(1)
    for t in range(n_steps):
        states.append(state)
        probability = probability * policy[tasks, state, actions[:, t]]
        state = mdp.transition[tasks, state, actions[:, t]].argmax(-1)
    return th.stack(states, 1), actions, probability


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("with_sampling_term", [False, True])
def test_core_hypergradient_is_the_tabular_one(distance, with_sampling_term):
    mdp, n_steps = deterministic_mdps(), 8
    phi = random_logits(2, 2, seed=0).expand(3, 2, 2).contiguous()
    theta = adaptation_path(mdp, phi, distance, REG_COEF)[-1].detach()
    leaf = theta.clone().requires_grad_(True)
    (slope,) = th.autograd.grad(expected_return(mdp, leaf.softmax(-1)).sum(), leaf)

    values, q_values = policy_value(mdp, phi.softmax(-1))
    states, actions, probability = all_trajectories(mdp, phi.softmax(-1), n_steps)
    tasks = th.arange(3).view(3, 1, 1)
    advantages = (q_values - values.unsqueeze(-1))[tasks, states, actions]
    discount = (1 - mdp.gamma) * mdp.gamma ** th.arange(n_steps, dtype=th.float64).view(1, -1, 1)
    weights = discount * probability.unsqueeze(1)
    assert (weights.sum((1, 2)) - 1).abs().max() < 1e-9

    def log_prob(params: Params) -> th.Tensor:
        return params["logits"].log_softmax(-1)[tasks, states, actions]

    behaviour = log_prob({"logits": phi})

    def inner_loss(task_params: Params, meta_params: Params) -> th.Tensor:
        gain = (weights * linear((log_prob(task_params) - behaviour).exp(), advantages) * advantages).sum((1, 2))
        policies = [
            Categorical(logits=params["logits"][tasks, states].flatten(1, 2)) for params in (meta_params, task_params)
        ]
        return policy_distance(distance, meta_params, task_params, *policies, weights.flatten(1)) - gain / REG_COEF

    def state_distance(task_params: Params) -> th.Tensor:
        meta, task = (Categorical(logits=logits[tasks, states]) for logits in (phi, task_params["logits"]))
        return th.distributions.kl_divergence(*((meta, task) if distance == "kl_meta_task" else (task, meta)))

    ends, starts = th.zeros_like(states, dtype=th.bool), th.zeros_like(states, dtype=th.bool)
    starts[:, 0], ends[:, -1] = True, True

    def sampling_term(direction: Params) -> Params:
        return score_function_sampling_term(
            log_prob,
            {"logits": theta},
            {"logits": phi},
            direction,
            linear,
            advantages,
            weights,
            starts,
            ends,
            mdp.gamma,
            REG_COEF,
            None if distance == "parameter" else state_distance,
        )

    hypergradient, _ = implicit_hypergradient(
        inner_loss,
        {"logits": theta},
        {"logits": phi},
        {"logits": slope},
        lambda matvec, b: conjugate_gradient(matvec, b, 30, 0.0, tolerance=1e-14),
        sampling_term if with_sampling_term else None,
    )

    logits = phi.clone().requires_grad_(True)
    policy = adapt(mdp, logits, distance, REG_COEF, sampling_term=with_sampling_term)
    (exact,) = th.autograd.grad(expected_return(mdp, policy).sum(), logits)
    th.testing.assert_close(hypergradient["logits"], exact, rtol=0, atol=1e-8)
    (other,) = th.autograd.grad(
        expected_return(mdp, adapt(mdp, logits, distance, REG_COEF, sampling_term=not with_sampling_term)).sum(), logits
    )
    assert (exact - other).abs().max() > 1e-3  # far above the tolerance: the sampling term is seen
