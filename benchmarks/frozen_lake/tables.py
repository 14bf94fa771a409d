"""Returns of the committed results as Markdown tables."""

import numpy as np

from benchmarks.frozen_lake.plotting import FAMILY_TITLES, TITLES, Row, select
from benchmarks.frozen_lake.results import load

NAMES = {**TITLES, "maml": "MAML", **{f"random_{method}": f"random, {title}" for method, title in TITLES.items()}}


def return_table() -> str:
    """Returns on held-out maps as a Markdown table: mean of the seeds, and standard deviation after one adaptation."""
    rows = [row for row in load("main")["rows"] if row["maps"] == "held-out"]
    names = {**NAMES, "shared": "best shared policy found"}
    lines = ["| family | method | λ or step | 0 | 1 | 2 | 4 |", "|---|---|---|---|---|---|---|"]
    for family in FAMILY_TITLES:
        for method, name in names.items():
            chosen = select(rows, family=family, method=method)
            returns = np.array([row["returns"] for row in chosen])
            mean, spread = returns.mean(0), returns.std(0, ddof=1)
            cells = [f"{mean[0]:.2f}", f"{mean[1]:.2f} ± {spread[1]:.2f}", f"{mean[2]:.2f}", f"{mean[4]:.2f}"]
            setting = f"{chosen[0]['setting']:g}" if "setting" in chosen[0] else "–"
            lines.append(f"| {family.replace('_', ' ')} | {name} | {setting} | {' | '.join(cells)} |")
    return "\n".join(lines)


def sampled_table() -> str:
    """Sampled returns, and in brackets the exact ones of the same seeds, as a Markdown table."""
    rows = load("sampled")["rows"]
    seeds = {row["seed"] for row in rows}
    exact_rows = [row for row in load("main")["rows"] if row["seed"] in seeds]
    lines = ["| family | maps | method | λ or step | 0 | 1 | 2 | 4 |", "|---|---|---|---|---|---|---|---|"]
    for family in FAMILY_TITLES:
        for maps in ("seen", "held-out"):
            for method, name in NAMES.items():
                chosen = select(rows, family=family, maps=maps, method=method)
                sampled = _mean_returns(chosen)
                exact = _mean_returns(select(exact_rows, family=family, maps=maps, method=method))
                cells = [f"{sampled[step]:.2f} ({exact[step]:.2f})" for step in (0, 1, 2, 4)]
                row = (family.replace("_", " "), maps, name, f"{chosen[0]['setting']:g}", *cells)
                lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def gap_table() -> str:
    """Optimality gaps after one step of each kind, sampled and exact, mean of the seeds, as a Markdown table."""
    header = "| family | maps | method | no adaptation | BO-MRL adaptation | policy-gradient step | B3 |"
    lines = ["| | " + header[2:], "|---" * 8 + "|"]
    for kind in ("main", "sampled"):
        rows = load(kind)["rows"]
        for family in FAMILY_TITLES:
            for maps in ("seen", "held-out"):
                for method, name in TITLES.items():
                    chosen = select(rows, family=family, maps=maps, method=method)
                    keys = ("gap_no_adaptation", "gap_one_adaptation", "gap_policy_gradient_step", "B3")
                    cells = [f"{np.mean([row[key] for row in chosen]):.3f}" for key in keys]
                    first = "exact" if kind == "main" else "sampled"
                    lines.append(f"| {' | '.join((first, family.replace('_', ' '), maps, name, *cells))} |")
    return "\n".join(lines)


def meta_gradient_table() -> str:
    """Relative errors of the sampled meta-gradient, and in brackets the bias in them, as a Markdown table."""
    rows = load("meta_gradient")["rows"]
    sizes = sorted({row["n_episodes"] for row in rows})
    lines = [
        "| maps | meta-policy | reach the goal | method | λ | term | " + " | ".join(f"{n:,}" for n in sizes) + " |"
    ]
    lines.append("|---" * (6 + len(sizes)) + "|")
    keys = ("family", "meta_policy", "goal_share", "method", "reg_coef", "hypergradient")
    for case in dict.fromkeys(tuple(row[key] for key in keys) for row in rows):
        chosen = [select(rows, **dict(zip(keys, case, strict=True)), n_episodes=n)[0] for n in sizes]
        family, policy, share, method, reg_coef, mode = case
        term = "(a)" if mode == "implicit" else "(a)+(b)"
        cells = [f"{row['error']:.3f} ({_bias(row):.3f})" for row in chosen]
        first = (family.replace("_", " "), policy, f"{100 * share:.1f} %", TITLES[method].split(",")[0])
        lines.append(f"| {' | '.join((*first, f'{reg_coef:g}', term, *cells))} |")
    return "\n".join(lines)


def _bias(row: Row) -> float:
    """Error of the mean of infinitely many repetitions: what the noise of finitely many adds is taken off, E[x]^2."""
    n = row["n_repetitions"]
    variance = (row["error"] ** 2 - row["error_of_mean"] ** 2) * n / (n - 1)
    return float(np.sqrt(max(0.0, row["error"] ** 2 - variance)))


def _mean_returns(rows: list[Row]) -> np.ndarray:
    return np.array([row["returns"] for row in rows]).mean(0)
