"""
The main job: meta-train BO-MRL on half-cheetahs that must run at different speeds, and adapt to unseen speeds.

    python examples/demo.py --output demo

Shows a progress bar in a terminal and prints a line every half minute elsewhere. Writes ``<output>/model.zip``,
``<output>/adaptation.csv`` (every task) and ``<output>/adaptation.png``. A run that is interrupted goes on when it is
started again, and ends with the same numbers.
"""

import argparse
import shutil
import sys
import time
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from sb3_bomrl import (
    BOMRL,
    ExactCheckpointCallback,
    evaluate_adaptation,
    load_checkpoint,
    make_meta_vec_env,
    pretrained,
)
from sb3_bomrl.algorithms.evaluation import AdaptationCurve, write_curves
from sb3_bomrl.callbacks import ProgressLineCallback
from sb3_bomrl.plots import plot_adaptation_curves, plot_goal_tracking, save_figure
from sb3_bomrl.types import Rollout

ENV_ID = "bomrl/HalfCheetahVel-v0"
X_VELOCITY = 8  # index in the observation of HalfCheetah-v5


def achieved_velocity(rollout: Rollout) -> np.ndarray:
    """Compute the mean forward velocity in the second half of the steps, (n_tasks,), in m/s."""
    velocity = rollout.observations[..., X_VELOCITY]
    return velocity[:, velocity.shape[1] // 2 :].double().mean((1, 2)).numpy()


def meta_train(total_timesteps: int, seed: int, output: Path) -> tuple[BOMRL, float]:
    """Meta-train, or go on with an interrupted run; return the model and the seconds that this took."""
    folder = output / "checkpoints"
    env = make_meta_vec_env(ENV_ID, n_envs=100, seed=seed)
    checkpoint = ExactCheckpointCallback(folder, save_freq=1)
    has_bar = sys.stdout.isatty()
    callbacks = [checkpoint] if has_bar else [checkpoint, ProgressLineCallback()]
    start, interrupted = time.perf_counter(), load_checkpoint(BOMRL, folder, env, device="cpu")
    if interrupted is not None:
        print(f"Going on from {folder}, at {interrupted.num_timesteps:,} steps")
        model = interrupted.resume(callbacks, log_interval=None, progress_bar=has_bar)
    else:
        model = BOMRL("MlpPolicy", env, meta_batch_size=5, seed=seed, device="cpu")
        model.learn(total_timesteps, callbacks, log_interval=None, progress_bar=has_bar)
    env.close()
    if checkpoint.interrupted_by is not None:
        print("The same command goes on from there")
        sys.exit(128 + checkpoint.interrupted_by)
    seconds = time.perf_counter() - start
    model.save(output / "model.zip")
    shutil.rmtree(folder)
    return model, seconds


def score(model: BOMRL, seed: int, n_eval_episodes: int) -> AdaptationCurve:
    """Score a model on the 19 unseen velocities 0.1 … 1.9 after 0 to 3 adaptations of 20 episodes each."""
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


def print_table(curves: dict[str, AdaptationCurve]) -> None:
    """Print one line per policy: mean returns on the unseen velocities after 0 … 3 adaptations."""
    print(f"\n{'mean return, unseen velocities':32}|   before | 1 adaptation | 2 adaptations | 3 adaptations")
    for name, curve in curves.items():
        r = curve.returns.mean((1, 2))
        print(f"{name:32}| {r[0]:8.1f} | {r[1]:12.1f} | {r[2]:13.1f} | {r[3]:13.1f}")


def draw(path: Path, curves: dict[str, AdaptationCurve], tracked: str) -> None:
    """Draw the return against adaptation steps, and the achieved against the goal velocity."""
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
    parser.add_argument("--no-pretrained", action="store_true", help="leave the longer-trained policy out")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)

    print(f"Meta-training BO-MRL on {ENV_ID} for {args.total_timesteps:,} environment steps")
    trained, seconds = meta_train(args.total_timesteps, args.seed, args.output)
    print(f"Took {seconds:.0f} s, saved to {args.output / 'model.zip'}; loading it again and adapting it")
    untrained = BOMRL("MlpPolicy", make_meta_vec_env(ENV_ID, 5), seed=args.seed, device="cpu")
    label = f"BO-MRL, {trained.num_timesteps / 1e6:.1f} M steps"
    models = {label: BOMRL.load(args.output / "model.zip"), "untrained": untrained}
    if not args.no_pretrained:
        kept = pretrained("HalfCheetahVel", "bomrl")
        models[f"pretrained BO-MRL, {kept.num_timesteps / 1e6:.0f} M steps"] = kept

    curves = {name: score(model, args.seed, args.n_eval_episodes) for name, model in models.items()}
    print_table(curves)
    write_curves(args.output / "adaptation.csv", "policy", curves.items())
    draw(args.output / "adaptation.png", curves, label)

    ours, base = curves[label].returns.mean((1, 2)), curves["untrained"].returns.mean((1, 2))
    print(f"\nOn unseen velocities: {ours[0]:.1f} before and {ours[1]:.1f} after one adaptation, ", end="")
    print(f"against {base[1]:.1f} for an untrained policy adapted the same way.")
    print(f"Every task: {args.output / 'adaptation.csv'}, figure: {args.output / 'adaptation.png'}")


if __name__ == "__main__":
    main()
