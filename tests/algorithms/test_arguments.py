"""Constructor arguments: old names, those that do nothing, and documentation that is the same in every class."""

import inspect
import re
import warnings

import pytest
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnvWrapper

from sb3_bomrl import BOMRL, EMAML, FOMAML, MAML, MetaAlgorithm, ProMP, Reptile


def make(tiny, cls, **kwargs):
    """A model with the defaults of its class but for its size."""
    sizes = {"n_steps": 10, "meta_batch_size": 2, "seed": 0, "device": "cpu", "policy_kwargs": {"net_arch": [4]}}
    return cls("MlpPolicy", tiny.goal_vec(), **{**sizes, **kwargs})


def test_defaults_warn_of_nothing(tiny, algorithm):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make(tiny, algorithm)


@pytest.mark.parametrize("cls", [MAML, FOMAML, EMAML, ProMP, Reptile])
def test_the_old_name_of_the_number_of_adaptation_steps_still_works(tiny, cls):
    with pytest.warns(FutureWarning, match="the argument n_inner_steps is called n_adaptation_steps now"):
        model = make(tiny, cls, n_inner_steps=3)
    assert model.n_adaptation_steps == 3
    assert not hasattr(model, "n_inner_steps")
    with pytest.raises(TypeError, match="n_adaptation_steps was also given by its old name n_inner_steps"):
        make(tiny, cls, n_inner_steps=3, n_adaptation_steps=2)


def test_old_names_still_work_when_loading(tiny, tmp_path):
    make(tiny, MAML).save(tmp_path / "model")
    for how in ({"n_inner_steps": 4}, {"custom_objects": {"n_inner_steps": 4}}):
        with pytest.warns(FutureWarning, match="called n_adaptation_steps") as caught:
            model = MAML.load(tmp_path / "model", **how)
        assert model.n_adaptation_steps == 4
        assert caught[0].filename == __file__


def test_use_sde_may_be_left_out_alone(tiny, algorithm):
    with pytest.warns(FutureWarning, match="use_sde does nothing"):
        make(tiny, algorithm, use_sde=False)
    with pytest.raises(ValueError, match="use_sde must be False, got True"):
        make(tiny, algorithm, use_sde=True)


@pytest.mark.parametrize("cls", [BOMRL, FOMAML])
def test_unknown_arguments_are_named(tiny, cls):
    with pytest.raises(TypeError, match="line_serach"):
        make(tiny, cls, line_serach=True)
    if cls is FOMAML:
        with pytest.raises(TypeError, match="line_search"):
            make(tiny, cls, line_search=True)


def test_a_subclass_annotates_its_own_arguments(tiny):
    class Own(MAML):
        temperature: float

        def __init__(self, policy, env, temperature=2.0, **kwargs):
            MetaAlgorithm.__init__(self, policy, env, temperature=temperature, **kwargs)

    own = {"inner_lr": 0.1, "n_adaptation_steps": 1, "surrogate": "linear"}
    assert make(tiny, Own, **own).temperature == 2.0
    for name in ("colour", "n_envs"):  # SB3 annotates the second one
        with pytest.raises(TypeError, match=rf"Own.__init__\(\) got an unexpected keyword argument {name!r}"):
            make(tiny, Own, **{name: 1}, **own)


def test_a_subclass_that_hands_everything_on_is_warned_as_well(tiny):
    class Own(BOMRL):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)

    with pytest.warns(UserWarning, match="batch_size=64 has no effect") as caught:
        make(tiny, Own, batch_size=64)
    assert caught[0].filename == __file__


WITHOUT_EFFECT = [
    (BOMRL, {"learning_rate": 1e-3}, "learning_rate=0.001 has no effect without a value network"),
    (BOMRL, {"n_critic_updates": 3}, "n_critic_updates=3 has no effect without a value network"),
    (BOMRL, {"max_grad_norm": 1.0}, "max_grad_norm=1.0 has no effect without a value network"),
    (BOMRL, {"n_envs_per_task": 3}, "n_envs_per_task=3 has no effect beside an environment"),
    (BOMRL, {"clip_range": 0.1}, "clip_range=0.1 has no effect with surrogate='sigmoid'"),
    (BOMRL, {"outer_step": "adam", "max_kl": 0.1}, "max_kl=0.1 has no effect with outer_step='adam'"),
    (BOMRL, {"hypergradient": "first_order", "hypergradient_damping": 1.0}, "damping=1.0 has no effect with hyper"),
    (MAML, {"outer_step": "adam", "sub_sampling_factor": 2}, "sub_sampling_factor=2 has no effect"),
    (ProMP, {"init_kl_coef": 0.0, "target_kl": 0.1}, "target_kl=0.1 has no effect with init_kl_coef=0"),
    (Reptile, {"outer_step": "trpo", "interpolation": 0.5}, "interpolation=0.5 has no effect with outer_step='trpo'"),
    (Reptile, {"max_kl": 0.1}, "max_kl=0.1 has no effect with outer_step='interpolation'"),
]


@pytest.mark.parametrize(("cls", "kwargs", "words"), WITHOUT_EFFECT)
def test_an_argument_without_effect_is_named_once(tiny, cls, kwargs, words):
    with pytest.warns(UserWarning, match=words) as caught:
        make(tiny, cls, **kwargs)
    assert len(caught) == 1
    assert caught[0].filename == __file__


WITH_EFFECT = [
    (BOMRL, {"outer_step": "adam", "learning_rate": 1e-3, "max_grad_norm": 1.0}),
    (BOMRL, {"baseline": "value_net", "learning_rate": 1e-3, "n_critic_updates": 3, "batch_size": 32}),
    (BOMRL, {"surrogate": "clip", "clip_range": 0.1}),
    (BOMRL, {"max_kl": 0.1, "cg_max_steps": 5}),
    (ProMP, {"target_kl": 0.1, "learning_rate": 1e-2}),
    (Reptile, {"interpolation": 0.5}),
]


@pytest.mark.parametrize(("cls", "kwargs"), WITH_EFFECT)
def test_an_argument_with_an_effect_is_taken_in_silence(tiny, cls, kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make(tiny, cls, **kwargs)


def test_an_id_takes_the_number_of_environments_per_task_in_silence():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = BOMRL("MlpPolicy", "bomrl/Navigation2D-v0", meta_batch_size=2, n_envs_per_task=3, device="cpu")
    assert model.n_envs == 6


@pytest.mark.parametrize(
    ("cls", "kwargs"),
    [
        (BOMRL, {"hypergradient": "implicit_sampling"}),
        (BOMRL, {"hypergradient": "first_order"}),
        (BOMRL, {"outer_step": "adam"}),
        (MAML, {"outer_step": "adam"}),
    ],
)
def test_a_line_search_that_cannot_work_is_refused(tiny, cls, kwargs):
    with pytest.raises(ValueError, match="line_search must be False, got True"):
        make(tiny, cls, line_search=True, **kwargs)


def described(cls):
    """Name of a parameter -> its description in the class's docstring."""
    text = inspect.cleandoc(cls.__doc__)
    found = re.findall(r"^:param (\w+): (.*?)(?=^:param|\Z)", text, flags=re.DOTALL | re.MULTILINE)
    return {name: " ".join(words.split()) for name, words in found}


def test_every_argument_is_described_in_order(algorithm):
    accepted = list(inspect.signature(algorithm.__init__).parameters)[1:]
    assert list(described(algorithm)) == accepted


OWN_WORDS = {
    MAML: {"line_search"},
    ProMP: {"learning_rate", "max_grad_norm"},
    Reptile: {"outer_step"},
}


def test_what_all_methods_share_is_described_alike(algorithm):
    shared, own = described(MetaAlgorithm), described(algorithm)
    differ = {name for name in own.keys() & shared.keys() if own[name] != shared[name]}
    assert differ == OWN_WORDS.get(algorithm, set())


def test_an_environment_without_tasks_is_warned_of_once(tiny):
    class Hides(VecEnvWrapper):  # it answers env_method("set_task") and says that there is none
        def has_attr(self, name):
            return False

        def reset(self):
            return self.venv.reset()

        def step_wait(self):
            return self.venv.step_wait()

    with_tasks, model = tiny.goal_vec(), None
    for env in (DummyVecEnv([tiny.SpaceEnv] * 4), Hides(tiny.goal_vec())):
        with pytest.warns(
            UserWarning, match="so that there is one task only, where meta-training needs several"
        ) as caught:
            model = BOMRL("MlpPolicy", env, n_steps=10, meta_batch_size=2, device="cpu")
        assert [(warning.filename, len(caught)) for warning in caught] == [(__file__, 1)]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            model.learn(tiny.iteration)
    with pytest.warns(UserWarning, match="one task only") as caught:
        model.set_env(Hides(tiny.goal_vec()))
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.set_env(with_tasks)
