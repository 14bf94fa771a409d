"""The tables of docs/logging.md hold exactly what training logs."""

import ast
import re
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_bomrl import BOMRL, EMAML, FOMAML, MAML, AdaptationCallback, ProMP, Reptile, make_meta_vec_env

ROOT = Path(__file__).parents[1]
ENV_ID = "bomrl/Navigation2D-v0"
TINY = {"n_steps": 100, "meta_batch_size": 2, "policy_kwargs": {"net_arch": [8]}, "seed": 0, "device": "cpu"}
ADAM_WITH_CRITIC = {"outer_step": "adam", "baseline": "value_net", "n_critic_updates": 1}


def rows(section):
    """Metric -> its other cells."""
    text = (ROOT / "docs" / "logging.md").read_text().split(f"## {section}\n")[1].split("\n## ")[0]
    cells = [
        [cell.strip() for cell in row.strip("|").split("|")] for row in re.findall(r"^\| `.*\|$", text, re.MULTILINE)
    ]
    names = [row[0].strip("`") for row in cells]
    assert len(set(names)) == len(names)
    return dict(zip(names, (row[1:] for row in cells), strict=True))


def deprecated():
    """Names that are logged for one more version."""
    line = re.search(r"^Deprecated names.+?$", (ROOT / "docs" / "logging.md").read_text(), re.MULTILINE)[0]
    return set(re.findall(r"`([a-z_/]+)`", line))


@pytest.fixture
def logged(log_rows):
    """The names that a model logs while it learns, its last row included."""

    def names(model, n_steps=1, callback=None):
        written = log_rows(model)
        model.learn(n_steps, callback=callback)
        return {re.sub(r"^(meta/eval_(?:return|control))_\d+$", r"\1_k", name) for row in written for name in row}

    return names


class SuccessEnv(gym.Env):
    """Episodes of two steps that say whether they succeeded."""

    observation_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.t += 1
        return np.zeros(1, np.float32), float(action), self.t == 2, False, {"is_success": action == 1}


def batch_env():
    return make_meta_vec_env(ENV_ID, 2, seed=0)


def of_every_meta_algorithm(logged):
    test_env = make_meta_vec_env(ENV_ID, 2)
    evaluate = AdaptationCallback(test_env, [(0.1, 0.2), (0.3, 0.1)], 2, 1, 1, eval_freq=100, verbose=0)
    names = logged(BOMRL("MlpPolicy", batch_env(), n_inner_steps=2, line_search=True, **TINY), callback=evaluate)
    names |= logged(BOMRL("MlpPolicy", batch_env(), n_inner_steps=2, **ADAM_WITH_CRITIC, **TINY))
    for algorithm in (MAML, FOMAML, EMAML, ProMP):
        names |= logged(algorithm("MlpPolicy", batch_env(), **TINY))
    names |= logged(Reptile("MlpPolicy", batch_env(), n_adaptation_steps=2, **TINY))
    with_success = DummyVecEnv([lambda: Monitor(SuccessEnv())] * 2)
    return names | logged(BOMRL("MlpPolicy", with_success, n_inner_steps=2, **TINY | {"n_steps": 10}))


def test_the_table_of_the_meta_algorithms_is_what_they_log(logged):
    assert of_every_meta_algorithm(logged) - deprecated() == set(rows("Meta-algorithms"))


def test_the_table_of_rl2_is_what_it_logs(logged):
    pytest.importorskip("sb3_contrib")
    from sb3_bomrl import RL2

    settings = {"n_envs": 1, "n_steps": 200, "episodes_per_trial": 2, "n_epochs": 1, "clip_range_vf": 0.2}
    model = RL2("MlpLstmPolicy", ENV_ID, seed=0, device="cpu", **settings)
    # what an update logs is in the row after the next rollout
    assert logged(model, n_steps=201) == set(rows("RL²"))


def test_no_name_in_the_code_is_missing():
    """Also one that none of the runs above logs."""
    written = set()
    for path in (ROOT / "sb3_bomrl").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            is_record = (
                isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "record"
            )
            if is_record and node.args and isinstance(node.args[0], ast.Constant):
                written.add(node.args[0].value)
    assert "hypergradient/cg_residual" in written
    assert written <= set(rows("Meta-algorithms")) | deprecated()


@pytest.mark.parametrize("section", ["Meta-algorithms", "RL²"])
def test_rows_are_whole(section):
    """Unit (empty where there is none), meaning, when to worry (or a dash)."""
    for name, cells in rows(section).items():
        assert len(cells) == 3, name
        assert cells[1], name
        assert cells[2], name


def test_other_pages_speak_of_metrics_that_exist():
    known = set(rows("Meta-algorithms")) | set(rows("RL²"))
    assert not known & deprecated()
    prefixes = "|".join(sorted({name.split("/")[0] for name in known}))
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        text = re.sub(r"^Deprecated names.+?$", "", page.read_text(), flags=re.MULTILINE)
        for name in re.findall(rf"`((?:{prefixes})/[a-z_0-9]+)`", text):
            assert name in known, (page.name, name)
