"""The two trust regions of the outer step, whose divergences are written out task by task."""

import pytest
import torch as th
from torch.distributions import kl_divergence

from sb3_bomrl import BOMRL, EMAML, FOMAML, MAML
from tests.algorithms.test_outer_updates import leaves_of, one_iteration

MAX_KL = 0.02


def meta_kl(seen):
    """Mean KL(π_φ ‖ π_φ_new) over the support states."""
    pairs = [(data.policy(seen.before), data.policy(seen.after)) for data in seen.supports[0]]
    return float(th.stack([kl_divergence(*pair).sum(-1).mean() for pair in pairs]).mean())


def adapted_kl(seen):
    """Mean KL(π_θ' ‖ π_θ'_new) over the query states, by adapting to the same data anew."""
    divergences = []
    for i, query in enumerate(seen.query):
        ends = []
        for phi in (seen.before, seen.after):
            theta = leaves_of(phi)
            for number, phase in enumerate(seen.supports):
                theta = leaves_of(phase[i].ascended(theta, sampled_with=seen.path[number][i]))
            ends.append(query.policy({name: value.detach() for name, value in theta.items()}))
        divergences.append(kl_divergence(*ends).sum(-1).mean())
    return float(th.stack(divergences).mean())


@pytest.mark.parametrize("cls", [MAML, FOMAML, EMAML])
def test_the_adapted_policies_stay_within_the_radius(tiny, cls):
    _, seen = one_iteration(tiny, cls, n_adaptation_steps=2, outer_step="trpo", trust_region="adapted", max_kl=MAX_KL)
    expected = adapted_kl(seen)
    assert seen.log["outer/kl"] == pytest.approx(expected, rel=1e-4)
    assert 0.2 * MAX_KL < expected <= MAX_KL
    assert seen.log["outer/accepted"]


def test_the_region_of_the_meta_policy_does_not_bound_the_adapted_policies(tiny):
    settings = {"n_adaptation_steps": 2, "outer_step": "trpo", "max_kl": MAX_KL}
    _, seen = one_iteration(tiny, MAML, trust_region="meta", **settings)
    assert seen.log["outer/kl"] == pytest.approx(meta_kl(seen), rel=1e-4)
    assert meta_kl(seen) <= MAX_KL < adapted_kl(seen)


def test_bomrl_adapts_anew_by_its_lower_level(tiny):
    inner = {"distance": "parameter", "surrogate": "linear", "inner_solver": "sgd", "n_inner_steps": 1, "reg_coef": 1.0}
    region = {"outer_step": "trpo", "trust_region": "adapted", "max_kl": MAX_KL}
    model, seen = one_iteration(tiny, BOMRL, hypergradient="unrolled", **inner, **region)
    assert seen.log["outer/kl"] == pytest.approx(adapted_kl(seen), rel=1e-4)
    assert 0.2 * MAX_KL < adapted_kl(seen) <= MAX_KL
    assert BOMRL("MlpPolicy", tiny.goal_vec(), meta_batch_size=2).trust_region == "meta"
    assert model.trust_region == "adapted"


def test_an_unknown_region_is_refused(tiny):
    with pytest.raises(ValueError, match=r"trust_region must be one of \('adapted', 'meta'\), got 'both'"):
        tiny.model(cls=MAML, trust_region="both")
    with pytest.warns(UserWarning, match="trust_region='meta' has no effect with outer_step='adam'"):
        MAML("MlpPolicy", tiny.goal_vec(), meta_batch_size=2, outer_step="adam", trust_region="meta")
