"""A run of any algorithm that is killed in the middle goes on bit for bit."""

import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecNormalize

from sb3_bomrl import ExactCheckpointCallback, load_checkpoint
from sb3_bomrl.saving.checkpoints import checkpoints


class StopAt(BaseCallback):
    """Stop as a killed run does: in the middle of a phase, without a word."""

    def __init__(self, at):
        super().__init__()
        self.at = at

    def _on_step(self):
        return self.num_timesteps < self.at


def everything(model):
    """All that a further iteration depends on, or that a user can see."""
    slots = model.policy.optimizer.state_dict()["state"]
    rms = model.get_vec_normalize_env().obs_rms
    return {
        "weights": [value.tolist() for value in model.policy.state_dict().values()],
        "optimizer": [[th.as_tensor(value).tolist() for value in slot.values()] for slot in slots.values()],
        "generator": model.task_generator.bit_generator.state,
        "counters": [model.num_timesteps, model.n_meta_iterations, model._n_updates, model._current_progress_remaining],
        "step sizes": [model._now(name) for name in model.scheduled],
        "normaliser": [rms.mean.tolist(), rms.var.tolist(), rms.count],
        "kl_coefs": getattr(model, "kl_coefs", None),
    }


def test_a_killed_run_ends_as_the_one_that_was_left_alone(tiny, algorithm, tmp_path):
    def env():
        return VecNormalize(tiny.goal_vec(4))

    def model():
        settings = {"baseline": "value_net", "inner_lr": LinearSchedule(0.1, 0.01, 1.0)}
        return tiny.model(env(), cls=algorithm, **settings)

    straight = model()
    iteration = tiny.iteration_of(straight)
    total = 3 * iteration
    straight.learn(total)
    killed = model()
    killed.learn(total, callback=[ExactCheckpointCallback(tmp_path, 1), StopAt(iteration + 12)])
    assert killed.num_timesteps == iteration + 12
    resumed = load_checkpoint(algorithm, tmp_path, env(), device="cpu")
    assert resumed.n_meta_iterations == 1
    resumed.resume(callback=ExactCheckpointCallback(tmp_path, 1))
    assert everything(resumed) == everything(straight)
    assert [path.name for path in checkpoints(tmp_path)] == [f"checkpoint_{n:08d}.zip" for n in (2, 3)]
    assert resumed.resume().num_timesteps == total


def test_the_comparison_can_fail(tiny, algorithm, tmp_path):
    model = tiny.model(VecNormalize(tiny.goal_vec(4)), cls=algorithm)
    model.learn(1, callback=ExactCheckpointCallback(tmp_path, 1))
    resumed = load_checkpoint(algorithm, tmp_path, VecNormalize(tiny.goal_vec(4)), device="cpu")
    assert everything(resumed) == everything(model)
    resumed.task_generator.integers(2)
    differing = [name for name, value in everything(resumed).items() if value != everything(model)[name]]
    assert differing == ["generator"]
    for one in (model, resumed):
        one.learn(1, reset_num_timesteps=False)
    assert everything(resumed)["weights"] != everything(model)["weights"]
