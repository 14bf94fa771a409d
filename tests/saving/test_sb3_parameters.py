"""The cases of SB3's own ``test_save_load`` that concern ``set_parameters``, with our algorithms."""

from copy import deepcopy

import pytest
import torch as th

from sb3_bomrl import BOMRL


@pytest.fixture
def trained(tiny, algorithm):
    return tiny.model(cls=algorithm, baseline="value_net").learn(1)


def test_parts_of_other_names_or_missing(trained):
    params = deepcopy(trained.get_parameters())
    for exact_match in (True, False):
        with pytest.raises(ValueError, match="no_such_part"):
            trained.set_parameters({**params, "no_such_part": "no tensor"}, exact_match)
    with pytest.raises(ValueError, match="do not match"):
        trained.set_parameters({"policy": params["policy"]})


def test_weights_that_are_missing_are_torchs_error(trained):
    params = deepcopy(trained.get_parameters())
    cut = {name: dict(list(state.items())[:-1]) for name, state in params.items()}
    with pytest.raises(RuntimeError, match="Missing key"):
        trained.set_parameters(cut, exact_match=True)
    with pytest.raises(TypeError, match="dict-like"):
        trained.set_parameters({**params, "policy": "text"})


def test_some_of_the_weights(trained):
    before = deepcopy(trained.get_parameters())
    *first, last = (key for key in before["policy"] if "features_extractor" not in key)  # is there three times
    changed = {key: th.rand_like(before["policy"][key]) for key in first}
    trained.set_parameters({**before, "policy": changed}, exact_match=False)
    after = trained.get_parameters()["policy"]
    assert th.equal(after[last], before["policy"][last])
    assert all(th.equal(after[key], changed[key]) for key in first)


def test_weights_from_a_file(tiny, tmp_path, trained):
    trained.save(tmp_path / "model")
    other = tiny.model(cls=type(trained), baseline="value_net", seed=3)
    other.set_parameters(tmp_path / "model")
    tiny.assert_equal(tiny.params(other), tiny.params(trained))


def test_a_compiled_policy_is_saved(tiny, tmp_path):
    model = tiny.model()
    model.policy = th.compile(model.policy, backend="eager")
    model.save(tmp_path / "model")
    assert BOMRL.load_safely(tmp_path / "model").num_timesteps == 0
