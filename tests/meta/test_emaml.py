"""E-MAML's gradient in an MDP so small that all data sets that can be sampled are enumerated."""

from typing import NamedTuple

import numpy as np
import pytest
import torch as th

from sb3_bomrl.meta.gradients import emaml_meta_gradient, maml_meta_gradient
from sb3_bomrl.meta.policy_gradient import StepSize, gradient_path
from sb3_bomrl.types import Batch

INNER_LR, TABLE = 4.0, "action_net.weight"
_RNG = np.random.default_rng(5)
TRANSITION = th.as_tensor(_RNG.dirichlet([1.0, 1.0], size=(2, 2)))  # P(s'∣s, a): two states, two actions
REWARD = th.as_tensor(_RNG.normal(size=(2, 2)))
PHI = th.as_tensor(0.5 * _RNG.normal(size=(2, 2)))
# episodes start in state 0 and last two steps: (a_0, s_1, a_1)
EPISODES = th.cartesian_prod(th.arange(2), th.arange(2), th.arange(2))


class Data(NamedTuple):
    """Data sets, (n, n_samples) each: the steps of one or more episodes one after another."""

    states: th.Tensor
    actions: th.Tensor
    advantages: th.Tensor
    dynamics: th.Tensor  # (n,) what the transitions contribute to the probability


def data_sets(episodes: th.Tensor) -> Data:
    """``episodes`` is (n, n_episodes), numbers of episodes; advantages are returns to go, centred per data set."""
    a0, s1, a1 = EPISODES[episodes].unbind(-1)
    s0 = th.zeros_like(s1)
    late, early = REWARD[s1, a1], REWARD[s0, a0]
    states, actions, to_go = (th.stack(pair, -1).flatten(1) for pair in ((s0, s1), (a0, a1), (early + late, late)))
    return Data(states, actions, to_go - to_go.mean(1, keepdim=True), TRANSITION[s0, a0, s1].prod(1))


def probability(data: Data, logits: th.Tensor) -> th.Tensor:
    """Of each data set under its own policy, (n, 2, 2) logits -> (n,)."""
    rows = th.arange(len(logits))[:, None]
    return data.dynamics * logits.log_softmax(-1)[rows, data.states, data.actions].sum(1).exp()


def inner_step(data: Data, logits: th.Tensor) -> th.Tensor:
    """θ + α (1/n) Σ_t A_t ∇log π(a_t∣s_t), written out for a table: ∇log π(a∣s) = e_{s,a} − e_s π(·∣s)."""
    one_hot = th.nn.functional.one_hot
    at_state = one_hot(data.states, 2).double()
    scores = one_hot(data.actions, 2).double() - logits.softmax(-1)[th.arange(len(logits))[:, None], data.states]
    step = th.einsum("nk,nks,nka->nsa", data.advantages, at_state, scores) / data.states.shape[1]
    return logits + INNER_LR * step


def returns(logits: th.Tensor) -> th.Tensor:
    """J of two-step episodes, exactly."""
    policy = logits.softmax(-1)
    last = (policy * REWARD).sum(-1)
    return (policy[:, 0] * (REWARD[0] + last @ TRANSITION[0].T)).sum(-1)


ONE_STEP = [data_sets(th.cartesian_prod(th.arange(8), th.arange(8)))]  # two episodes
_FIRST, _SECOND = th.cartesian_prod(th.arange(8), th.arange(8)).unbind(1)
TWO_STEPS = [data_sets(_FIRST[:, None]), data_sets(_SECOND[:, None])]  # one episode for each of two inner steps


def chain(collections: list[Data], phi: th.Tensor) -> tuple[th.Tensor, list[th.Tensor]]:
    """Probability of all that was sampled, and the policies on the way."""
    path, total = [phi.expand(len(collections[0].states), 2, 2)], 1.0
    for data in collections:
        total = total * probability(data, path[-1])
        path.append(inner_step(data, path[-1]))
    return total, path


def exact_gradient(collections: list[Data]) -> th.Tensor:
    """∇_φ Σ_D P(D; φ) J(θ_K(φ, D))."""
    phi = PHI.clone().requires_grad_()
    weight, path = chain(collections, phi)
    assert float(weight.detach().sum()) == pytest.approx(1.0)
    return th.autograd.grad((weight * returns(path[-1])).sum(), phi)[0]


def batches(actor, collections: list[Data], path: list[th.Tensor]) -> tuple[list[Batch], list[Batch]]:
    supports = []
    for data, logits in zip(collections, path, strict=False):
        log_probs = logits.log_softmax(-1)[th.arange(len(logits))[:, None], data.states, data.actions]
        weights = th.full_like(log_probs, 1 / log_probs.shape[1])
        observations = actor.preprocess(data.states)
        supports.append(Batch(observations, data.actions, log_probs, data.advantages, weights))
    return supports, [batch._replace(weights=th.ones_like(batch.weights)) for batch in supports]


def query_batch(actor, logits: th.Tensor, scale: th.Tensor) -> Batch:
    """Every step, state and action once, so that the policy gradient is ``scale`` · ∇J exactly."""
    n, policy = len(logits), logits.softmax(-1)
    last = (policy * REWARD).sum(-1)
    first = REWARD[0] + last @ TRANSITION[0].T
    reached = th.einsum("na,as->ns", policy[:, 0], TRANSITION[0])
    states, actions = th.tensor([0, 0, 0, 0, 1, 1]).expand(n, 6), th.tensor([0, 1] * 3).expand(n, 6)
    weights = th.cat([policy[:, 0], (reached[..., None] * policy).flatten(1)], 1)
    values = th.cat([first, REWARD.expand(n, 2, 2).flatten(1)], 1)
    log_probs = policy.log()[th.arange(n)[:, None], states, actions]
    return Batch(actor.preprocess(states), actions, log_probs, scale[:, None] * values, weights)


def estimate(
    make_table, collections: list[Data], scale: th.Tensor, credit: th.Tensor | None, credit_coef: float = 1.0
) -> th.Tensor:
    """By the package: mean over the data sets of ``scale`` times each one's gradient; without credit MAML's."""
    actor = make_table(2, 2)
    path = [x.detach() for x in chain(collections, PHI)[1]]
    supports, steps = batches(actor, collections, path)
    phi, adapted = ({TABLE: x.mT} for x in (path[0], path[-1]))
    got = gradient_path(actor, supports, {TABLE: phi[TABLE].clone().requires_grad_()}, StepSize(INNER_LR), "log")[-1]
    th.testing.assert_close(got[TABLE].detach(), adapted[TABLE])
    query = query_batch(actor, path[-1], scale)
    if credit is None:
        return maml_meta_gradient(actor, supports, phi, adapted, query, StepSize(INNER_LR)).gradient[TABLE].T
    credit = scale * credit
    result = emaml_meta_gradient(actor, supports, steps, phi, adapted, query, credit, credit_coef, StepSize(INNER_LR))
    return result.gradient[TABLE].T


def cosine(a: th.Tensor, b: th.Tensor) -> float:
    return float((a * b).sum() / (a.norm() * b.norm()))


@pytest.mark.parametrize("collections", [ONE_STEP, TWO_STEPS], ids=["one step", "two steps"])
def test_the_expectation_over_all_data_is_the_exact_gradient(make_table, collections):
    expected = exact_gradient(collections)
    weight, path = chain(collections, PHI)
    scale, credit = len(weight) * weight, returns(path[-1])
    th.testing.assert_close(estimate(make_table, collections, scale, credit), expected, rtol=1e-9, atol=1e-12)
    # any baseline that is the same for all data sets leaves it as it is
    th.testing.assert_close(estimate(make_table, collections, scale, credit - 3.0), expected, rtol=1e-9, atol=1e-12)
    # and without the credit it is another
    without = estimate(make_table, collections, scale, None)
    assert float((without - expected).norm()) > 0.05 * float(expected.norm())


@pytest.mark.parametrize("credit_coef", [0.3, 2.5e-4])
def test_less_credit_is_as_much_less_of_what_mamls_gradient_lacks(make_table, credit_coef):
    exact = exact_gradient(ONE_STEP)
    weight, path = chain(ONE_STEP, PHI)
    scale, credit = len(weight) * weight, returns(path[-1])
    maml = estimate(make_table, ONE_STEP, scale, None)
    expected = maml + credit_coef * (exact - maml)
    th.testing.assert_close(estimate(make_table, ONE_STEP, scale, credit, credit_coef), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("collections", [ONE_STEP, TWO_STEPS], ids=["one step", "two steps"])
def test_samples_converge_to_it_like_one_over_the_root_of_their_number(make_table, collections):
    expected, (weight, path) = exact_gradient(collections), chain(collections, PHI)
    generator, errors, sizes, n_repeats = th.Generator().manual_seed(0), [], (100, 400, 1600, 6400), 8
    for size in sizes:
        squares = []
        for _ in range(n_repeats):
            chosen = th.multinomial(weight, size, replacement=True, generator=generator)
            credit = returns(path[-1])[chosen]
            credit = credit - (credit.sum() - credit) / (size - 1)
            sampled = [Data(*(x[chosen] for x in data)) for data in collections]
            got = estimate(make_table, sampled, th.ones(size).double(), credit)
            squares.append(float((got - expected).square().sum()))
        errors.append(np.mean(squares) ** 0.5)
    assert cosine(got, expected) > 0.99
    assert np.polyfit(np.log(sizes), np.log(errors), 1)[0] == pytest.approx(-0.5, abs=0.12)
