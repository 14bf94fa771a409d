"""Files that version 0.1 wrote load, safely too, and go on as they would have."""

import json
import zipfile
from pathlib import Path

import pytest
import torch as th

from sb3_bomrl import BOMRL, EMAML, MAML, ProMP, make_meta_vec_env

DATA = Path(__file__).parents[1] / "data"
AS_BEFORE = {"trust_region": "meta", "inner_lr_decay": 1.0, "inner_max_kl": float("inf")}


def navigation():
    return make_meta_vec_env("bomrl/Navigation2D-v0", 4, seed=0, env_kwargs={"horizon": 5})


@pytest.mark.parametrize("trusted", [False, True])
@pytest.mark.parametrize(
    ("name", "cls", "expected"),
    [
        ("bomrl", BOMRL, {"n_inner_steps": 3, "line_search": True, "tasks_per_chunk": None, "n_rollout_threads": 1}),
        ("maml", MAML, {"n_adaptation_steps": 2, "line_search": False, "outer_step": "adam", **AS_BEFORE}),
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


class OwnBOMRL(BOMRL):
    """A user's subclass."""


class OwnMAML(MAML):
    """A user's subclass."""


@pytest.mark.parametrize("trusted", [False, True])
@pytest.mark.parametrize(("name", "cls"), [("bomrl", OwnBOMRL), ("maml", OwnMAML)])
def test_files_of_subclasses_load_as_those_of_their_class(name, cls, trusted, tmp_path):
    settings = {"_algorithm_name": cls.__name__, "outer_step": "trpo"}
    rewritten(DATA / f"{name}_0_1.zip", tmp_path / "own.zip", settings)
    model = cls.load(tmp_path / "own.zip", trusted=trusted, device="cpu")
    assert model.line_search
    assert (model.n_inner_steps if name == "bomrl" else model.n_adaptation_steps) == {"bomrl": 3, "maml": 2}[name]
    assert (name == "bomrl") != hasattr(model, "n_adaptation_steps")


@pytest.mark.parametrize("trusted", [False, True])
def test_a_file_with_the_attributes_that_are_arguments_now(trusted, tmp_path):
    settings = {"tasks_per_chunk": 1, "n_rollout_threads": 2}
    rewritten(DATA / "maml_0_1.zip", tmp_path / "model.zip", settings)
    model = MAML.load(tmp_path / "model.zip", trusted=trusted, device="cpu")
    assert {name: getattr(model, name) for name in settings} == settings
    assert model.n_adaptation_steps == 2


def test_the_inner_solver_of_a_natural_gradient_stays_as_it_was(tmp_path):
    settings = {"inner_solver": "natural_gradient", "cg_max_steps": 4, "cg_damping": 0.5}
    rewritten(DATA / "bomrl_0_1.zip", tmp_path / "model.zip", settings)
    solver = BOMRL.load_safely(tmp_path / "model.zip", device="cpu")._inner_solver()
    assert (solver.cg_max_steps, solver.cg_damping) == (4, 0.5)


def rewritten(source, target, settings, without=()):
    """A model file with other settings, and without some."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name == "data":
                changed = {**json.loads(data), **settings}
                data = json.dumps({key: value for key, value in changed.items() if key not in without})
            new.writestr(name, data)


@pytest.mark.parametrize("trusted", [False, True])
def test_a_file_without_the_limits_of_gradient_steps_goes_on_without_them(trusted, tmp_path):
    """The weight of E-MAML's credit was that of a sum which is divided by the root of its number of terms now."""
    settings = {"n_adaptation_steps": 2, "n_steps": 5, "meta_batch_size": 2, "credit_coef": 0.1}
    EMAML("MlpPolicy", navigation(), device="cpu", **settings).save(tmp_path / "new")
    with zipfile.ZipFile(tmp_path / "new.zip") as archive:
        kept = json.loads(archive.read("data"))
    rewritten(tmp_path / "new.zip", tmp_path / "old.zip", {}, without=AS_BEFORE)
    model = EMAML.load(tmp_path / "old.zip", trusted=trusted, device="cpu")
    assert {name: getattr(model, name) for name in AS_BEFORE} == AS_BEFORE
    assert model.credit_coef == pytest.approx(0.1 * (2 * 5 * 4 / 2) ** 0.5)
    assert kept["trust_region"] == "adapted"
    again = EMAML.load(tmp_path / "new.zip", trusted=trusted, device="cpu")
    assert (again.credit_coef, again.trust_region) == (0.1, "adapted")


def test_a_file_of_another_algorithm_is_still_refused():
    with pytest.raises(ValueError, match="was saved by MAML"):
        BOMRL.load(DATA / "maml_0_1.zip")
