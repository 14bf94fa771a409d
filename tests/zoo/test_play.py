"""Reading a task and adapting to it, as both command lines do."""

import pytest
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecNormalize

from sb3_bomrl import BOMRL, make_meta_vec_env
from sb3_bomrl.zoo.play import adapt_and_print, parse_task

TASK = (0.4, -0.1)


def env(n_envs=4, **kwargs):
    return make_meta_vec_env("bomrl/Navigation2D-v0", n_envs, env_kwargs={"horizon": 5, **kwargs})


def make(venv):
    return BOMRL("MlpPolicy", venv, n_steps=10, meta_batch_size=2, n_inner_steps=2, seed=0, device="cpu")


def test_prints_the_return_after_every_adaptation_step(capsys):
    model, test_env = make(env()), env(6, task=TASK)
    adapted = adapt_and_print(model, env(6), TASK, n_episodes=4, n_steps=2, seed=3)
    printed = capsys.readouterr().out.splitlines()
    expected = [f"Task {TASK}: return {evaluate_policy(model, test_env, 6)[0]:.2f} before adaptation"]
    for step in range(2):
        model = model.adapt(test_env, 4, seed=3 + step)
        after = evaluate_policy(model, test_env, 6)[0]
        expected.append(f"Task {TASK}: return {after:.2f} after {step + 1} adaptation(s) of 4 episodes")
    assert printed == expected
    assert all((a == b).all() for a, b in zip(model.policy.parameters(), adapted.policy.parameters(), strict=True))


def test_models_that_need_another_normaliser_are_refused(tmp_path):
    make(VecNormalize(env())).save(tmp_path / "model.zip")
    with pytest.raises(ValueError, match="--task needs a model that normalises its observations itself"):
        adapt_and_print(BOMRL.load(tmp_path / "model.zip"), env(), TASK, 4, 1)


def test_tasks_are_literals():
    assert parse_task("(0.4, -0.1)") == TASK
    for text in ("fast", "(1", "1 +", "__import__('os')"):
        with pytest.raises(ValueError, match=r"task must be a Python literal such as 1\.3"):
            parse_task(text)
