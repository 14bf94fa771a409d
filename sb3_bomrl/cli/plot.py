"""The figure of ``bomrl plot``."""

import csv
from collections.abc import Sequence
from pathlib import Path

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
        rows: dict[int, dict[str, str]] = {}
        for path in sorted(folder.glob("progress_*.csv")):
            with path.open() as file:
                rows.update((int(float(row["time/total_timesteps"])), row) for row in csv.DictReader(file))
        if not rows:
            raise ValueError(f"folders must hold runs of `bomrl train`, got {folder}")
        for name, style in zip(_RETURNS, ("--", "-"), strict=True):
            label = f"{folder.name}, {'before' if style == '--' else 'after'} adaptation"
            axes.plot(sorted(rows), [float(rows[n][name]) for n in sorted(rows)], style, color=f"C{i}", label=label)
    axes.set_xlabel("environment steps")
    axes.set_ylabel("mean return of the training tasks")
    axes.legend(fontsize=8)
    save_figure(figure, output)
