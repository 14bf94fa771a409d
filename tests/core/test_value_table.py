"""The table of values against the linear baseline on one-hot features, and against a value function that is known."""

import pytest
import torch as th
from torch.nn.functional import one_hot

from sb3_bomrl.core import advantages
from sb3_bomrl.core.advantages import fit_linear_baseline, fit_value_table

N_STATES = 5


def ragged(seed, shape=(3, 20, 4)):
    """Episodes of all lengths, some cut off and some terminated; state 4 is seen only where an episode is cut off."""
    generator = th.Generator().manual_seed(seed)
    ends = th.rand(shape, generator=generator) < 0.2
    ends[:, -1] = True
    truncated = ends & (th.rand(shape, generator=generator) < 0.6)
    return {
        "states": th.randint(N_STATES - 1, shape, generator=generator),
        "final_states": th.randint(N_STATES, (int(truncated.sum()),), generator=generator),
        "rewards": th.randn(shape, generator=generator, dtype=th.float64),
        "episode_ends": ends,
        "truncated": truncated,
        "mask": th.rand(shape, generator=generator) < 0.8,
    }


@pytest.mark.parametrize("gamma", [0.0, 0.8, 1.0])
@pytest.mark.parametrize("ridge", [1e-5, 1e-2])
def test_it_is_the_linear_baseline_on_one_hot_features(gamma, ridge, monkeypatch):
    monkeypatch.setattr(advantages, "RIDGE", ridge)
    data = ragged(0)
    table = fit_value_table(**data, gamma=gamma, n_states=N_STATES)
    data |= {
        "features": one_hot(data.pop("states"), N_STATES).double(),
        "final_features": one_hot(data.pop("final_states"), N_STATES).double(),
    }
    assert th.allclose(table, fit_linear_baseline(**data, gamma=gamma), rtol=1e-9, atol=1e-9)


def test_it_recovers_the_values_of_a_cycle_whatever_the_cuts(monkeypatch):
    """s' = s + 1 modulo 4 with reward 1 on entering state 0: V(s) = γ^(3−s) / (1 − γ^4)."""
    gamma, data = 0.9, ragged(1)
    states = (th.arange(20)[None, :, None] + th.arange(4)).expand(3, 20, 4) % 4
    data |= {"states": states, "truncated": data["episode_ends"], "rewards": (states == 3).double()}
    data["final_states"] = ((states + 1) % 4)[data["truncated"]]
    monkeypatch.setattr(advantages, "RIDGE", 1e-12)
    table = fit_value_table(**data, gamma=gamma, n_states=4)
    expected = gamma ** th.arange(3.0, -1.0, -1.0, dtype=th.float64) / (1 - gamma**4)
    assert th.allclose(table, expected.expand(3, 4), rtol=1e-8)


def test_states_that_were_not_visited_and_tasks_without_cuts_are_finite():
    data = ragged(2)
    data |= {"truncated": th.zeros_like(data["truncated"]), "final_states": th.zeros(0, dtype=th.long)}
    table = fit_value_table(**data, gamma=0.9, n_states=N_STATES)
    assert th.equal(table[:, -1], th.zeros(3, dtype=th.float64))
    assert table[:, :-1].abs().min() > 0
    assert table.isfinite().all()
