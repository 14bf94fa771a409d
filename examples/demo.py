"""
The main job: meta-train BO-MRL on half-cheetahs that must run at different speeds, and adapt to unseen speeds.

    python examples/demo.py --output demo

Writes ``<output>/model.zip``, ``<output>/adaptation.csv`` and ``<output>/adaptation.png``. A run that is interrupted
goes on when it is started again, and ends with the same numbers.
"""

import argparse
import csv
import io
import shutil
import sys
import time
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from sb3_bomrl import BOMRL, ExactCheckpointCallback, evaluate_adaptation, load_checkpoint, make_meta_vec_env
from sb3_bomrl.algorithms.evaluation import AdaptationCurve
from sb3_bomrl.plots import plot_adaptation_curves, plot_goal_tracking, save_figure
from sb3_bomrl.policies import NormalizedFlattenExtractor
from sb3_bomrl.saving.files import write_atomically
from sb3_bomrl.types import Rollout

ENV_ID = "bomrl/HalfCheetahVel-v0"
PRETRAINED = Path(__file__).parent / "pretrained" / "bomrl_HalfCheetahVel-v0.zip"
POLICY = {"features_extractor_class": NormalizedFlattenExtractor, "log_std_init": -0.5}
X_VELOCITY = 8  # index in the observation of HalfCheetah-v5


def achieved_velocity(rollout: Rollout) -> np.ndarray:
    """Mean forward velocity in the second half of the steps, (n_tasks,), in m/s."""
    velocity = rollout.observations[..., X_VELOCITY]
    return velocity[:, velocity.shape[1] // 2 :].double().mean((1, 2)).numpy()


def meta_train(total_timesteps: int, seed: int, output: Path) -> tuple[BOMRL, float]:
    """Meta-train, or go on with an interrupted run; returns the model and the seconds it took this time."""
    folder = output / "checkpoints"
    env = make_meta_vec_env(ENV_ID, n_envs=100, seed=seed)
    callback = ExactCheckpointCallback(folder, save_freq=1)
    start, interrupted = time.perf_counter(), load_checkpoint(BOMRL, folder, env, device="cpu")
    if interrupted is not None:
        print(f"Going on from {folder}, at {interrupted.num_timesteps:,} steps")
        model = interrupted.resume(callback, log_interval=None, progress_bar=True)
    else:
        model = BOMRL("MlpPolicy", env, meta_batch_size=5, policy_kwargs=POLICY, seed=seed, device="cpu")
        model.learn(total_timesteps, callback, log_interval=None, progress_bar=True)
    env.close()
    if callback.interrupted_by is not None:
        print("The same command goes on from there")
        sys.exit(128 + callback.interrupted_by)
    seconds = time.perf_counter() - start
    model.save(output / "model.zip")
    shutil.rmtree(folder)
    return model, seconds


def score(model: BOMRL, seed: int, n_eval_episodes: int) -> AdaptationCurve:
    """Returns on the 19 unseen velocities 0.1 … 1.9 after 0 to 3 adaptations of 20 episodes each."""
    env = make_meta_vec_env(ENV_ID, n_envs=100, seed=seed)
    curve = evaluate_adaptation(
        model,
        env,
        n_adaptation_steps=3,
        n_episodes=20,
        n_eval_episodes=n_eval_episodes,
        deterministic=False,
        seed=seed,
        measure=achieved_velocity,
    )
    env.close()
    return curve


def print_table(title: str, curve: AdaptationCurve) -> None:
    """One row per task: returns after 0 … 3 adaptations, and the environment steps that the adaptations took."""
    print(f"\n{title}\n  goal m/s |   before | 1 adaptation | 2 adaptations | 3 adaptations | env steps used")
    returns = curve.returns.mean(2)
    for i, task in enumerate(curve.tasks):
        r = returns[:, i]
        print(f"  {task:8.1f} | {r[0]:8.1f} | {r[1]:12.1f} | {r[2]:13.1f} | {r[3]:13.1f} | {curve.env_steps[3, i]:14,}")
    r = returns.mean(1)
    print(f"      mean | {r[0]:8.1f} | {r[1]:12.1f} | {r[2]:13.1f} | {r[3]:13.1f} |")


def write_csv(path: Path, curves: dict[str, AdaptationCurve]) -> None:
    """All numbers of the tables and the figure."""
    table = io.StringIO(newline="")
    writer = csv.writer(table)
    writer.writerow(("policy", "goal_velocity", "adaptations", "env_steps", "mean_return", "std_return", "speed"))
    for label, curve in curves.items():
        for i, task in enumerate(curve.tasks):
            for k in range(len(curve.returns)):
                r = curve.returns[k, i]
                row = (label, task, k, curve.env_steps[k, i], r.mean(), r.std(), curve.measured[k, i])
                writer.writerow(row)
    write_atomically(path, lambda file: file.write(table.getvalue().encode()))


def draw(path: Path, curves: dict[str, AdaptationCurve], tracked: str) -> None:
    """Return against adaptation steps, and achieved against goal velocity."""
    figure = Figure(figsize=(11, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    plot_adaptation_curves(curves, left)
    left.set_title("HalfCheetahVel: 19 unseen goal velocities, 20 episodes per adaptation", fontsize=10)
    plot_goal_tracking(curves[tracked], "velocity (m/s)", right)
    right.set_title(tracked, fontsize=10)
    save_figure(figure, path)


def main() -> None:
    """Train, save, load, adapt, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("demo"), help="folder for the results")
    parser.add_argument("--total-timesteps", type=int, default=2_000_000, help="environment steps of meta-training")
    parser.add_argument("--n-eval-episodes", type=int, default=20, help="episodes that each policy is scored on")
    parser.add_argument("--no-pretrained", action="store_true", help="leave the committed, longer-trained policy out")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)

    print(f"Meta-training BO-MRL on {ENV_ID} for {args.total_timesteps:,} environment steps")
    trained, seconds = meta_train(args.total_timesteps, args.seed, args.output)
    print(f"Took {seconds:.0f} s, saved to {args.output / 'model.zip'}; loading it again and adapting it")
    untrained = BOMRL("MlpPolicy", make_meta_vec_env(ENV_ID, 5), policy_kwargs=POLICY, seed=args.seed, device="cpu")
    label = f"BO-MRL, {trained.num_timesteps / 1e6:.1f} M steps"
    models = {label: BOMRL.load(args.output / "model.zip"), "untrained": untrained}
    if PRETRAINED.exists() and not args.no_pretrained:
        pretrained = BOMRL.load(PRETRAINED)
        models[f"pretrained BO-MRL, {pretrained.num_timesteps / 1e6:.0f} M steps"] = pretrained

    curves = {name: score(model, args.seed, args.n_eval_episodes) for name, model in models.items()}
    for name, curve in curves.items():
        print_table(name, curve)
    write_csv(args.output / "adaptation.csv", curves)
    draw(args.output / "adaptation.png", curves, label)

    ours, base = curves[label].returns.mean((1, 2)), curves["untrained"].returns.mean((1, 2))
    print(f"\nOn unseen velocities: {ours[0]:.1f} before and {ours[1]:.1f} after one adaptation, ", end="")
    print(f"against {base[1]:.1f} for an untrained policy adapted the same way.")
    print(f"Figure: {args.output / 'adaptation.png'}")


if __name__ == "__main__":
    main()
