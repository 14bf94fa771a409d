"""TensorBoard's files, read back."""

import numpy as np
import pytest

event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")

SHARED = {
    "rollout/ep_rew_mean",
    "rollout/ep_len_mean",
    "time/fps",
    "meta/pre_adapt_return",
    "meta/post_adapt_return",
    "meta/adaptation_gain",
    "meta/fraction_improved",
    "inner/kl",
    "inner/gradient_norm",
    "meta_gradient/norm",
    "time/meta_gradient",
    "outer/kl",
    "train/value_loss",
    "train/learning_rate",
    "time/rollout",
    "time/adapt",
    "time/outer",
}
OWN = {"ProMP": {"promp/kl", "promp/kl_coef"}, "BOMRL": {"hypergradient/cg_residual"}}


def scalars_of(folder):
    reader = event_accumulator.EventAccumulator(str(folder))
    reader.Reload()
    return {name: [(event.step, event.value) for event in reader.Scalars(name)] for name in reader.Tags()["scalars"]}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # tensorboard's own
def test_every_metric_is_there_at_every_iteration(tiny, algorithm, tmp_path):
    model = tiny.model(cls=algorithm, tensorboard_log=str(tmp_path), baseline="value_net")
    iteration = tiny.iteration_of(model)
    model.learn(2 * iteration)
    name = algorithm.__name__
    found = scalars_of(tmp_path / f"{name}_1")
    assert SHARED | OWN.get(name, set()) <= set(found)
    for metric, rows in found.items():
        assert [step for step, _ in rows] == [iteration, 2 * iteration], metric
        assert np.isfinite([value for _, value in rows]).all(), metric
    assert found["rollout/ep_len_mean"][-1][1] == 10
    gains = np.subtract(*(np.array(found[f"meta/{phase}_adapt_return"])[:, 1] for phase in ("post", "pre")))
    np.testing.assert_allclose(np.array(found["meta/adaptation_gain"])[:, 1], gains, atol=1e-4)

    model.learn(iteration, reset_num_timesteps=False)  # the same run
    steps = [step for step, _ in scalars_of(tmp_path / f"{name}_1")["outer/kl"]]
    assert sorted(steps) == [k * iteration for k in (1, 2, 3)]  # two files, read in any order
    model.learn(1, tb_log_name="mine")
    assert [step for step, _ in scalars_of(tmp_path / "mine_1")["outer/kl"]] == [iteration]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([f"{name}_1", "mine_1"])
