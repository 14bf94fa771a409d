"""MAML's gradient where steps are shortened, against steps written out and central differences."""

import pytest
import torch as th
from torch.distributions import kl_divergence

from sb3_bomrl.meta.gradients import emaml_meta_gradient, maml_meta_gradient, promp_meta_gradient
from sb3_bomrl.meta.policy_gradient import StepSize, query_surrogate

N_TASKS, SIZE = 3, StepSize(4.0, decay=0.3, max_kl=0.05)


def step_of_task(actor, params, support, alpha):
    """θ + 2⁻ⁿ α ∇J for one task, with n found by trying; parameters keep their task axis of length one."""
    leaves = {name: value.detach().requires_grad_() for name, value in params.items()}
    policy = actor(leaves, support.observations)
    ratio = (policy.log_prob(support.actions) - support.log_probs).exp()
    slopes = th.autograd.grad((support.weights * support.advantages * ratio).sum(), list(leaves.values()))
    for n in range(20):
        new = {name: leaf.detach() + alpha / 2**n * g for (name, leaf), g in zip(leaves.items(), slopes, strict=True)}
        with th.no_grad():
            kl = (support.weights * kl_divergence(policy, actor(new, support.observations))).sum()
        if kl <= SIZE.max_kl:
            return new, n
    raise AssertionError("no step is short enough")


def task(tree, i):
    return (
        type(tree)(*(x[i : i + 1] for x in tree))
        if isinstance(tree, tuple)
        else {k: v[i : i + 1] for k, v in tree.items()}
    )


def adapted(actor, phi, supports):
    """θ_K of all tasks, each by itself, and how often each step of each task was halved."""
    ends, counts = [], []
    for i in range(N_TASKS):
        params, halvings = task(phi, i), []
        for number, support in enumerate(supports):
            params, n = step_of_task(actor, params, task(support, i), SIZE.first * (SIZE.decay if number else 1.0))
            halvings.append(n)
        ends.append(params)
        counts.append(halvings)
    return {name: th.cat([end[name] for end in ends]) for name in phi}, counts


@pytest.fixture(params=["gaussian", "categorical"])
def problem(request, make_actor, draw_params, draw_batch):
    actor = make_actor(request.param)
    phi, supports, path = draw_params(actor, N_TASKS, 1, 1.0), [], []
    path.append(phi)
    for number in (0, 1):
        supports.append(draw_batch(actor, path[-1], 40, 10 + number))
        path.append(adapted(actor, phi, supports)[0])
    counts = adapted(actor, phi, supports)[1]
    assert len({n for halvings in counts for n in halvings}) > 1
    return actor, phi, supports, path, draw_batch(actor, path[-1], 30, 4), draw_params(actor, 1, 9)


def slope_of(function, direction, phi, eps=1e-6):
    ends = [{k: v + s * eps * direction[k] for k, v in phi.items()} for s in (1, -1)]
    return float((function(ends[0]) - function(ends[1])) / (2 * eps))


def along(gradient, direction):
    return float(sum((value * direction[name][0]).sum() for name, value in gradient.items()))


def test_mamls_gradient_is_the_central_difference_through_shortened_steps(problem):
    actor, phi, supports, path, query, direction = problem
    got = maml_meta_gradient(actor, supports, phi, path[-1], query, SIZE).gradient
    expected = slope_of(lambda x: query_surrogate(actor, query, adapted(actor, x, supports)[0]).mean(), direction, phi)
    assert along(got, direction) == pytest.approx(expected, rel=1e-6)
    free = maml_meta_gradient(actor, supports, phi, path[-1], query, StepSize(SIZE.first)).gradient
    assert along(free, direction) != pytest.approx(expected, rel=1e-2)


def test_without_credit_and_penalty_the_others_take_the_same_steps(problem):
    actor, phi, supports, path, query, _ = problem
    maml = maml_meta_gradient(actor, supports, phi, path[-1], query, SIZE).gradient
    zero = th.zeros(N_TASKS, dtype=th.double)
    emaml = emaml_meta_gradient(actor, supports, supports, phi, path[-1], query, zero, 0.0, SIZE).gradient
    promp, kl = promp_meta_gradient(actor, supports, path[:-1], phi, query, SIZE, 0.2, th.zeros(2))
    for name, value in maml.items():
        th.testing.assert_close(emaml[name], value)
        th.testing.assert_close(promp.gradient[name], value)
    assert float(kl.abs().max()) < 1e-12
