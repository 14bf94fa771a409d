"""
Write the tables of a suite into the documentation's folder.

    python -m benchmarks.report comparison

Of a suite that compares methods there is a table per family, ``docs/figures/<suite>_<family>.md``; of a suite that
changes settings one, ``docs/figures/<suite>.md``: all variants of a single method, or the best one of every method.
"""

import argparse
import math
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.methods import METHODS, OURS, short_name
from benchmarks.provenance import FIGURES, RESULTS, write_text
from benchmarks.records import csv_path, read_provenance
from benchmarks.scoring import KINDS
from benchmarks.statistics import Estimate, Group, difference, estimate, in_order, load_groups
from benchmarks.suites import suite_names


def text_of(value: Estimate) -> str:
    """Return an estimate in the form of a table; a single seed has no interval."""
    return f"{value.mean:.1f}" + (f" ± {value.half_width:.1f}" if math.isfinite(value.half_width) else "")


def best_of_ours(groups: list[Group]) -> Group | None:
    """Return the form of BO-MRL that is best after one adaptation, stochastic policy, by the mean of seeds."""
    ours = [group for group in groups if group.label in OURS]
    return max(ours, key=lambda group: group.after("stochastic", 1).mean(), default=None)


def speeds(provenance: dict[str, Any]) -> dict[tuple[str, str], float]:
    """Return median seconds per environment step of training by (env, method), where they were measured."""
    rows = provenance.get("speed", [])
    return {(row["env"], row["method"]): float(np.median(row["seconds"])) / row["env_steps"] for row in rows}


def family_table(groups: list[Group], provenance: dict[str, Any]) -> str:
    """Return the table of one family: a part per kind of policy, a row per method."""
    groups, best, seconds = in_order(groups), best_of_ours(groups), speeds(provenance)
    name = best.label if best is not None else "BO-MRL"
    ks = range(max(group.final["stochastic"].shape[1] for group in groups))
    parts = []
    for policy in KINDS:
        head = [f"{policy} policy", "seeds", "seconds", *(f"{k}" for k in ks), "each seed after 1", f"{name} minus it"]
        head[3] = "0 adaptations"
        lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
        for group in groups:
            scores = group.final[policy]
            cells = [text_of(estimate(scores[:, k])) if k < scores.shape[1] else "–" for k in ks]
            cells.append(", ".join(f"{value:.1f}" for value in group.after(policy, 1)))
            gap = best is not None and group.label != best.label
            cells.append(text_of(difference(best.after(policy, 1), group.after(policy, 1))) if gap and best else "–")
            lines.append(f"| {' | '.join([group.label, str(len(group.seeds)), _seconds(group, seconds), *cells])} |")
        parts.append("\n".join(lines))
    steps = max(group.env_steps for group in groups)
    made_on = sorted(
        {provenance["hardware"][run["hardware"]] for run in provenance["runs"] if run["env"] == groups[0].env}
    )
    caption = (
        f"{short_name(groups[0].env)}, {steps:,} environment steps: mean of seeds after 0, 1, 2 and 3 adaptations ± 95 "
        f"% Student interval; the last column is the difference after one adaptation ± Welch's interval. Seconds of "
        f"training on one core. Made on: {'; '.join(made_on)}."
    )
    return "\n\n".join([*parts, caption])


def _seconds(group: Group, seconds: dict[tuple[str, str], float]) -> str:
    if METHODS[group.method].kind == "untrained":
        return "0"
    per_step = seconds.get((group.env, group.label))
    return "–" if per_step is None else f"{per_step * group.env_steps:,.0f}"


def variants_table(groups: list[Group]) -> str:
    """Return a row per family and variant, in the order of the file."""
    most = max(group.final["stochastic"].shape[1] for group in groups) - 1
    ks = sorted({0, 1, most})
    heads = [f"{policy}, {k}" for policy in KINDS for k in ks]
    lines = ["| family | env steps | variant | seeds | " + " | ".join(heads) + " |", "|---" * (4 + len(heads)) + "|"]
    for group in groups:
        cells = [text_of(estimate(group.after(policy, k))) for policy in KINDS for k in ks]
        first = (short_name(group.env), f"{group.env_steps:,}", group.label, str(len(group.seeds)))
        lines.append(f"| {' | '.join((*first, *cells))} |")
    return "\n".join(lines)


def best_variants(groups: list[Group]) -> list[Group]:
    """Return the best variant of every method and family: of those with most seeds, by the mean of both policies."""
    found = []
    for key in dict.fromkeys((group.env, group.method) for group in groups):
        tried = [group for group in groups if (group.env, group.method) == key]
        most = max(len(group.seeds) for group in tried)
        finalists = [group for group in tried if len(group.seeds) == most]
        found.append(max(finalists, key=lambda group: sum(group.after(policy, 1).mean() for policy in KINDS)))
    return found


def tables(suite: str, results: Path = RESULTS) -> dict[str, str]:
    """Return the tables of a suite in Markdown, by name of the file."""
    path = csv_path(suite, results)
    groups, provenance = load_groups(path), read_provenance(path)
    if all(group.label == group.method for group in groups):
        envs = dict.fromkeys(group.env for group in groups)
        by_env = {env: [group for group in groups if group.env == env] for env in envs}
        return {f"{suite}_{short_name(env)}": family_table(chosen, provenance) for env, chosen in by_env.items()}
    is_one = len({group.method for group in groups}) == 1
    return {suite: variants_table(groups if is_one else best_variants(groups))}


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    result = argparse.ArgumentParser(
        prog="python -m benchmarks.report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    result.add_argument("suite", choices=suite_names())
    result.add_argument("--results", type=Path, default=RESULTS)
    result.add_argument("--output", type=Path, default=FIGURES)
    return result


def main() -> None:
    """Parse the command line and do it."""
    args = parser().parse_args()
    for name, text in tables(args.suite, args.results).items():
        print(write_text(args.output / f"{name}.md", text))


if __name__ == "__main__":
    main()
