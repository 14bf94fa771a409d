"""Every pretrained model loads, and adapts about as well as the results say."""

import csv
from pathlib import Path

import numpy as np
import pytest

import sb3_bomrl
from sb3_bomrl import MetaAlgorithm, evaluate_adaptation, evaluate_trials, make_meta_vec_env, make_trial_vec_env
from sb3_bomrl.pretrained_models import pretrained_models

FOLDER = Path(sb3_bomrl.__file__).parent / "pretrained_models"
MODELS = pretrained_models()
FAMILIES = sorted({family for family, _ in MODELS})


def stored_scores():
    """(family, method) -> stochastic returns before and after one adaptation, from the table beside the files."""
    lines = (FOLDER / "README.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| ")]
    return {(row[0], row[1]): (float(row[5]), float(row[6])) for row in rows[1:]}


def test_the_table_lists_the_files():
    assert sorted(stored_scores()) == MODELS
    assert ("HalfCheetahVel", "bomrl") in MODELS


@pytest.mark.parametrize(("family", "method"), MODELS)
def test_every_model_loads(family, method):
    if method == "rl2":
        pytest.importorskip("sb3_contrib")
    model = sb3_bomrl.pretrained(family, method)
    assert type(model).__name__.lower() == method
    assert model.num_timesteps >= 1_000_000
    assert isinstance(model, MetaAlgorithm) == (method != "rl2")


def test_unknown_names_list_what_there_is():
    with pytest.raises(ValueError, match=r"must be one of AntDir/bomrl, .* got 'HalfCheetah' and 'bomrl'"):
        sb3_bomrl.pretrained("HalfCheetah")
    with pytest.raises(ValueError, match=r"HalfCheetahVel/rl2, .* got 'AntVel' and 'rl2'"):
        sb3_bomrl.pretrained("AntVel", "rl2")


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_the_best_model_adapts_as_the_results_say(family):
    model, (before, after) = sb3_bomrl.pretrained(family, "bomrl"), stored_scores()[family, "bomrl"]
    tasks = list(make_meta_vec_env(f"bomrl/{family}-v0", 1).get_attr("test_tasks")[0])
    tasks = tasks[3::7][:2] or tasks
    n_episodes = 40 if family.startswith("Ant") else 20
    env = make_meta_vec_env(f"bomrl/{family}-v0", 5 * len(tasks))
    curve = evaluate_adaptation(model, env, tasks, 1, n_episodes, 5, deterministic=False, seed=1)
    env.close()
    expected = np.array(task_scores(family, tasks))
    assert curve.returns.mean(2)[1].mean() == pytest.approx(expected.mean(), abs=0.25 * abs(after - before))


def task_scores(family, tasks):
    """Stored returns after one adaptation of the seed that was kept, by task."""
    line = next(row for row in (FOLDER / "README.md").read_text().splitlines() if row.startswith(f"| {family} | bomrl"))
    label, seed = (cell.strip() for cell in line.split("|")[3:5])
    path = Path(__file__).parents[2] / "benchmarks" / "results" / "comparison.csv"
    with path.open() as file:
        rows = [
            row
            for row in csv.DictReader(file)
            if (row["method"], row["env"], row["seed"]) == (label, f"bomrl/{family}-v0", seed)
            and (row["adaptations"], row["policy"]) == ("1", "stochastic")
        ]
    last = max(int(row["env_steps"]) for row in rows)
    found = {row["task"]: float(row["return"]) for row in rows if int(row["env_steps"]) == last}
    return [found[str(list(task) if isinstance(task, tuple) else task).replace(" ", "")] for task in tasks]


def test_rl2_plays_trials():
    pytest.importorskip("sb3_contrib")
    model = sb3_bomrl.pretrained("Navigation2D", "rl2")
    env = make_trial_vec_env("bomrl/Navigation2D-v0", 10, 2)
    curve = evaluate_trials(model, env, [(0.25, 0.25), (-0.25, 0.25)], 1, 5, False, seed=0)
    env.close()
    assert curve.returns.mean((1, 2))[1] > -30.0  # an untrained one has about -80
