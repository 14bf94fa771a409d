"""What a meta-iteration does to the meta-policy, written out from the data that it collected, task by task."""

from types import SimpleNamespace

import pytest
import torch as th

from sb3_bomrl import BOMRL, EMAML, MAML, ProMP, Reptile

W, B, OUT, OUT_B, LOG_STD = (
    *("mlp_extractor.policy_net.0.weight", "mlp_extractor.policy_net.0.bias"),
    *("action_net.weight", "action_net.bias", "log_std"),
)
INNER_LR = 0.4


class Task:
    """One task's steps of a rollout, with advantages centred and scaled to one."""

    def __init__(self, rollout, index):
        self.observations = rollout.observations[index].flatten(0, 1).double()
        self.actions = rollout.actions[index].flatten(0, 1).double()
        raw = rollout.advantages[index].flatten().double()
        self.centred = raw - raw.mean()
        self.advantages = self.centred / (self.centred.square().mean().sqrt() + 1e-8)
        self.mean_reward = rollout.rewards[index].double().mean()

    def policy(self, params):
        hidden = th.tanh(self.observations @ params[W].T + params[B])
        return th.distributions.Normal(hidden @ params[OUT].T + params[OUT_B], params[LOG_STD].exp())

    def log_prob(self, params):
        return self.policy(params).log_prob(self.actions).sum(-1)

    def step(self, params, credit_weight=0.0):
        """θ + α ∇ (1/n) Σ_t h(r_t) A_t, differentiable."""
        log_prob = self.log_prob(params)
        log_ratio = log_prob - log_prob.detach()
        h = (1.0 - credit_weight) * log_ratio.exp() + credit_weight * (1.0 + log_ratio)
        return self._moved(params, (h * self.advantages).mean())

    def ascended(self, params, sampled_with):
        """θ + α ∇ (1/n) Σ_t r_t A_t, the data having been sampled with another policy."""
        ratio = (self.log_prob(params) - self.log_prob(sampled_with).detach()).exp()
        return self._moved(params, (ratio * self.advantages).mean())

    def _moved(self, params, gain):
        slopes = th.autograd.grad(gain, list(params.values()), create_graph=True)
        return {name: value + INNER_LR * slope for (name, value), slope in zip(params.items(), slopes, strict=True)}


def leaves_of(params):
    return {name: value.detach().clone().requires_grad_() for name, value in params.items()}


def one_iteration(tiny, cls, **kwargs):
    """φ before and after one meta-iteration in double precision, and what happened in it."""
    unprotected = {} if cls in (BOMRL, Reptile) else {"inner_lr_decay": 1.0, "inner_max_kl": float("inf")}
    model = tiny.model(cls=cls, inner_lr=INNER_LR, **{**unprotected, **kwargs})
    model.policy.double()
    seen, original, rows = SimpleNamespace(), model._outer_step, tiny.log_rows(model)

    def outer_step(phi, gradient, data):
        seen.gradient = gradient.gradient
        seen.supports = [[Task(phase.rollout, i) for i in (0, 1)] for phase in data.supports]
        stacked = [data.meta_params, *(adaptation.params for adaptation in data.adapted)]
        seen.path = [[{name: value[i] for name, value in params.items()} for i in (0, 1)] for params in stacked]
        seen.query = [Task(data.query.rollout, i) for i in (0, 1)]
        seen.improvement_of = lambda params: model.outer_improvement(params, data)
        seen.before = {name: value.detach().clone() for name, value in model.actor.params().items()}
        return original(phi, gradient, data)

    model._outer_step = outer_step
    model.learn(tiny.iteration_of(model))
    assert model.n_meta_iterations == 1
    seen.after = {name: value.detach() for name, value in model.actor.params().items()}
    (seen.log,) = rows
    assert set(seen.after) == {W, B, OUT, OUT_B, LOG_STD}
    return model, seen


def close(a, b):
    assert a.keys() == b.keys()
    for name in a:
        th.testing.assert_close(a[name], b[name], rtol=1e-4, atol=1e-7)  # rollouts are in single precision


def test_reptile_goes_towards_where_the_inner_steps_lead(tiny):
    _, seen = one_iteration(tiny, Reptile, n_adaptation_steps=3, interpolation=0.25)
    ends = []
    for i in (0, 1):
        theta = leaves_of(seen.before)
        for data in (seen.supports[0][i], seen.supports[1][i], seen.query[i]):
            theta = leaves_of(data.step(theta))
        ends.append(theta)
    expected = {
        name: value + 0.25 * ((ends[0][name] + ends[1][name]) / 2 - value).detach()
        for name, value in seen.before.items()
    }
    close(seen.after, expected)
    assert tiny.differ(seen.after, seen.before)


@pytest.mark.parametrize("credit_coef", [0.0, 0.3, 1.0])
def test_emaml_gives_credit_to_the_support_data(tiny, credit_coef):
    n_support_steps = 2 * 20
    weight, settings = credit_coef / n_support_steps**0.5, {"n_adaptation_steps": 2, "outer_step": "adam"}
    _, seen = one_iteration(tiny, EMAML, credit_coef=credit_coef, **settings)
    scale = th.stack([data.centred.square().mean() for data in seen.query]).mean().sqrt() + 1e-8
    total = {name: th.zeros_like(value) for name, value in seen.before.items()}
    for i in (0, 1):
        phi = leaves_of(seen.before)
        theta, scores = phi, 0.0
        for phase in seen.supports:
            scores = scores + phase[i].log_prob(theta).sum()
            theta = phase[i].step(theta, credit_weight=weight)
        query = seen.query[i]
        log_prob = query.log_prob(theta)
        gain = ((log_prob - log_prob.detach()).exp() * query.centred / scale).mean()
        credit = (query.mean_reward - seen.query[1 - i].mean_reward) / scale
        slopes = th.autograd.grad(gain + weight * credit * scores, list(phi.values()))
        total = {name: value + slope / 2 for (name, value), slope in zip(total.items(), slopes, strict=True)}
    close(seen.gradient, total)


@pytest.mark.parametrize(("target_kl", "factor"), [(1e-9, 2.0), (1e9, 0.5)])
def test_promp_makes_the_penalty_heavier_where_the_kl_is_too_large(tiny, target_kl, factor):
    settings = {"n_adaptation_steps": 1, "n_epochs": 3, "learning_rate": 1e-2, "init_kl_coef": 0.5}
    model, seen = one_iteration(tiny, ProMP, target_kl=target_kl, **settings)
    assert model.kl_coefs == [0.5 * factor]
    divergences = [
        th.distributions.kl_divergence(data.policy(seen.before), data.policy(seen.after)).sum(-1).mean()
        for data in seen.supports[0]
    ]
    assert seen.log["promp/kl"] == pytest.approx(float(sum(divergences)) / 2, rel=1e-6)
    assert seen.log["promp/kl"] > 1e-6


def test_promp_leaves_the_penalty_alone_where_the_kl_is_right(tiny):
    settings = {"n_adaptation_steps": 1, "n_epochs": 3, "learning_rate": 1e-2, "init_kl_coef": 0.5}
    _, seen = one_iteration(tiny, ProMP, **settings)
    for factor, expected in ((0.65, 1.0), (0.68, 0.5), (1.0, 0.5), (1.48, 0.5), (1.52, 0.25)):
        model, again = one_iteration(tiny, ProMP, target_kl=factor * seen.log["promp/kl"], **settings)
        assert again.log["promp/kl"] == seen.log["promp/kl"]
        assert model.kl_coefs == [expected], factor


@pytest.mark.parametrize("discount_states", [False, True])
@pytest.mark.parametrize(
    ("cls", "kwargs"), [(MAML, {"n_adaptation_steps": 2}), (BOMRL, {}), (BOMRL, {"hypergradient": "unrolled"})]
)
def test_the_line_search_measures_from_where_the_meta_policy_stands(tiny, cls, kwargs, discount_states):
    settings = {"discount_states": discount_states, "gamma": 0.8, "outer_step": "trpo", "line_search": True}
    _, seen = one_iteration(tiny, cls, **settings, **kwargs)
    assert seen.improvement_of(seen.before) == pytest.approx(0.0, abs=1e-6)
    if cls is BOMRL and "hypergradient" not in kwargs:
        return  # a few inner steps do not solve the lower level, which the implicit gradient takes for granted
    slope = sum(float(value.square().sum()) for value in seen.gradient.values())
    ahead, behind = (
        {name: value + step * seen.gradient[name] for name, value in seen.before.items()} for step in (1e-6, -1e-6)
    )
    difference = seen.improvement_of(ahead) - seen.improvement_of(behind)
    assert difference == pytest.approx(2e-6 * slope, rel=1e-3)
