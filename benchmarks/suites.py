"""Suites: which runs a file of ``benchmarks/suites`` asks for."""

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from benchmarks.methods import METHODS
from benchmarks.scoring import Plan

SUITES = Path(__file__).parent / "suites"
KEYS = {"methods", "envs", "seeds", "env_steps", "overrides", "grid", "evaluation"}


class Evaluation(NamedTuple):
    """When and how a run is scored."""

    n_evaluations: int = 10
    final: Plan = Plan()
    training: Plan = Plan(n_adaptations=1, n_eval_episodes=5, max_tasks=10)


class Run(NamedTuple):
    """One training run."""

    suite: str
    method: str
    env: str
    seed: int
    env_steps: int
    overrides: dict[str, Any]
    evaluation: Evaluation

    @property
    def label(self) -> str:
        """Name in the column ``method``: the method and what was overridden."""
        return " ".join([self.method, *(f"{name}={value}" for name, value in self.overrides.items())])


def suite_names() -> list[str]:
    """Return the names of all suites."""
    return sorted(path.stem for path in SUITES.glob("*.yml"))


def load_suite(name: str, folder: Path = SUITES) -> list[Run]:
    """Return the runs of a suite: of every entry all combinations of seeds, families, settings and methods."""
    path = folder / f"{name}.yml"
    if not path.exists():
        known = ", ".join(sorted(other.stem for other in folder.glob("*.yml")))
        raise ValueError(f"suite must be one of {known}, got {name!r}")
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    return [run for entry in content["runs"] for run in expand(name, {**content.get("defaults", {}), **entry})]


def expand(suite: str, entry: dict[str, Any]) -> Iterator[Run]:
    """Return the runs of one entry of a suite."""
    unknown = set(entry) - KEYS
    if unknown:
        raise ValueError(f"an entry of a suite must have keys among {', '.join(sorted(KEYS))}, got {sorted(unknown)}")
    wrong = [method for method in entry["methods"] if method not in METHODS]
    if wrong:
        raise ValueError(f"methods must be among {', '.join(METHODS)}, got {', '.join(wrong)}")
    evaluation = evaluation_of(entry.get("evaluation", {}))
    for seed, env, overrides, method in product(entry["seeds"], entry["envs"], _variants(entry), entry["methods"]):
        yield Run(suite, method, env, seed, int(entry["env_steps"]), overrides, evaluation)


def evaluation_of(changes: dict[str, Any]) -> Evaluation:
    """Return the evaluation with some fields changed."""
    changes = dict(changes)
    episodes = {"n_episodes": changes.pop("n_episodes")} if "n_episodes" in changes else {}
    usual = Evaluation()
    final = usual.final._replace(**episodes, **changes.pop("final", {}))
    training = usual.training._replace(**episodes, **changes.pop("training", {}))
    return usual._replace(final=final, training=training, **changes)


def _variants(entry: dict[str, Any]) -> list[dict[str, Any]]:
    """Overrides of an entry, one after the other."""
    overrides = entry.get("overrides", {})
    grid = entry.get("grid", {})
    points = [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]
    listed = overrides if isinstance(overrides, list) else [overrides]
    return [{**fixed, **point} for fixed in listed for point in points]
