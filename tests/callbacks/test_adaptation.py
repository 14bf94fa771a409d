"""AdaptationCallback: what it records, what it saves, and that it leaves training alone."""

import csv

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import ConvertCallback, StopTrainingOnRewardThreshold
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecNormalize

from sb3_bomrl import BOMRL, MAML, AdaptationCallback, TaskSamplerWrapper, evaluate_adaptation, make_meta_vec_env
from sb3_bomrl.saving.files import write_atomically

ENV_ID = "bomrl/Navigation2D-v0"
TASKS = [(0.3, 0.2), (-0.4, 0.1), (0.0, -0.5)]


def make_model(seed=0, **kwargs):
    env = make_meta_vec_env(ENV_ID, 6, seed=seed)
    return BOMRL(
        "MlpPolicy",
        env,
        n_steps=100,
        meta_batch_size=3,
        n_inner_steps=5,
        policy_kwargs={"net_arch": [16]},
        seed=seed,
        **kwargs,
    )


def make_callback(**kwargs):
    settings = {"n_adaptation_steps": 2, "n_episodes": 4, "n_eval_episodes": 3, "eval_freq": 200, "verbose": 0}
    return AdaptationCallback(make_meta_vec_env(ENV_ID, 4), TASKS, **{**settings, **kwargs})


def test_records_are_what_evaluation_returns(tmp_path):
    model = make_model()
    callback = make_callback(log_path=str(tmp_path), best_model_save_path=str(tmp_path / "best"))
    model.learn(2 * 2 * 100 * 6, callback=callback)

    with np.load(tmp_path / "evaluations.npz") as file:  # allow_pickle=False: plain arrays only
        data = dict(file)
    # the control, one evaluation per meta-iteration before its update, and the meta-policy that training ends with
    assert data["timesteps"].tolist() == [0, 1200, 2400, 2400]
    assert data["results"].shape == data["ep_lengths"].shape == (4, 3 * 3)
    assert data["adaptation_returns"].shape == (4, 3, 3, 3)
    np.testing.assert_array_equal(data["results"], data["adaptation_returns"][:, -1].reshape(4, -1))
    assert (data["ep_lengths"] == 100).all()
    # support episodes only: 4 episodes of 100 steps per adaptation
    assert (data["adaptation_env_steps"] == np.array([0, 400, 800])[None, :, None]).all()
    assert data["tasks"].tolist() == [repr(task) for task in TASKS]

    rows = list(csv.DictReader((tmp_path / "adaptation.csv").read_text().splitlines()))
    assert len(rows) == 4 * 3 * 3
    assert [row["timesteps"] for row in rows[:: 3 * 3]] == ["0", "1200", "2400", "2400"]
    mean = np.mean([float(row["mean_return"]) for row in rows[-3 * 3 :] if row["adaptation_steps"] == "2"])
    assert mean == pytest.approx(callback.last_mean_reward)
    assert callback.best_mean_reward == pytest.approx(data["results"][1:].mean(1).max())

    best = BOMRL.load(tmp_path / "best" / "best_model")
    assert evaluate(best)[-1].mean() == pytest.approx(callback.best_mean_reward)


def test_training_is_the_same_with_and_without_it():
    with_callback = make_model().learn(2400, callback=make_callback(eval_freq=150, n_adaptation_steps=1))
    without = make_model().learn(2400)
    assert with_callback.num_timesteps == without.num_timesteps == 2400
    for a, b in zip(with_callback.policy.parameters(), without.policy.parameters(), strict=True):
        assert th.equal(a, b)


def test_logs_every_number_of_adaptations(log_rows):
    model = make_model()
    rows = log_rows(model)
    model.learn(1200, callback=make_callback())
    names = {"meta/eval_return_0", "meta/eval_return_1", "meta/eval_return_2", "eval/mean_reward"}
    first, *later = [row for row in rows if any("eval" in name for name in row)]
    assert set(first) == {f"meta/eval_control_{k}" for k in range(3)} | {"time/total_timesteps"}
    assert first["time/total_timesteps"] == 0
    assert len(later) == 2  # in the meta-iteration, and of what training ends with
    for row in later:
        assert names <= set(row)
        assert not any("control" in name for name in row)
        assert row["eval/mean_reward"] == row["meta/eval_return_2"]


def evaluate(model):
    """What a callback of ``make_callback`` records of the model as it is."""
    return evaluate_adaptation(model, make_meta_vec_env(ENV_ID, 4), TASKS, 2, 4, 3, deterministic=False).returns


@pytest.mark.parametrize("eval_freq", [0, 10_000])
def test_what_training_ends_with_is_always_scored(tmp_path, eval_freq):
    callback = make_callback(eval_freq=eval_freq, control=False, best_model_save_path=str(tmp_path))
    model = make_model().learn(1200, callback=callback)
    [(timesteps, curve)] = callback.evaluations
    assert timesteps == 1200
    np.testing.assert_array_equal(curve.returns, evaluate(model))
    assert callback.best_mean_reward == callback.last_mean_reward == curve.returns[-1].mean()
    np.testing.assert_array_equal(curve.returns, evaluate(BOMRL.load(tmp_path / "best_model")))


def test_a_step_size_that_ends_at_0_does_not_end_the_run_with_an_error(tiny):
    callback = AdaptationCallback(tiny.goal_vec(), [np.zeros(2)], 1, 1, 1, eval_freq=0, verbose=0)
    model = tiny.model(cls=MAML, inner_lr=LinearSchedule(0.1, 0.0, 1.0))
    with pytest.warns(RuntimeWarning, match="the trained meta-policy could not be scored: inner_lr must be above 0"):
        model.learn(tiny.iteration_of(model), callback=callback)
    assert model.n_meta_iterations == 1
    assert [at for at, _ in callback.evaluations] == [0]


@pytest.mark.parametrize(("eval_freq", "timesteps"), [(30, [120]), (29, [116]), (19, [76, 120])])
def test_a_policy_that_has_been_scored_is_not_scored_again(tiny, eval_freq, timesteps):
    """The second meta-iteration is given up after 30 steps in all, so that the first one's policy is the last."""
    settings = {"n_episodes": 1, "n_eval_episodes": 1, "control": False, "verbose": 0}
    callback = AdaptationCallback(tiny.goal_vec(), [np.zeros(2)], eval_freq=eval_freq, **settings)
    model = tiny.model().learn(tiny.iteration + 1, callback=callback)
    assert (model.n_meta_iterations, model.num_timesteps) == (1, 120)
    assert [at for at, _ in callback.evaluations] == timesteps


def test_the_control_is_the_meta_policy_before_training(capsys):
    model = make_model()
    before = evaluate(model)
    seen = ConvertCallback(lambda *_: True)
    callback = make_callback(eval_freq=0, verbose=1, callback_after_eval=seen)
    model.learn(1200, callback=callback)
    (start, control), (end, _) = callback.evaluations
    assert (start, end) == (0, 1200)
    np.testing.assert_array_equal(control.returns, before)
    assert callback.best_mean_reward == callback.last_mean_reward != control.returns[-1].mean()
    assert seen.n_calls == 1, "the control is no event"
    first, last = capsys.readouterr().out.splitlines()
    means = " -> ".join(f"{value:.1f}" for value in before.mean((1, 2)))
    assert first == f"Before training (control), 3 tasks: {means}"
    assert last.startswith("After training, 1200 steps, 3 tasks: ")


def test_a_control_better_than_training_is_not_the_best_model(tmp_path):
    callback = make_callback(eval_freq=0, best_model_save_path=str(tmp_path))
    model = make_model()
    model.learn(0, callback=callback)
    assert [at for at, _ in callback.evaluations] == [0]
    assert callback.best_mean_reward == -np.inf
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_goes_on_has_no_new_control():
    model = make_model().learn(1200)
    callback = make_callback(eval_freq=0)
    model.learn(1200, callback=callback, reset_num_timesteps=False)
    assert [at for at, _ in callback.evaluations] == [2400]


def test_new_best_can_stop_training():
    callback = make_callback(callback_on_new_best=StopTrainingOnRewardThreshold(-1e9, verbose=0), eval_freq=50)
    model = make_model().learn(100_000, callback=callback)
    assert model.num_timesteps == 50 * 6


def test_needs_a_meta_algorithm():
    with pytest.raises(ValueError, match=r"AdaptationCallback needs a MetaAlgorithm.*got PPO"):
        PPO("MlpPolicy", "CartPole-v1", n_steps=8, batch_size=8).learn(8, callback=make_callback())


def test_evaluation_refuses_what_it_cannot_do():
    model = make_model()
    env = make_meta_vec_env(ENV_ID, 4)
    with pytest.raises(ValueError, match="tasks must hold at least one task"):
        evaluate_adaptation(model, env, [])
    with pytest.raises(ValueError, match=r"n_adaptation_steps must be .* got -1"):
        evaluate_adaptation(model, env, TASKS, n_adaptation_steps=-1)
    with pytest.raises(ValueError, match=r"n_eval_episodes must be .* got 0"):
        evaluate_adaptation(model, env, TASKS, n_eval_episodes=0)
    cartpole = BOMRL("MlpPolicy", "CartPole-v1", n_steps=8, meta_batch_size=1, n_envs_per_task=2)
    with pytest.raises(ValueError, match="tasks must be None for an env without set_task"):
        evaluate_adaptation(cartpole, gym.make("CartPole-v1"), [1.0])


@pytest.mark.parametrize("n_envs", [1, 2, 3, 5])
def test_any_number_of_environments_evaluates_any_number_of_tasks(n_envs):
    curve = evaluate_adaptation(make_model(), make_meta_vec_env(ENV_ID, n_envs), TASKS, 1, 2, 2)
    assert curve.returns.shape == (2, 3, 2)
    assert curve.env_steps.tolist() == [[0, 0, 0], [200, 200, 200]]
    assert curve.tasks == TASKS
    assert all(value.shape[0] == 3 for params in curve.params for value in params.values())


def test_an_environment_that_plays_no_task_yet_is_evaluated():
    """The tasks to score are given apart, so the environment needs none of its own before."""

    def set_length(env, length):
        env.unwrapped.length = length

    def make_env():
        env = gym.make("CartPole-v1")
        return TaskSamplerWrapper(env, lambda rng: rng.uniform(0.3, 1.0), set_length, test_tasks=[0.4, 0.8])

    env, test_env = make_vec_env(make_env, 2), make_vec_env(make_env, 2)
    model = BOMRL("MlpPolicy", env, n_steps=10, meta_batch_size=2, n_inner_steps=2, seed=0)
    assert test_env.env_method("get_task") == [None, None]
    curve = evaluate_adaptation(model, test_env, n_adaptation_steps=1, n_episodes=1, n_eval_episodes=1)
    assert curve.tasks == [0.4, 0.8]
    assert test_env.env_method("get_task") == curve.tasks
    with pytest.raises(ValueError, match=r"env must be an environment or VecEnv, got 0\.4"):
        evaluate_adaptation(model, 0.4)


def test_an_interrupted_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "record"
    path.write_bytes(b"old")

    def fail(file):
        file.write(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, fail)
    assert path.read_bytes() == b"old"


def test_statistics_of_the_training_environment_are_synchronised(tiny):
    env = VecNormalize(tiny.goal_vec(4))
    eval_env = VecNormalize(tiny.goal_vec(2), training=False, norm_reward=False)
    settings = {"n_adaptation_steps": 0, "n_episodes": 1, "n_eval_episodes": 1, "eval_freq": 40, "verbose": 0}
    counts = []
    keep = ConvertCallback(lambda *_: counts.append((eval_env.obs_rms.count, eval_env.ret_rms.count)) or True)
    callback = AdaptationCallback(eval_env, [np.ones(2)], callback_after_eval=keep, **settings)
    tiny.model(env).learn(2 * tiny.iteration, callback=callback)
    in_second, at_end = counts
    assert in_second == pytest.approx((tiny.iteration + 2 * 4, tiny.iteration), abs=1e-3)
    assert at_end == pytest.approx((2 * (tiny.iteration + 2 * 4), 2 * tiny.iteration), abs=1e-3)


def test_an_environment_that_normalises_something_else_is_refused(tiny):
    callback = AdaptationCallback(VecNormalize(tiny.goal_vec(2), norm_obs=False), [np.ones(2)], eval_freq=1, verbose=0)
    with pytest.raises(ValueError, match="eval_env must have norm_obs=True as the training environment, got False"):
        tiny.model(VecNormalize(tiny.goal_vec(4))).learn(1, callback=callback)


@pytest.mark.parametrize("name", ["evaluations.npz", "adaptation.csv", "best_model.zip"])
def test_a_full_disk_does_not_end_the_training(tiny, tmp_path, name):
    (tmp_path / name).symlink_to("/dev/full")
    settings = {"n_episodes": 1, "n_eval_episodes": 1, "eval_freq": 20, "log_path": str(tmp_path), "verbose": 0}
    callback = AdaptationCallback(tiny.goal_vec(), [np.zeros(2)], **settings, best_model_save_path=str(tmp_path))
    with pytest.warns(RuntimeWarning, match=rf"could not be recorded \(.*No space left.*{name}'\): training goes on"):
        model = tiny.model().learn(tiny.iteration, callback=callback)
    assert (model.n_meta_iterations, len(callback.evaluations)) == (1, 3)
    for written in {"evaluations.npz", "adaptation.csv", "best_model.zip"} - {name}:
        assert (tmp_path / written).stat().st_size > 0, "one that fails does not cost the others"


def test_a_file_in_place_of_its_folder_is_named_before_training(tiny, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    callback = AdaptationCallback(tiny.goal_vec(), [np.zeros(2)], log_path=str(tmp_path / "file"))
    with pytest.raises(NotADirectoryError, match="file must be a folder, but"):
        tiny.model().learn(tiny.iteration, callback=callback)
