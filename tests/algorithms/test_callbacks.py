"""SB3's callbacks see the meta-policy, every step, and can stop at once."""

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CheckpointCallback,
    EvalCallback,
    ProgressBarCallback,
)

from sb3_bomrl import BOMRL, AdaptationCallback, ProMP


class Watch(BaseCallback):
    """Writes down everything; stops after some steps."""

    def __init__(self, tiny, stop_after=None):
        super().__init__()
        self.tiny, self.stop_after = tiny, stop_after
        self.events, self.policies, self.locals_seen, self.timesteps, self.observations = [], [], [], [], []

    def _on_training_start(self):
        self.events.append("training_start")

    def _on_training_end(self):
        self.events.append("training_end")

    def _on_rollout_start(self):
        self.events.append("rollout_start")

    def _on_rollout_end(self):
        self.events.append("rollout_end")
        self.observations.append(self.locals["rollout_buffer"].observations.copy())

    def _on_step(self):
        self.events.append("step")
        self.policies.append(self.tiny.params(self.model))
        self.timesteps.append(self.num_timesteps)
        wanted = ("new_obs", "rewards", "dones", "infos")
        self.locals_seen.append({name: self.locals[name] for name in wanted})
        return self.stop_after is None or self.n_calls < self.stop_after


def test_the_policy_holds_the_meta_parameters_in_both_phases(tiny):
    model = tiny.model(n_inner_steps=20, inner_lr=0.1)  # adapted parameters are far from the meta-parameters
    start = tiny.params(model)
    watch = Watch(tiny)
    model.learn(2 * tiny.iteration, callback=watch)
    assert len(watch.policies) == 40
    for seen in watch.policies[:20]:
        tiny.assert_equal(seen, start)
    for seen in watch.policies[21:]:
        tiny.assert_equal(seen, watch.policies[20])
    assert tiny.differ(watch.policies[20], start)
    assert tiny.differ(tiny.params(model), watch.policies[20])


def test_query_rollouts_are_played_by_the_adapted_policies(tiny):
    model = tiny.model(n_inner_steps=20, inner_lr=0.1)
    adapted, rollouts = [], []
    original = model.adapt_params

    def adapt_params(*args):
        adapted.append(original(*args).params)
        return original(*args)

    model.adapt_params = adapt_params
    model.line_search = False

    class Keep(BaseCallback):
        def _on_rollout_end(self):
            rollouts.append(self.locals["rollout"])

        def _on_step(self):
            return True

    meta = {name: value[None].repeat(2, *[1] * value.ndim) for name, value in model.actor.params().items()}
    model.learn(tiny.iteration, callback=Keep())

    def log_probs(params, rollout):
        with th.no_grad():
            obs = model.actor.preprocess(rollout.observations.flatten(1, 2))
            return model.actor(params, obs).log_prob(rollout.actions.flatten(1, 2))

    support, query = rollouts
    th.testing.assert_close(log_probs(meta, support), support.log_probs.flatten(1, 2))
    th.testing.assert_close(log_probs(adapted[0], query), query.log_probs.flatten(1, 2))
    assert (log_probs(meta, query) - query.log_probs.flatten(1, 2)).abs().max() > 0.1


@pytest.mark.parametrize(("n_envs", "n_waves"), [(4, 1), (1, 2)])
def test_events_come_in_sb3s_order(tiny, n_envs, n_waves):
    watch = Watch(tiny)
    model = tiny.model(tiny.goal_vec(n_envs))
    model.learn(1, callback=watch)
    phase = ["rollout_start", *["step"] * 10, "rollout_end"]
    assert watch.events == ["training_start", *phase * 2 * n_waves, "training_end"]
    assert watch.timesteps == list(range(n_envs, 2 * n_waves * 10 * n_envs + 1, n_envs))
    assert model.num_timesteps == watch.timesteps[-1]


def test_locals_are_those_of_the_step(tiny):
    watch = Watch(tiny)
    tiny.model().learn(tiny.iteration, callback=watch)
    for number, seen in enumerate(watch.locals_seen):
        assert seen["new_obs"].shape == (4, 2)
        assert seen["rewards"].shape == (4,)
        assert len(seen["infos"]) == 4
        np.testing.assert_array_equal(seen["dones"], number % 10 == 9)
        if seen["dones"].all():
            assert all("episode" in info for info in seen["infos"])
    buffer = watch.observations[0]
    np.testing.assert_array_equal(buffer[1:], [seen["new_obs"] for seen in watch.locals_seen[:9]])


@pytest.mark.parametrize("stop_after", [1, 7, 10, 11, 20])
def test_returning_false_stops_at_once(tiny, stop_after):
    env = tiny.goal_vec(4)
    model = tiny.model(env)
    watch = Watch(tiny, stop_after)
    start = tiny.params(model)
    model.learn(10 * tiny.iteration, callback=watch)
    assert model.num_timesteps == 4 * stop_after
    assert [e.unwrapped.n_steps for e in env.envs] == [stop_after] * 4
    assert watch.events[-1] == "training_end"
    tiny.assert_equal(tiny.params(model), start)


@pytest.mark.parametrize(
    ("budget", "steps", "iterations"),
    [(1, 80, 1), (80, 80, 1), (81, 120, 1), (120, 120, 1), (121, 160, 2), (160, 160, 2)],
)
def test_the_budget_is_checked_between_the_phases(tiny, budget, steps, iterations):
    model = tiny.model()
    model.learn(budget)
    assert (model.num_timesteps, model.n_meta_iterations) == (steps, iterations)


@pytest.mark.parametrize(("n_envs", "iteration"), [(4, 80), (1, 40)])
def test_a_budget_below_one_meta_iteration_is_warned_of(tiny, n_envs, iteration):
    model = tiny.model(tiny.goal_vec(n_envs))
    message = f"total_timesteps={iteration - 1} is less than one meta-iteration of {iteration} steps, which is played"
    with pytest.warns(UserWarning, match=message) as warned:
        model.learn(iteration - 1)
    assert len(warned) == 1
    assert warned[0].filename == __file__
    assert model.num_timesteps == iteration


def test_the_warning_of_a_small_budget_counts_every_support_phase_in_thousands(tiny):
    model = tiny.model(cls=ProMP, n_steps=200, n_adaptation_steps=2)
    with pytest.warns(UserWarning, match="total_timesteps=2,000 is less than one meta-iteration of 2,400 steps"):
        model.learn(2_000)


@pytest.mark.filterwarnings("error:total_timesteps")
def test_no_budget_no_steps(tiny):
    model = tiny.model()
    model.learn(0)
    assert model.num_timesteps == 0
    model.learn(tiny.iteration)  # a whole meta-iteration needs no warning


def test_learning_on_counts_on(tiny, algorithm):
    model = tiny.model(cls=algorithm)
    iteration = tiny.iteration_of(model)
    model.learn(iteration)
    model.learn(iteration, reset_num_timesteps=False)
    assert (model.num_timesteps, model.n_meta_iterations) == (2 * iteration, 2)
    model.learn(iteration)
    assert model.num_timesteps == iteration


def test_eval_callback_scores_and_saves_the_meta_policy(tiny, tmp_path):
    model = tiny.model(n_inner_steps=20, inner_lr=0.1)
    start = tiny.params(model)
    callback = EvalCallback(
        tiny.goal_vec(1),
        n_eval_episodes=2,
        eval_freq=15,
        best_model_save_path=str(tmp_path),
        log_path=str(tmp_path),
        verbose=0,
    )
    model.learn(tiny.iteration, callback=callback)  # the only evaluation falls in the query phase
    np.testing.assert_array_equal(np.load(tmp_path / "evaluations.npz")["timesteps"], [60])
    tiny.assert_equal(tiny.params(BOMRL.load(tmp_path / "best_model")), start)


def test_checkpoint_callback(tiny, tmp_path):
    model = tiny.model(n_inner_steps=20, inner_lr=0.1)
    watch = Watch(tiny)
    model.learn(2 * tiny.iteration, callback=[watch, CheckpointCallback(15, str(tmp_path))])
    files = sorted(tmp_path.iterdir(), key=lambda path: int(path.stem.split("_")[-2]))
    assert [path.name for path in files] == ["rl_model_60_steps.zip", "rl_model_120_steps.zip"]
    for path, call in zip(files, [14, 29], strict=True):
        tiny.assert_equal(tiny.params(BOMRL.load(path)), watch.policies[call])


@pytest.mark.filterwarnings("ignore::tqdm.TqdmExperimentalWarning")
def test_progress_bar(tiny, algorithm):
    model = tiny.model(cls=algorithm)
    total = 2 * tiny.iteration_of(model)
    callback = ProgressBarCallback()
    model.learn(total, callback=callback)
    assert callback.pbar.n == callback.pbar.total == total


def test_the_adaptation_callback_scores_any_algorithm(tiny, algorithm):
    tasks = [np.array([0.8, -0.3]), np.array([-0.5, 0.5])]
    callback = AdaptationCallback(
        tiny.goal_vec(2), tasks, n_adaptation_steps=2, n_episodes=2, n_eval_episodes=1, eval_freq=10, verbose=0
    )
    model = tiny.model(cls=algorithm)
    model.learn(1, callback=callback)
    assert len(callback.evaluations) == 1 + model.n_support_phases + 1 + 1  # the control, one per phase, the last
    _, curve = callback.evaluations[-1]
    assert curve.returns.shape == (3, 2, 1)
    assert np.isfinite(curve.returns).all()
    assert len(np.unique(curve.returns[:, 0])) == 3  # every adaptation changes the policy
