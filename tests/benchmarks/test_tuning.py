"""The tuning budget, of settings that reach the model, and what its table says."""

import inspect
import json

import numpy as np
import pytest

from benchmarks import tuning
from benchmarks.locomotion.methods import METHODS, make_model, plain_settings, settings_of
from benchmarks.provenance import RESULTS
from sb3_bomrl import make_meta_vec_env
from sb3_bomrl.zoo import REGISTRY


@pytest.mark.parametrize("env", tuning.TRIES)
def test_every_method_gets_as_many_runs_of_settings_that_it_has(env):
    for method, tries in tuning.TRIES[env].items():
        n_rounds = {"maml": 4, "fomaml": 4, "emaml": 4, "promp": 3, "reptile": 3, "rl2": 3}
        n_runs = 4 * n_rounds.get(method, 2) if env == "Navigation2D" else 4
        assert len({tuning.label_of(method, overrides) for overrides in tries}) == n_runs
        settings = settings_of(method, env)
        vec_env = make_meta_vec_env(f"bomrl/{env}-v0", settings["n_envs"])
        for overrides in tries:
            changed = {**settings, **overrides}
            if METHODS[method].kind == "rl2":
                made = plain_settings(method, changed)
                assert {name: made[name.removeprefix("rl2_")] for name in overrides} == overrides
                assert overrides.keys() >= {"rl2_learning_rate", "rl2_n_epochs"}
                continue
            model = make_model(method, vec_env, changed, 0)
            assert model.outer_step == changed.get("outer_step", model.outer_step)
            for name, value in overrides.items() - {("outer_step", "adam")}:
                schedule = getattr(model, name)
                start = schedule(1.0) if callable(schedule) else schedule
                assert start == float(str(value).removeprefix("lin_")), (method, name)
        vec_env.close()


def test_meta_algorithms_of_tuning_are_those_of_the_package():
    tuned = {METHODS[method].algorithm for tries in tuning.TRIES.values() for method in tries}
    assert tuned == set(REGISTRY)


def chosen(env, method):
    """The best of what was tried; of what more seeds were run with, where there is any."""
    found = tuning.finished(RESULTS / "tuning", env)
    runs = [found[tuning.label_of(method, overrides)] for overrides in tuning.TRIES[env][method]]
    finals = [same for same in runs if len(same) > 1]
    if finals:
        names = {tuning.label_of(method, one) for one in tuning.finalists(RESULTS / "tuning", env, method)}
        assert {same[0]["label"] for same in finals} >= names  # some were finalists before a later round
        assert {tuple(run["seed"] for run in same) for same in finals} == {(tuning.SEED, *tuning.MORE_SEEDS)}
    return max(finals or runs, key=lambda same: sum(tuning.returns_of(same)))[0]


@pytest.mark.parametrize(("env", "method"), [(env, method) for env, tries in tuning.TRIES.items() for method in tries])
def test_the_comparison_uses_what_the_tuning_chose(env, method):
    run = chosen(env, method)
    settings = settings_of(method, env)
    if METHODS[method].kind == "rl2":
        assert plain_settings(method, settings) == plain_settings(method, run["settings"])
        return
    parameters = inspect.signature(REGISTRY[METHODS[method].algorithm]).parameters
    names = {*run["overrides"], "outer_step"} & parameters.keys()
    assert names >= run["overrides"].keys()
    used, tuned = (
        {name: given.get(name, parameters[name].default) for name in names} for given in (settings, run["settings"])
    )
    assert used == tuned


def test_the_table_has_the_interquartile_mean_after_one_adaptation(tmp_path):
    overrides = tuning.TRIES["Navigation2D"]["maml"][1]
    label = tuning.label_of("maml", overrides)
    row = {"is_final": True, "stochastic": [[0.0] * 4, [-9.0, -2.0, -4.0, 100.0]], "deterministic": [[0.0] * 4] * 2}
    row["tasks"] = [0.1, 0.2, 0.3, 0.4]
    head = {"env": "bomrl/Navigation2D-v0", "label": label, "seed": tuning.SEED, "timesteps": 1}
    path = tmp_path / "Navigation2D" / label / "seed_100.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({**head, "rows": [row]}))
    _, _, line = tuning.table(tmp_path).splitlines()
    tried = ", ".join(f"{name} {value}" for name, value in overrides.items())
    assert line == f"| Navigation2D | maml | {tried} | 1 | {np.mean([-2.0, -4.0]):.1f} | 0.0 |"


def test_the_finalists_are_the_best_of_the_first_seed(tmp_path):
    tries = tuning.TRIES["Navigation2D"]["promp"]
    with pytest.raises(SystemExit, match=r"promp,inner_lr=0.3,learning_rate=0.001 has no finished run on Navigation2D"):
        tuning.finalists(tmp_path, "Navigation2D", "promp")
    for number, overrides in enumerate(tries):
        for seed, sign in ((tuning.SEED, 1.0), (tuning.MORE_SEEDS[0], -1.0)):
            # stochastic falls by 1 per number and deterministic rises by 3, for the first seed
            row = {"is_final": True, "tasks": [0.1], "stochastic": [[0.0], [-sign * number]]}
            row["deterministic"] = [[0.0], [3.0 * sign * number]]
            head = {"env": "bomrl/Navigation2D-v0", "label": tuning.label_of("promp", overrides), "seed": seed}
            path = tmp_path / "Navigation2D" / head["label"] / f"seed_{seed}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({**head, "timesteps": 1, "rows": [row]}))
    assert tuning.finalists(tmp_path, "Navigation2D", "promp") == tries[:-4:-1]
    assert tuning.table(tmp_path).splitlines()[-1].endswith("| 2 | 0.0 | 0.0 |")


def test_only_what_is_missing_is_run_and_a_kl_with_trpo(tmp_path, monkeypatch):
    first, *others = tuning.TRIES["Navigation2D"]["maml"]
    label = tuning.label_of("maml", first)
    path = tmp_path / "Navigation2D" / label / "seed_100.json"
    path.parent.mkdir(parents=True)
    head = {"env": "bomrl/Navigation2D-v0", "label": label, "seed": tuning.SEED, "timesteps": 1}
    # of a time when the configuration file said something else
    row = {"is_final": True, "tasks": [0.1], "stochastic": [[0.0], [1.0]], "deterministic": [[0.0], [1.0]]}
    path.write_text(json.dumps({**head, "settings": {"outer_step": "trpo"}, "rows": [row]}))
    ran = []
    monkeypatch.setattr(tuning, "run", lambda *arguments: ran.append(arguments))
    command = ["tuning", "run", "--env", "Navigation2D", "--methods", "maml", "--results", str(tmp_path)]
    monkeypatch.setattr("sys.argv", command)
    tuning.main()
    assert [place.label for *_, place, _, _ in ran] == [tuning.label_of("maml", one) for one in others]
    for *_, overrides in ran:
        settings = {**settings_of("maml", "Navigation2D"), **overrides}
        assert settings["outer_step"] == ("trpo" if "max_kl" in overrides else "adam")


def test_unknown_methods_are_named(monkeypatch):
    monkeypatch.setattr("sys.argv", ["tuning", "run", "--env", "HalfCheetahVel", "--methods", "sac"])
    with pytest.raises(SystemExit, match=r"methods must be among bomrl-alg1, .* got sac"):
        tuning.main()
