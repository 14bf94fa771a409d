"""The exact lower level: optimality, hypergradients against finite differences and against the equations."""

import pytest
import torch as th
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sb3_bomrl.tabular import (
    FiniteMDP,
    adapt,
    adaptation_path,
    expected_return,
    lower_level_objective,
    policy_value,
    state_visitation,
)
from sb3_bomrl.tabular.distances import kl_divergence, state_distances

DISTANCES = ["kl_meta_task", "kl_task_meta", "parameter"]
KL_DISTANCES = DISTANCES[:2]


def random_logits(*shape: int, seed: int, spread: float = 1.0) -> th.Tensor:
    return spread * th.randn(*shape, generator=th.Generator().manual_seed(seed), dtype=th.float64)


@pytest.mark.parametrize("distance", KL_DISTANCES)
@pytest.mark.parametrize("reg_coef", [1e-4, 0.1, 1e4])
def test_no_policy_is_better_in_any_state_of_thousands_of_mdps(distance, reg_coef):
    n_tasks = 2000
    mdp = FiniteMDP.random(4, 3, 0.9, seed=0, n_tasks=n_tasks)
    meta_logits = random_logits(n_tasks, 4, 3, seed=1, spread=3.0)
    _, q_values = policy_value(mdp, meta_logits.softmax(-1))
    adapted = adaptation_path(mdp, meta_logits, distance, reg_coef)[-1]

    def per_state(logits: th.Tensor) -> th.Tensor:
        return reg_coef * state_distances(distance, meta_logits, logits) - (logits.softmax(-1) * q_values).sum(-1)

    best, slack = per_state(adapted), 1e-11 * (reg_coef + q_values.abs().amax(-1))
    for seed, scale in enumerate([1e-4, 1e-2, 0.3, 3.0]):
        noise = random_logits(n_tasks, 4, 3, seed=10 + seed)
        assert (per_state(adapted + scale * noise) >= best - slack).all()
        assert (per_state(meta_logits + scale * noise) >= best - slack).all()
        assert (per_state(3 * noise) >= best - slack).all()
    assert (per_state(meta_logits) >= best - slack).all()


@settings(max_examples=30, deadline=None)
@given(
    n_states=st.integers(1, 6),
    n_actions=st.integers(1, 4),
    gamma=st.floats(0.0, 0.97),
    reg_exponent=st.floats(-4.0, 4.0),
    spread=st.floats(0.0, 7.0),
    seed=st.integers(0, 10**6),
)
def test_parameter_distance_is_stationary_and_a_descent(n_states, n_actions, gamma, reg_exponent, spread, seed):
    """The gradient by automatic differentiation of F itself, Eq. (A2), not of the solver's own formula."""
    reg_coef = 10.0**reg_exponent
    mdp = FiniteMDP.random(n_states, n_actions, gamma, seed, n_tasks=8)
    meta_logits = random_logits(n_states, n_actions, seed=seed, spread=spread)
    logits = adaptation_path(mdp, meta_logits, "parameter", reg_coef)[-1].detach().requires_grad_(True)
    objective = lower_level_objective(mdp, meta_logits, logits, "parameter", reg_coef)
    (gradient,) = th.autograd.grad(objective.sum(), logits)
    assert gradient.norm(dim=(-1, -2)).max() <= 1e-8
    start = lower_level_objective(mdp, meta_logits, meta_logits, "parameter", reg_coef)
    assert (objective <= start + 1e-9 * (1 + start.abs())).all()


def test_parameter_distance_is_convex_above_proposition_3s_lambda():
    """The Hessian of a state's objective is positive definite everywhere if lambda > 3/4 nu span(Q)."""
    q_values = random_logits(4, seed=20)
    strength = 1 / (0.75 * (q_values.max() - q_values.min()))  # nu / lambda at the threshold
    smallest, below = [], []
    for seed in range(300):
        logits = random_logits(4, seed=seed, spread=3.0)
        second = th.autograd.functional.hessian(lambda z: (z.softmax(-1) * q_values).sum(), logits)
        smallest.append(th.linalg.eigvalsh(2 * th.eye(4) - strength * second)[0].item())
        below.append(th.linalg.eigvalsh(2 * th.eye(4) - 30 * strength * second)[0].item())
    assert min(smallest) > 0
    assert min(below) < 0  # and for a much smaller lambda it is not


@pytest.mark.parametrize("sampling_term", [True, False])
def test_parameter_distance_is_a_local_minimum(sampling_term):
    mdp = FiniteMDP.random(4, 3, 0.9, seed=2, n_tasks=300)
    meta_logits = random_logits(4, 3, seed=3)
    logits = adaptation_path(mdp, meta_logits, "parameter", 0.02, sampling_term=sampling_term)[-1]
    best = lower_level_objective(mdp, meta_logits, logits, "parameter", 0.02)
    for seed in range(20):
        near = logits + 1e-4 * random_logits(300, 4, 3, seed=seed)
        assert (lower_level_objective(mdp, meta_logits, near, "parameter", 0.02) > best).all()


@settings(max_examples=25, deadline=None)
@given(
    distance=st.sampled_from(DISTANCES),
    n_states=st.integers(2, 6),
    n_actions=st.integers(2, 4),
    gamma=st.floats(0.1, 0.97),
    reg_exponent=st.floats(-2.0, 2.0),
    n_adaptation_steps=st.integers(1, 2),
    seed=st.integers(0, 10**6),
)
def test_gradient_of_the_meta_objective(distance, n_states, n_actions, gamma, reg_exponent, n_adaptation_steps, seed):
    """Central differences in double precision of the whole map from meta-logits to the mean adapted return."""
    mdp = FiniteMDP.random(n_states, n_actions, gamma, seed, n_tasks=3)
    reg_coef = 10.0**reg_exponent
    meta_logits = random_logits(n_states, n_actions, seed=seed).requires_grad_(True)

    def meta_objective(logits: th.Tensor) -> th.Tensor:
        return expected_return(mdp, adapt(mdp, logits, distance, reg_coef, n_adaptation_steps)).mean()

    (gradient,) = th.autograd.grad(meta_objective(meta_logits), meta_logits)
    direction = random_logits(n_states, n_actions, seed=seed + 1)
    direction = direction / direction.norm()
    # The curvature grows like 1 / lambda, so does the error of a central difference of one step size.
    step = 1e-5 * min(1.0, reg_coef)
    if distance == "parameter":
        path = adaptation_path(mdp, meta_logits.detach(), distance, reg_coef, n_adaptation_steps)
        ahead = adaptation_path(mdp, meta_logits.detach() + step * direction, distance, reg_coef, n_adaptation_steps)
        # where the local minimum is about to vanish, the map jumps, and has no derivative
        assume((ahead[-1] - path[-1]).norm() <= 1e-2)
    with th.no_grad():
        difference = meta_objective(meta_logits + step * direction) - meta_objective(meta_logits - step * direction)
    numeric, exact = difference / (2 * step), (gradient * direction).sum()
    assert abs(numeric - exact) <= 1e-4 * max(1.0, exact.abs().item())


@settings(max_examples=12, deadline=None)
@given(
    distance=st.sampled_from(KL_DISTANCES),
    n_states=st.integers(2, 6),
    n_actions=st.integers(2, 4),
    gamma=st.floats(0.1, 0.97),
    reg_exponent=st.floats(-2.0, 2.0),
    seed=st.integers(0, 10**6),
)
def test_gradcheck_of_the_meta_objective(distance, n_states, n_actions, gamma, reg_exponent, seed):
    """Every entry of the gradient, Alg(1) and Alg(2), by torch's own check."""
    mdp, reg_coef = FiniteMDP.random(n_states, n_actions, gamma, seed, n_tasks=2), 10.0**reg_exponent
    meta_logits = random_logits(n_states, n_actions, seed=seed).requires_grad_(True)

    def meta_objective(logits: th.Tensor) -> th.Tensor:
        return expected_return(mdp, adapt(mdp, logits, distance, reg_coef)).mean()

    step = 1e-6 * min(1.0, reg_coef)  # the third derivative grows like 1 / lambda^3
    assert th.autograd.gradcheck(meta_objective, (meta_logits,), eps=step, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("reg_coef", [0.05, 1.0, 100.0])
def test_gradcheck(distance, reg_coef):
    mdp = FiniteMDP.random(4, 3, 0.8, seed=4, n_tasks=2)
    meta_logits = random_logits(4, 3, seed=5).requires_grad_(True)
    assert th.autograd.gradcheck(lambda z: adapt(mdp, z, distance, reg_coef), (meta_logits,), atol=1e-6, rtol=1e-4)


def implicit_hypergradient(
    mdp: FiniteMDP, meta_logits: th.Tensor, distance: str, reg_coef: float
) -> dict[str, th.Tensor]:
    """Eq. (A3) to (A5) with dense matrices from automatic differentiation of F, for one task."""
    shape = meta_logits.shape
    adapted = adaptation_path(mdp, meta_logits, distance, reg_coef)[-1].detach()
    (cotangent,) = th.autograd.grad(expected_return(mdp, adapted.requires_grad_(True).softmax(-1)), adapted)

    def objective(theta: th.Tensor, phi: th.Tensor, data_phi: th.Tensor) -> th.Tensor:
        """F with the meta-policy of the distance and that of the data (values, visitation) told apart."""
        policy = data_phi.view(shape).softmax(-1)
        visitation = state_visitation(mdp, policy)
        gain = (visitation * (theta.view(shape).softmax(-1) * policy_value(mdp, policy)[1]).sum(-1)).sum()
        per_state = state_distances(distance, phi.view(shape), theta.view(shape))
        total = per_state.sum() if distance == "parameter" else (visitation * per_state).sum()
        return total - gain / reg_coef

    theta, phi = adapted.detach().flatten(), meta_logits.detach().flatten()
    functional = th.autograd.functional
    hessian = functional.hessian(lambda t: objective(t, phi, phi), theta)
    x = th.linalg.pinv(hessian, hermitian=True, rtol=1e-10) @ cotangent.flatten()

    def slope(phi: th.Tensor, data_phi: th.Tensor) -> th.Tensor:
        """<grad_theta F, x> at theta'."""
        variable = theta.clone().requires_grad_(True)
        (gradient,) = th.autograd.grad(objective(variable, phi, data_phi), variable, create_graph=True)
        return (gradient * x).sum()

    distance_term, sampling_term = (-part for part in functional.jacobian(slope, (phi, phi.clone())))
    return {"distance": distance_term.view(shape), "both": (distance_term + sampling_term).view(shape)}


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("sampling_term", [True, False])
def test_hypergradient_is_equation_a3(distance, sampling_term):
    mdp = FiniteMDP.random(4, 3, 0.8, seed=6)
    meta_logits = random_logits(4, 3, seed=7).requires_grad_(True)
    adapted_return = expected_return(mdp, adapt(mdp, meta_logits, distance, 0.5, sampling_term=sampling_term))
    (gradient,) = th.autograd.grad(adapted_return, meta_logits)
    reference = implicit_hypergradient(mdp, meta_logits.detach(), distance, 0.5)
    th.testing.assert_close(gradient, reference["both" if sampling_term else "distance"], rtol=0, atol=1e-9)
    assert (reference["both"] - reference["distance"]).abs().max() > 1e-3  # so that the two cases differ


@pytest.mark.parametrize("distance", DISTANCES)
def test_a_batch_of_tasks_is_each_task_alone(distance):
    mdps = FiniteMDP.random(5, 3, 0.9, seed=8, n_tasks=4)
    meta_logits = random_logits(5, 3, seed=9)
    batch = adapt(mdps, meta_logits, distance, 0.1, n_adaptation_steps=2)
    for index in range(4):
        alone = adapt(mdps[index], meta_logits, distance, 0.1, n_adaptation_steps=2)
        th.testing.assert_close(batch[index], alone, rtol=0, atol=1e-11)


@pytest.mark.parametrize("distance", KL_DISTANCES)
@pytest.mark.parametrize("reg_coef", [1e-4, 1.0, 1e4])
def test_near_deterministic_meta_policies_ties_and_unreachable_states(distance, reg_coef):
    """Probabilities of 1e-12, equal actions, a state that nothing leads to: finite, and still the minimiser."""
    transition = th.zeros(3, 3, 3, dtype=th.float64)
    transition[:, :, 0] = 1.0  # states 1 and 2 are never reached
    reward = th.tensor([[0.0, 1.0, 1.0], [0.0, 0.0, 0.0], [-1.0, 0.0, 2.0]], dtype=th.float64)
    mdp = FiniteMDP(transition, reward, th.tensor([1.0, 0.0, 0.0]).double(), 0.9)
    meta_policy = th.tensor([1.0 - 2e-12, 1e-12, 1e-12], dtype=th.float64).expand(3, 3)
    meta_logits = meta_policy.log().clone().requires_grad_(True)
    policy = adapt(mdp, meta_logits, distance, reg_coef)
    (gradient,) = th.autograd.grad(expected_return(mdp, policy), meta_logits)
    assert policy.isfinite().all()
    assert gradient.isfinite().all()
    th.testing.assert_close(policy[0, 1], policy[0, 2], rtol=1e-12, atol=0)  # equal actions stay equal
    th.testing.assert_close(policy[1], meta_policy[1], rtol=1e-9, atol=0)  # nothing to gain, nothing changes
    q_values = policy_value(mdp, meta_policy)[1]
    log_policy = adaptation_path(mdp, meta_logits.detach(), distance, reg_coef)[-1]
    if distance == "kl_meta_task":
        multipliers = meta_policy / log_policy.exp() + q_values / reg_coef
    else:
        multipliers = log_policy - meta_policy.log() - q_values / reg_coef
    spread = multipliers.amax(-1) - multipliers.amin(-1)
    assert (spread <= 1e-10 * (1 + q_values.abs().amax(-1) / reg_coef)).all()


@pytest.mark.parametrize("reg_coef", [1e-4, 1.0, 1e4])
def test_parameter_distance_at_the_edges(reg_coef):
    """Meta-probabilities of 1e-12, equal actions, unreachable states, extreme weights: finite and stationary."""
    transition = th.zeros(3, 3, 3, dtype=th.float64)
    transition[:, :, 0] = 1.0
    reward = th.tensor([[0.0, 1.0, 1.0], [0.0, 0.0, 0.0], [-1.0, 0.0, 2.0]], dtype=th.float64)
    mdp = FiniteMDP(transition, reward, th.tensor([1.0, 0.0, 0.0]).double(), 0.9)
    meta_logits = th.tensor([1.0 - 2e-12, 1e-12, 1e-12], dtype=th.float64).log().expand(3, 3).clone()
    meta_logits.requires_grad_(True)
    logits = adaptation_path(mdp, meta_logits, "parameter", reg_coef)[-1]
    (slope,) = th.autograd.grad(expected_return(mdp, logits.softmax(-1)), meta_logits)
    assert slope.isfinite().all()
    leaf = logits.detach().requires_grad_(True)
    objective = lower_level_objective(mdp, meta_logits.detach(), leaf, "parameter", reg_coef)
    (gradient,) = th.autograd.grad(objective, leaf)
    assert gradient.norm() <= 1e-8
    assert leaf[0, 1] == leaf[0, 2]
    assert th.equal(leaf[1:].detach(), meta_logits[1:].detach())


def test_unreachable_states_do_not_move_under_the_parameter_distance():
    """Their visitation is 0, so that only the distance counts there."""
    transition = th.zeros(2, 2, 2, dtype=th.float64)
    transition[:, :, 0] = 1.0
    mdp = FiniteMDP(transition, th.tensor([[0.0, 1.0], [0.0, 1.0]]).double(), th.tensor([1.0, 0.0]).double(), 0.9)
    meta_logits = random_logits(2, 2, seed=11)
    logits = adaptation_path(mdp, meta_logits, "parameter", 0.01)[-1]
    assert th.equal(logits[1], meta_logits[1])
    assert (logits[0] - meta_logits[0]).abs().max() > 0.1


def test_several_adaptations_are_one_after_the_other():
    mdp = FiniteMDP.random(4, 3, 0.9, seed=12, n_tasks=2)
    meta_logits = random_logits(4, 3, seed=13)
    for distance in DISTANCES:
        twice = adapt(mdp, adaptation_path(mdp, meta_logits, distance, 0.3)[-1], distance, 0.3)
        th.testing.assert_close(adapt(mdp, meta_logits, distance, 0.3, 2), twice, rtol=0, atol=1e-11)
        zero = adapt(mdp, meta_logits, distance, 0.3, n_adaptation_steps=0)
        th.testing.assert_close(zero, meta_logits.softmax(-1).expand(2, -1, -1), rtol=0, atol=1e-15)


def test_kl_divergence_with_absent_actions():
    certain, even = th.tensor([1.0, 0.0]).log(), th.tensor([0.5, 0.5]).log()
    assert kl_divergence(certain, even).item() == pytest.approx(0.6931472, abs=1e-6)
    assert kl_divergence(even, certain).item() == float("inf")
    assert kl_divergence(certain, certain).item() == 0.0


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"distance": "euclid"}, "distance must be one of"),
        ({"reg_coef": 0.0}, "reg_coef must be a finite number above 0, got 0.0"),
        ({"n_adaptation_steps": -1}, "n_adaptation_steps must be at least 0"),
    ],
)
def test_bad_arguments_are_named(kwargs, message):
    arguments = {"distance": "kl_meta_task", "reg_coef": 1.0} | kwargs
    with pytest.raises(ValueError, match=message):
        adapt(FiniteMDP.random(2, 2, 0.5, 0), th.zeros(2, 2, dtype=th.float64), **arguments)
