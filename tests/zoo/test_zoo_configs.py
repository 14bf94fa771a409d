"""What rl_zoo3 reads: configuration files, search spaces, schedules."""

import inspect

import pytest
import yaml
from stable_baselines3.common.utils import LinearSchedule

from sb3_bomrl import zoo
from sb3_bomrl.envs import ENV_IDS
from sb3_bomrl.zoo.samplers import SEARCH_SPACES, convert, sampler

optuna = pytest.importorskip("optuna")
pytest.importorskip("rl_zoo3")

pytestmark = pytest.mark.filterwarnings("ignore")  # optuna
ALIKE = (
    "n_timesteps",
    "policy",
    "n_envs",
    "meta_batch_size",
    "n_steps",
    "gamma",
    "gae_lambda",
    "policy_kwargs",
    "discount_states",
)


def entries_of(algo):
    return yaml.safe_load(zoo.config_path(algo).read_text())


def check_arguments(algo, settings):
    """What the constructor would refuse, without building anything."""
    cls = zoo.REGISTRY[algo]
    settings = zoo.constructor_arguments(cls, settings)
    model = cls(**{"policy": "MlpPolicy", **settings}, env=None, _init_setup_model=False)
    model._check_arguments()
    return model


@pytest.mark.parametrize("algo", zoo.REGISTRY)
def test_every_environment_has_an_entry_that_makes_a_model(algo):
    entries, text = entries_of(algo), zoo.config_path(algo).read_text()
    assert {*ENV_IDS, "default"} == set(entries)
    for name, entry in entries.items():
        settings = {**entry}
        n_envs, _ = settings.pop("n_envs"), settings.pop("n_timesteps")
        assert n_envs % settings["meta_batch_size"] == 0, name
        assert set(settings) <= set(inspect.signature(zoo.REGISTRY[algo].__init__).parameters), name
        check_arguments(algo, settings)
        for key in entry:
            assert f"\n# {key} " in text, f"{key} must be commented"
    keys = {key for entry in entries.values() for key in entry}
    comments = [line[2:].split(" ")[0] for line in text.splitlines() if line.startswith("# ") and line[2] != " "]
    parameters = set(inspect.signature(zoo.REGISTRY[algo].__init__).parameters)
    assert {word for word in comments if word in parameters} <= keys, "only what an entry sets is explained"


@pytest.mark.parametrize("algo", [name for name in zoo.REGISTRY if name != "bomrl"])
def test_entries_are_comparable_with_those_of_bomrl(algo):
    bomrl = entries_of("bomrl")
    for name, entry in entries_of(algo).items():
        for key in ALIKE:
            assert entry.get(key) == bomrl[name].get(key), (name, key)
    assert "not tuned here" in zoo.config_path(algo).read_text().lower()


@pytest.mark.parametrize("algo", ["maml", "fomaml", "emaml", "promp"])
def test_steps_on_frozen_lake_are_those_of_the_exact_experiments(algo):
    for name, entry in entries_of(algo).items():
        assert (entry.get("inner_max_kl") == float("inf")) == ("FrozenLake" in name)


@pytest.mark.parametrize("algo", zoo.REGISTRY)
def test_every_search_space_gives_arguments_that_the_algorithm_accepts(algo):
    study, seen = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)), []
    for _ in range(20):
        trial = study.ask()
        drawn = sampler(SEARCH_SPACES[algo])(trial, 2, 4, {})
        model = check_arguments(algo, drawn)
        assert {name: getattr(model, name) for name in drawn} == drawn
        assert convert(trial.params) == drawn  # what --trial-id makes of a finished trial
        seen.append(drawn)
    for name in seen[0]:
        assert len({drawn[name] for drawn in seen}) > 1, f"{name} must vary"


def test_every_algorithm_is_in_rl_zoo3s_tables():
    zoo.register()
    import rl_zoo3
    from rl_zoo3.hyperparams_opt import HYPERPARAMS_CONVERTER, HYPERPARAMS_SAMPLER

    assert set(zoo.REGISTRY) == set(SEARCH_SPACES)
    for name, cls in zoo.REGISTRY.items():
        assert rl_zoo3.ALGOS[name] is cls
        drawn = HYPERPARAMS_SAMPLER[name](optuna.create_study().ask(), 2, 4, {})
        assert 0.8 <= drawn["gae_lambda"] <= 0.995
        assert HYPERPARAMS_CONVERTER[name]({"one_minus_gae_lambda": 0.25}) == {"gae_lambda": 0.75}


@pytest.mark.parametrize("algo", zoo.REGISTRY)
def test_every_step_size_may_be_written_as_a_schedule(algo):
    names = ("learning_rate", *zoo.REGISTRY[algo].scheduled)
    model = check_arguments(algo, dict.fromkeys(names, "lin_0.5"))
    for name in names:
        assert isinstance(getattr(model, name), LinearSchedule)
        assert getattr(model, name)(0.5) == 0.25


def test_schedules():
    out = zoo.with_schedules({"inner_lr": "lin_1e-2", "max_kl": 0.1}, ("inner_lr", "max_kl"))
    assert (out["inner_lr"](0.25), out["max_kl"]) == (pytest.approx(2.5e-3), 0.1)
    for text in ("lin_", "exp_0.1", "lin_x"):
        with pytest.raises(ValueError, match=rf"inner_lr must be a number or 'lin_<start>', got '{text}'"):
            zoo.with_schedules({"inner_lr": text}, ("inner_lr",))
