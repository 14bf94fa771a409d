"""Which runs a suite asks for, and with which settings."""

import pytest

from benchmarks import methods
from benchmarks.methods import METHODS, make_model, plain_settings, settings_of
from benchmarks.run import choose
from benchmarks.suites import expand, load_suite, suite_names
from sb3_bomrl import make_meta_vec_env
from sb3_bomrl.zoo import REGISTRY

ENTRY = {"methods": ["maml"], "envs": ["bomrl/AntVel-v0"], "seeds": [0], "env_steps": 10}
FAMILIES = sorted({run.env for run in load_suite("comparison")})


@pytest.mark.parametrize("name", suite_names())
def test_runs_of_a_suite_are_distinct_and_their_settings_are_read(name):
    runs = load_suite(name)
    assert len({(run.label, run.env, run.seed) for run in runs}) == len(runs) > 0
    for run in {(run.label, run.env): run for run in runs}.values():
        settings = settings_of(run.method, run.env, run.overrides)
        for key, value in run.overrides.items():
            if key != "n_envs_per_task":
                assert settings[key] == value


def test_a_grid_has_all_combinations():
    runs = list(expand("x", {**ENTRY, "seeds": [0, 1], "overrides": {"a": 1}, "grid": {"b": [2, 3], "c": [4]}}))
    assert [(run.seed, run.overrides) for run in runs] == [
        (seed, {"a": 1, "b": b, "c": 4}) for seed in (0, 1) for b in (2, 3)
    ]
    assert runs[0].label == "maml a=1 b=2 c=4"


def test_an_evaluation_changes_what_it_names():
    (run,) = expand("x", {**ENTRY, "evaluation": {"n_episodes": 7, "final": {"n_adaptations": 2}}})
    assert (run.evaluation.final.n_adaptations, run.evaluation.final.n_episodes) == (2, 7)
    assert (run.evaluation.training.n_adaptations, run.evaluation.training.n_episodes) == (1, 7)


def test_mistakes_in_a_suite_are_named():
    with pytest.raises(ValueError, match=r"keys among .* got \['steps'\]"):
        list(expand("x", {**ENTRY, "steps": 3}))
    with pytest.raises(ValueError, match=r"methods must be among bomrl-alg1, .* got sac"):
        list(expand("x", {**ENTRY, "methods": ["sac"]}))
    with pytest.raises(ValueError, match=r"suite must be one of ablations, .* got 'nothing'"):
        load_suite("nothing")
    with pytest.raises(ValueError, match=r"method must be one of bomrl-alg1, .* got 'sac'"):
        settings_of("sac", "bomrl/AntVel-v0")
    with pytest.raises(ValueError, match=r"env must be one of .*HalfCheetahVel-v0, .* got 'Ant'"):
        settings_of("maml", "Ant")


def test_filters_choose_runs():
    runs = load_suite("comparison")
    chosen = choose(runs, ["maml", "rl2"], ["Navigation2D"], [3])
    assert [(run.method, run.env, run.seed) for run in chosen] == [
        (method, "bomrl/Navigation2D-v0", 3) for method in ("maml", "rl2")
    ]
    assert choose(runs, None, None, None) == runs
    with pytest.raises(ValueError, match=r"env must be among .*AntDir, .* got \['Ant'\]"):
        choose(runs, None, ["Ant"], None)


@pytest.mark.parametrize("family", FAMILIES)
def test_methods_share_data_network_and_discount(family):
    common = ("policy", "n_envs", "meta_batch_size", "n_steps", "policy_kwargs", "gamma")
    settings = [settings_of(method, family) for method in METHODS]
    assert len({tuple(str(s.get(name)) for name in common) for s in settings}) == 1
    reference = settings_of("bomrl-alg1", family)
    assert settings_of("random-init", family) == settings_of("multitask-trpo", family) == reference  # adapt alike
    made = plain_settings("multitask-trpo", reference)
    assert made["n_steps"] * methods.N_ENVS == reference["n_steps"] * reference["n_envs"]
    gamma = reference.get("gamma", 0.99)
    assert gamma == made["gamma"] == plain_settings("rl2", reference)["gamma"]
    assert plain_settings("rl2", reference)["n_steps"] == 4 * reference["n_steps"]


def test_overrides_reach_the_model():
    settings = settings_of("bomrl-alg2", "bomrl/HalfCheetahVel-v0", {"n_envs_per_task": 2, "reg_coef": 0.7})
    env = make_meta_vec_env("bomrl/HalfCheetahVel-v0", settings["n_envs"])
    model = make_model("bomrl-alg2", env, settings, 3)
    assert (model.distance, model.reg_coef, model.seed, model.policy.log_std[0]) == ("kl_task_meta", 0.7, 3, -0.5)
    assert env.num_envs == 2 * model.meta_batch_size
    assert all(method.algorithm in REGISTRY for method in METHODS.values())
