"""BO-MRL with a weight of the distance that sets itself."""

import numpy as np
import pytest
import torch as th

from sb3_bomrl import BOMRL
from sb3_bomrl.meta.reg_coef import next_reg_coef

AUTO = {"reg_coef": "auto", "inner_solver": "lbfgs", "inner_gradient_tolerance": 0.01, "n_inner_steps": 30}


def test_the_first_iteration_finds_it_and_later_ones_follow(tiny):
    model = tiny.model(inner_target_kl=0.05, **AUTO)
    rows, kls, after = tiny.log_rows(model), [], model._after_outer_step

    def keep(data):
        kls.append(data.adapted[0].kl)
        after(data)

    model._after_outer_step = keep
    model.learn(3 * tiny.iteration)
    used = [row["inner/reg_coef"] for row in rows]
    assert float(kls[0].median()) == pytest.approx(0.05, rel=0.25)
    for now, kl, later in zip(used, kls, [*used[1:], model.reg_coef_now], strict=True):
        assert later == pytest.approx(next_reg_coef(now, kl, 0.05))


def test_it_is_saved_and_adapting_leaves_it_alone(tiny, tmp_path):
    model = tiny.model(**AUTO)
    model.adapt(np.zeros(2), n_episodes=2, seed=0)
    assert model.reg_coef_now == 0.0
    model.learn(2 * tiny.iteration)
    found = model.reg_coef_now
    model.adapt(np.zeros(2), n_episodes=2, seed=0)
    model.save(tmp_path / "model")
    loaded = BOMRL.load_safely(tmp_path / "model")
    assert found > 0
    assert loaded.reg_coef == "auto"
    assert loaded.reg_coef_now == model.reg_coef_now == found


def test_the_unit_of_the_advantages_does_not_matter(tiny):
    """Without normalisation λ takes their scale, and the adapted policies are the same."""
    adapted = []
    for unit in (1e-6, 1.0, 1e6):
        model = tiny.model(normalize_advantage=False, **AUTO)
        original = model.experience

        def scaled(rollout, is_query=False, unit=unit, original=original):
            return original(rollout._replace(advantages=unit * rollout.advantages), is_query)

        model.experience = scaled
        adapted.append(tiny.params(model.adapt(np.zeros(2), n_episodes=3, seed=0)))
    for other in (adapted[0], adapted[2]):
        for name, value in adapted[1].items():
            assert th.allclose(other[name], value, rtol=1e-2, atol=1e-3), name


@pytest.mark.parametrize("value", ["Auto", "", "0.1", None, True])
def test_other_values_are_refused(tiny, value):
    with pytest.raises(ValueError, match="reg_coef must be"):
        tiny.model(reg_coef=value)
