"""The commands of the command line; for what they leave out there is rl_zoo3, see ``sb3_bomrl.zoo``."""

import sys
from pathlib import Path
from typing import Annotated

import gymnasium as gym
import typer

from sb3_bomrl.algorithms.registry import REGISTRY
from sb3_bomrl.checks import shortened
from sb3_bomrl.cli import models, training
from sb3_bomrl.cli.plot import plot_runs
from sb3_bomrl.cli.run import interrupted_run, new_run
from sb3_bomrl.envs import ENV_IDS
from sb3_bomrl.zoo.play import parse_task

app = typer.Typer(
    help="Meta-train a policy on a family of tasks, adapt it to a task, and look at what that brings.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

_LONGEST = 2000
"""Characters of an error."""

_MISTAKES = (
    ValueError,
    TypeError,
    OSError,
    ImportError,
    ArithmeticError,
    MemoryError,
    RuntimeError,  # torch's, for memory and devices
    AssertionError,  # SB3's, for spaces
    gym.error.Error,
)

Model = Annotated[Path, typer.Argument(help="Model file, or the folder of a run.")]
EnvOption = Annotated[str | None, typer.Option("--env", help="Environment id; that of the run by default.")]
TaskOption = Annotated[str, typer.Option("--task", help="Task, a Python literal: 1.3, -1, '(0.4, -0.1)'.")]
Trusted = Annotated[bool, typer.Option(help="Unpickle objects in the model file, which runs code from it.")]
Episodes = Annotated[int, typer.Option(min=1, help="Episodes per adaptation step.")]
Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed.")]


@app.command()
def train(
    env: Annotated[str, typer.Argument(help="Environment id, see `bomrl envs`.")],
    algo: Annotated[str, typer.Option(help="Algorithm, see `bomrl algos`.")] = "bomrl",
    param: Annotated[
        list[str] | None, typer.Option("--param", "-P", help="Setting of the algorithm, name=value; may be repeated.")
    ] = None,
    timesteps: Annotated[int, typer.Option("--timesteps", "-n", min=1, help="Environment steps.")] = 2_000_000,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder; runs/<env>_<algo>_<seed> if not given.")
    ] = None,
    seed: Seed = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the interrupted run in this folder.")] = False,
    save_freq: Annotated[int, typer.Option(min=1, help="Meta-iterations between checkpoints.")] = 10,
    trusted: Trusted = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Print the log in place of the progress.")] = False,
) -> None:
    """Meta-train, with checkpoints; Ctrl-C saves, and --resume goes on bit for bit."""
    folder = output or Path("runs") / f"{env.split('/')[-1]}_{algo}_{seed}"
    params = param or []
    if resume:
        run = interrupted_run(folder, env, algo, params)
    else:
        run = new_run(env, algo, params, seed, timesteps)
    stopped_by = training.train(run, folder, resume, save_freq, verbose, trusted)
    if stopped_by is not None:
        typer.echo(f"Go on with: bomrl train {env} --algo {algo} --output {folder} --resume")
        raise typer.Exit(128 + stopped_by)
    typer.echo(f"Saved {folder / 'model.zip'}")


@app.command()
def adapt(
    model: Model,
    task: TaskOption,
    episodes: Episodes = 20,
    steps: Annotated[int, typer.Option(min=1, help="Adaptation steps.")] = 1,
    save: Annotated[Path | None, typer.Option(help="Save the adapted model here.")] = None,
    env: EnvOption = None,
    trusted: Trusted = False,
    seed: Seed = 0,
) -> None:
    """Adapt a model to one task, and print the return before and after."""
    adapted = models.load(model, env, trusted).adapt(parse_task(task), episodes, steps, seed)
    if save is not None:
        adapted.save(save)
        typer.echo(f"Saved {save}")


@app.command()
def evaluate(
    model: Model,
    episodes: Episodes = 20,
    steps: Annotated[int, typer.Option(min=0, help="Adaptation steps.")] = 3,
    csv: Annotated[Path | None, typer.Option(help="Write the returns of every task to this file.")] = None,
    stochastic: Annotated[bool, typer.Option("--stochastic", help="Score sampled actions.")] = False,
    env: EnvOption = None,
    trusted: Trusted = False,
    seed: Seed = 0,
) -> None:
    """Print the returns on the family's test tasks after 0, 1, ... adaptations."""
    models.load(model, env, trusted).evaluate(episodes, steps, csv, stochastic, seed)


@app.command()
def plot(
    folders: Annotated[list[Path], typer.Argument(help="Folders of runs.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The figure.")] = Path("returns.png"),
) -> None:
    """Draw the returns before and after adaptation while meta-training."""
    plot_runs(folders, output)
    typer.echo(f"Saved {output}")


@app.command()
def video(
    model: Model,
    task: TaskOption,
    output: Annotated[Path, typer.Option("--output", "-o", help="File, .gif or .mp4.")] = Path("adaptation.gif"),
    episodes: Episodes = 20,
    steps: Annotated[int, typer.Option(min=1, help="Adaptation steps.")] = 1,
    env: EnvOption = None,
    trusted: Trusted = False,
    seed: Seed = 0,
) -> None:
    """Film one episode before adaptation beside one after."""
    models.load(model, env, trusted).video(parse_task(task), output, episodes, steps, seed)
    typer.echo(f"Saved {output}")


@app.command()
def envs() -> None:
    """List the environments of the package."""
    for env_id in ENV_IDS:
        typer.echo(f"{env_id}  (episodes of {gym.spec(env_id).max_episode_steps} steps)")


@app.command()
def algos() -> None:
    """List the algorithms."""
    for name, algorithm in REGISTRY.items():
        title, bracket, _ = " ".join((algorithm.__doc__ or "").split()).partition(")")  # the method and its papers
        typer.echo(f"{name:8} {title}{bracket}")


def main() -> None:
    """Run a command; bad input ends with one line and exit code 1, wrong usage with 2."""
    try:
        app()
    except _MISTAKES as error:
        message = shortened(" ".join(str(error).split()) or type(error).__name__, _LONGEST)
        typer.echo(f"bomrl: error: {message}", err=True)
        sys.exit(1)
