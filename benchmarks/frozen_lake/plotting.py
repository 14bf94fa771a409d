"""Titles, colours, the selection of rows, and saving, for all figures."""

from pathlib import Path
from typing import Any

import matplotlib as mpl

from benchmarks.frozen_lake.results import Row
from benchmarks.provenance import FIGURES

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

__all__ = ["BOUND_STYLES", "FAMILY_TITLES", "TITLES", "Row", "save_figure", "select"]

TITLES = {"alg1": "Alg(1), KL(meta‖task)", "alg2": "Alg(2), KL(task‖meta)", "alg3": "Alg(3), parameters"}
FAMILY_TITLES = {"high_variance": "high task variance (holes)", "low_variance": "low task variance (penalties)"}
BOUND_STYLES = {"B1": ("C4", "-."), "B2": ("C5", ":"), "B3": ("C2", "--"), "B4": ("C3", "-")}


def select(rows: list[Row], **wanted: Any) -> list[Row]:
    """Return the rows that have some values."""
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


def save_figure(figure: Figure, name: str) -> Path:
    """Write a figure into the documentation's folder and close it."""
    FIGURES.mkdir(parents=True, exist_ok=True)
    path = FIGURES / name
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)
    return path
