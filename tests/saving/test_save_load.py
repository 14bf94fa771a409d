"""Files: what they hold, what is refused, and that a run that was interrupted goes on as if it had not been."""

import io
import json
import zipfile

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_bomrl import BOMRL, EMAML, FOMAML, MAML, MetaAlgorithm, ProMP, Reptile, TaskSamplerWrapper
from sb3_bomrl.policies import NormalizedFlattenExtractor
from sb3_bomrl.saving import files

NORMALIZED = {"net_arch": [8], "features_extractor_class": NormalizedFlattenExtractor}
SETTINGS = [
    {},
    {"outer_step": "adam", "learning_rate": 1e-2},
    {"baseline": "value_net", "learning_rate": 1e-2},
    {"outer_step": "adam", "baseline": "value_net", "learning_rate": 1e-2},
    {"policy_kwargs": NORMALIZED, "hypergradient": "implicit_sampling"},
]


def family(tiny, **kwargs):
    """Environments whose tasks are seeded apart, so that they follow the model's generator."""

    def make():
        inner = tiny.GoalEnv(**kwargs)
        return TaskSamplerWrapper(
            inner, sampler=lambda rng: rng.uniform(-1, 1, 2), apply_task=lambda env, task: env.set_task(task)
        )

    return DummyVecEnv([make] * 4)


@pytest.mark.parametrize("kwargs", SETTINGS)
@pytest.mark.parametrize("normalize", [False, True])
def test_save_load_continue_is_not_stopping(tiny, tmp_path, kwargs, normalize):
    check_continuation(tiny, tmp_path, BOMRL, kwargs, normalize)


def test_save_load_continue_is_not_stopping_for_any_algorithm(tiny, tmp_path, algorithm):
    check_continuation(tiny, tmp_path, algorithm, {"baseline": "value_net"}, normalize=True)


def check_continuation(tiny, tmp_path, algorithm, kwargs, normalize):
    def env():
        return VecNormalize(family(tiny)) if normalize else family(tiny)

    straight = tiny.model(env(), cls=algorithm, **kwargs)
    steps = 2 * tiny.iteration_of(straight)
    straight.learn(steps).learn(steps, reset_num_timesteps=False)

    model = tiny.model(env(), cls=algorithm, **kwargs).learn(steps)
    model.save(tmp_path / "model")
    th.manual_seed(123)
    loaded = algorithm.load(tmp_path / "model", env=env(), device="cpu")
    loaded.learn(steps, reset_num_timesteps=False)

    tiny.assert_equal(tiny.params(straight), tiny.params(loaded))
    assert straight.num_timesteps == loaded.num_timesteps == 2 * steps
    assert straight.n_meta_iterations == loaded.n_meta_iterations == 4
    assert straight.task_generator.bit_generator.state == loaded.task_generator.bit_generator.state
    for a, b in zip(*(m.policy.optimizer.state_dict()["state"].values() for m in (straight, loaded)), strict=True):
        assert all(th.equal(a[name], b[name]) for name in a)
    if normalize:
        for a, b in [(straight.env.obs_rms, loaded.env.obs_rms), (straight.env.ret_rms, loaded.env.ret_rms)]:
            for field in ("mean", "var", "count"):
                np.testing.assert_array_equal(getattr(a, field), getattr(b, field))


def test_continuing_depends_on_the_saved_random_state(tiny, tmp_path):
    """The test above could not tell if every continuation gave the same."""
    tiny.model(family(tiny)).learn(tiny.iteration).save(tmp_path / "model")
    runs = []
    for change in (False, True):
        loaded = BOMRL.load(tmp_path / "model", env=family(tiny))
        if change:
            loaded.task_generator.integers(2)
        runs.append(tiny.params(loaded.learn(tiny.iteration, reset_num_timesteps=False)))
    assert tiny.differ(*runs)


def test_the_random_state_of_a_model_that_has_not_learned_is_saved_too(tiny, tmp_path):
    model = tiny.model(family(tiny))
    model.set_random_seed(77)
    model.save(tmp_path / "model")
    loaded = BOMRL.load(tmp_path / "model", env=family(tiny))
    tiny.assert_equal(tiny.params(loaded.learn(tiny.iteration)), tiny.params(model.learn(tiny.iteration)))


def test_the_file_holds_no_environment_buffer_or_network_in_its_pickled_data(tiny, tmp_path):
    model = tiny.model(VecNormalize(family(tiny)), baseline="value_net").learn(tiny.iteration)
    model.save(tmp_path / "model.zip")
    with zipfile.ZipFile(tmp_path / "model.zip") as archive:
        assert {"data", "policy.pth", "policy.optimizer.pth"} <= set(archive.namelist())
        data = json.loads(archive.read("data"))
    forbidden = {
        "env", "policy", "actor", "rollout_buffer", "_vec_normalize_env", "_logger", "_run",
    }  # fmt: skip
    assert not forbidden & set(data)
    kinds = {name: value[":type:"] for name, value in data.items() if isinstance(value, dict) and ":type:" in value}
    for name, kind in kinds.items():
        words = (
            "VecEnv",
            "VecNormalize",
            "Buffer'",
            "torch.optim",
            "Adam",
            "torch.nn",
            "sb3_bomrl.policies",
            "Callback",
        )
        if not kind.startswith("<class 'abc.ABCMeta"):
            assert not any(word in kind for word in words), (name, kind)
    assert model._get_torch_save_params() == (["policy", "policy.optimizer"], [])


def test_load_without_an_environment_predicts(tiny, tmp_path):
    model = tiny.model().learn(tiny.iteration)
    model.save(tmp_path / "model")
    loaded = BOMRL.load(tmp_path / "model")
    assert loaded.env is None
    obs = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
    np.testing.assert_array_equal(loaded.predict(obs, deterministic=True)[0], model.predict(obs, deterministic=True)[0])
    with pytest.raises(ValueError, match="env must be set before learn"):
        loaded.learn(10)
    loaded.set_env(tiny.goal_vec(4))
    loaded.learn(10, reset_num_timesteps=False)
    assert loaded.num_timesteps == 2 * tiny.iteration


def test_settings_are_saved(tiny, tmp_path):
    tiny.model(reg_coef=0.7, distance="parameter", gamma=0.5).save(tmp_path / "model")
    loaded = BOMRL.load(tmp_path / "model", max_kl=0.5)
    assert (loaded.reg_coef, loaded.distance, loaded.gamma, loaded.max_kl) == (0.7, "parameter", 0.5, 0.5)


@pytest.mark.parametrize("name", ["model", "model.zip", "model.v2", "new/folder/model"])
def test_names(tiny, tmp_path, name):
    model = tiny.model()
    model.save(str(tmp_path / name))
    tiny.assert_equal(tiny.params(BOMRL.load(str(tmp_path / name))), tiny.params(model))


def test_files_in_memory(tiny):
    model = tiny.model().learn(tiny.iteration)
    file = io.BytesIO()
    model.save(file)
    tiny.assert_equal(tiny.params(BOMRL.load(file)), tiny.params(model))
    tiny.assert_equal(tiny.params(BOMRL.load_safely(file)), tiny.params(model))


def test_a_model_without_its_environment_keeps_the_normaliser(tiny, tmp_path):
    model = tiny.model(VecNormalize(family(tiny))).learn(tiny.iteration)
    model.save(tmp_path / "first")
    BOMRL.load(tmp_path / "first").save(tmp_path / "second")
    env = VecNormalize(family(tiny))
    BOMRL.load(tmp_path / "second", env=env)
    np.testing.assert_array_equal(env.obs_rms.mean, model.env.obs_rms.mean)


def test_get_and_set_parameters(tiny):
    model, other = tiny.model().learn(tiny.iteration), tiny.model(seed=5)
    assert set(model.get_parameters()) == {"policy", "policy.optimizer"}
    other.set_parameters(model.get_parameters())
    tiny.assert_equal(tiny.params(model), tiny.params(other))
    tiny.assert_equal(model.actor.params(), other.actor.params())
    with pytest.raises(ValueError, match="nonsense"):
        other.set_parameters({"nonsense": {}})


def test_an_interrupted_save_leaves_the_old_file(tiny, tmp_path, monkeypatch):
    model = tiny.model()
    model.save(tmp_path / "model")
    before = (tmp_path / "model.zip").read_bytes()
    model.learn(tiny.iteration)

    def full(descriptor):
        raise OSError("disk full")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="disk full"):
        model.save(tmp_path / "model")
    assert (tmp_path / "model.zip").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["model.zip"]


def test_a_broken_policy_is_not_saved(tiny, tmp_path):
    model = tiny.model()
    with th.no_grad():
        model.policy.action_net.bias[0] = np.nan
    with pytest.raises(FloatingPointError, match=r"'action_net\.bias' is not finite"):
        model.save(tmp_path / "model")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("n_bytes", [0, 100, -1, -2000])
def test_a_truncated_file_is_refused(tiny, tmp_path, n_bytes):
    tiny.model().save(tmp_path / "model")
    whole = (tmp_path / "model.zip").read_bytes()
    (tmp_path / "model.zip").write_bytes(whole[:n_bytes])
    with pytest.raises(ValueError, match=r"BOMRL: .*model.* is not a whole model file"):
        BOMRL.load(tmp_path / "model")


def test_a_damaged_file_is_refused(tiny, tmp_path):
    tiny.model().save(tmp_path / "model")
    data = bytearray((tmp_path / "model.zip").read_bytes())
    with zipfile.ZipFile(tmp_path / "model.zip") as archive:
        start = archive.getinfo("policy.pth").header_offset + 200
    data[start : start + 50] = bytes(50)
    data[start + 50] ^= 255
    (tmp_path / "model.zip").write_bytes(data)
    with pytest.raises(ValueError, match=r"damaged|not a whole"):
        BOMRL.load(tmp_path / "model")


def test_files_of_others_are_refused(tiny, tmp_path):
    PPO("MlpPolicy", tiny.goal_vec(1), n_steps=8, batch_size=8, device="cpu").save(tmp_path / "ppo")
    with pytest.raises(ValueError, match=r"saved by BOMRL: .* was saved by another library"):
        BOMRL.load(tmp_path / "ppo")

    class Other(BOMRL):
        pass

    tiny.model(cls=Other).save(tmp_path / "other")
    with pytest.raises(ValueError, match="was saved by Other"):
        BOMRL.load(tmp_path / "other")
    assert issubclass(Other, MetaAlgorithm)

    tiny.model(cls=MAML).save(tmp_path / "maml")
    for cls in (BOMRL, FOMAML, EMAML, ProMP, Reptile):
        with pytest.raises(ValueError, match="was saved by MAML"):
            cls.load(tmp_path / "maml")


def test_the_penalty_weights_of_promp_are_saved(tiny, tmp_path):
    model = tiny.model(cls=ProMP).learn(1)
    assert model.kl_coefs != [model.init_kl_coef] * 2
    model.save(tmp_path / "model")
    assert ProMP.load(tmp_path / "model").kl_coefs == model.kl_coefs
    assert ProMP.load_safely(tmp_path / "model").kl_coefs == model.kl_coefs
    assert ProMP.load(tmp_path / "model", n_adaptation_steps=1).kl_coefs == [model.init_kl_coef]
    for bad in ([-1.0, 0.0], [np.nan, 0.0], ["x", "y"]):
        with pytest.raises(ValueError, match=rf"kl_coefs must be a number in \[0, inf\], got {bad[0]!r}"):
            ProMP.load_safely(tmp_path / "model", kl_coefs=bad)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing.*nothing\.zip"):
        BOMRL.load(tmp_path / "nothing")


@pytest.mark.parametrize(
    "replaced", [{"observation_space": spaces.Box(-1.0, 1.0, (3,))}, {"action_space": spaces.Discrete(2)}]
)
def test_an_environment_with_other_spaces_is_refused(tiny, algorithm, tmp_path, replaced):
    tiny.model(DummyVecEnv([tiny.SpaceEnv] * 2), cls=algorithm).save(tmp_path / "model")
    with pytest.raises(ValueError, match=r"(Observation|Action) spaces do not match"):
        algorithm.load(tmp_path / "model", env=DummyVecEnv([lambda: tiny.SpaceEnv(**replaced)] * 2))


@pytest.mark.parametrize("saved_with", [True, False])
def test_forgetting_vec_normalize_warns(tiny, tmp_path, saved_with):
    envs = [VecNormalize(tiny.goal_vec(4)), tiny.goal_vec(4)]
    with_saved, with_loaded = envs if saved_with else envs[::-1]
    tiny.model(with_saved).save(tmp_path / "model")
    with pytest.warns(UserWarning, match="VecNormalize"):
        BOMRL.load(tmp_path / "model", env=with_loaded)
