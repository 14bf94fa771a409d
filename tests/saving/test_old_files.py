"""Files that version 0.1 wrote load, safely too, and go on as they would have."""

from pathlib import Path

import pytest
import torch as th

from sb3_bomrl import BOMRL, MAML, ProMP, make_meta_vec_env

DATA = Path(__file__).parents[1] / "data"


def navigation():
    return make_meta_vec_env("bomrl/Navigation2D-v0", 4, seed=0, env_kwargs={"horizon": 5})


@pytest.mark.parametrize("trusted", [False, True])
@pytest.mark.parametrize(
    ("name", "cls", "expected"),
    [
        ("bomrl", BOMRL, {"n_inner_steps": 3, "line_search": True, "tasks_per_chunk": None, "n_rollout_threads": 1}),
        ("maml", MAML, {"n_adaptation_steps": 2, "line_search": False, "outer_step": "adam"}),
        ("promp", ProMP, {"n_adaptation_steps": 2, "line_search": False}),
        ("table", BOMRL, {"hypergradient": "first_order", "line_search": False}),
    ],
)
def test_files_of_the_version_before_load(name, cls, expected, trusted, tmp_path):
    env = None if name == "table" else navigation()
    model = cls.load(DATA / f"{name}_0_1.zip", env, trusted=trusted, device="cpu")
    assert {key: getattr(model, key) for key in expected} == expected
    assert not hasattr(model, "_resume_from")
    assert name == "bomrl" or not hasattr(model, "n_inner_steps") or cls is BOMRL
    if env is not None:
        adapted = model.adapt((0.1, 0.2), n_episodes=2)
        before, after = (dict(one.policy.named_parameters()) for one in (model, adapted))
        assert any(not th.equal(before[key], after[key]) for key in before)
    model.save(tmp_path / "again")
    again = cls.load_safely(tmp_path / "again", device="cpu")
    assert {key: getattr(again, key) for key in expected} == expected


def test_a_checkpoint_of_the_version_before_goes_on():
    model = BOMRL.load(DATA / "bomrl_0_1.zip", navigation(), device="cpu")
    assert (model.num_timesteps, model.n_meta_iterations) == (320, 4)
    model.resume(log_interval=None)
    assert (model.num_timesteps, model.n_meta_iterations) == (400, 5)


def test_a_file_of_another_algorithm_is_still_refused():
    with pytest.raises(ValueError, match="was saved by MAML"):
        BOMRL.load(DATA / "maml_0_1.zip")
