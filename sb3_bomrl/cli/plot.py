"""The figure of ``bomrl plot``."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from sb3_bomrl.cli.progress_csv import read_progress

_RETURNS = ("meta/pre_adapt_return", "meta/post_adapt_return")


def plot_runs(folders: Sequence[Path], output: Path) -> None:
    """
    Draw returns before and after adaptation against environment steps.

    :param folders: of runs
    :param output: the figure
    :raises ValueError: if a folder holds no log
    """
    from matplotlib.figure import Figure

    from sb3_bomrl.plots import save_figure

    figure = Figure(figsize=(7, 4.4), layout="constrained")
    axes = figure.subplots()
    for i, folder in enumerate(folders):
        rows = _returns(folder)
        if not rows:
            raise ValueError(f"folders must hold runs of `bomrl train`, got {folder}")
        for k, (words, style) in enumerate((("before", "--"), ("after", "-"))):
            label = f"{folder.name}, {words} adaptation"
            axes.plot(sorted(rows), [rows[n][k] for n in sorted(rows)], style, color=f"C{i}", label=label)
    axes.set_xlabel("environment steps")
    axes.set_ylabel("mean return of the training tasks")
    axes.legend(fontsize=8)
    save_figure(figure, output)


def _returns(folder: Path) -> dict[int, list[float]]:
    """Environment steps -> returns before and after adaptation; of repeated ones, the last."""
    found: dict[int, list[float]] = {}
    for path in sorted(folder.glob("progress_*.csv")):
        for row in read_progress(path):
            with suppress(KeyError, ValueError):  # a row of another kind
                found[int(float(row["time/total_timesteps"]))] = [float(row[name]) for name in _RETURNS]
    return found
