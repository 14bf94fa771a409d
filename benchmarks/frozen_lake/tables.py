"""Returns of the committed results as a Markdown table."""

import numpy as np

from benchmarks.frozen_lake.plotting import FAMILY_TITLES, TITLES, Row, select
from benchmarks.frozen_lake.results import load

NAMES = {**TITLES, "maml": "MAML", **{f"random_{method}": f"random, {title}" for method, title in TITLES.items()}}
STEPS = (0, 1, 2, 4)


def sampled_table(maps: str = "held-out") -> str:
    """Return the table of sampled returns, and in brackets the exact ones of the same seeds."""
    rows = load("sampled")
    seeds = {row["seed"] for row in rows}
    exact_rows = [row for row in load("main") if row["seed"] in seeds]
    lines = ["| family | method | λ or step | 0 | 1 | 2 | 4 |", "|---" * 7 + "|"]
    for family in FAMILY_TITLES:
        for method, name in NAMES.items():
            chosen = select(rows, family=family, maps=maps, method=method)
            sampled, exact = _means(chosen), _means(select(exact_rows, family=family, maps=maps, method=method))
            cells = [f"{sampled[step]:.2f} ({exact[step]:.2f})" for step in STEPS]
            lines.append(f"| {family.replace('_', ' ')} | {name} | {chosen[0]['setting']:g} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _means(rows: list[Row]) -> np.ndarray:
    return np.array([row["returns"] for row in rows]).mean(0)
