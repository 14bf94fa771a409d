"""The policies that are kept: which, and that they do what the results say of them."""

import json

import numpy as np
import pytest
import torch as th
from scipy.stats import ttest_ind

from benchmarks.locomotion import paths, policies
from benchmarks.locomotion.methods import FAMILIES
from benchmarks.locomotion.policies import best_seeds, kept_policies, load_policy, prune, score_policy
from benchmarks.locomotion.runs import POLICIES
from benchmarks.locomotion.scoring import Plan
from benchmarks.provenance import RESULTS
from tests.benchmarks.test_locomotion import returns_of_paths

KEPT = [(*name, seed) for name, seed in kept_policies().items()]
N_TASKS, N_ADAPTATIONS, N_ERRORS = 3, 10, 5.0


def distance_to_stored(family, method, seed):
    """Mean difference to the stored stochastic returns, in standard errors: (before, after one adaptation)."""
    path = RESULTS / "locomotion" / family / method / f"seed_{seed}.json"
    row = json.loads(path.read_text())["rows"][-1]
    scores = np.array(row["stochastic"])[:2]
    distinct = [task for i, task in enumerate(row["tasks"]) if task not in row["tasks"][:i]]
    tasks = distinct[:: -(-len(distinct) // N_TASKS)]
    n_repeats = N_ADAPTATIONS // len(tasks)
    again = score_policy(family, method, tasks * n_repeats, Plan(1, FAMILIES[family], 20))
    repeats = np.array(again["stochastic"]).reshape(len(scores), n_repeats, len(tasks))
    pairs = [(scores[:, [t == task for t in row["tasks"]]], repeats[..., i]) for i, task in enumerate(tasks)]
    differences, squared_errors = zip(*(difference_of_means(*pair) for pair in pairs), strict=True)
    return sum(differences) / np.sqrt(sum(squared_errors))


def difference_of_means(stored, repeats):
    """Of (2, n) and (2, m) draws, and its squared error by their common variance; that is at least a rounding's."""
    n, m = stored.shape[1], repeats.shape[1]
    squares = sum(((x - x.mean(1, keepdims=True)) ** 2).sum(1) for x in (stored, repeats))
    return repeats.mean(1) - stored.mean(1), np.maximum(squares / (n + m - 2), 1e-4) * (1.0 / n + 1.0 / m)


def test_a_difference_of_means_is_that_of_the_t_test():
    generator = np.random.default_rng(0)
    stored, repeats = generator.normal(size=(2, 10)), generator.normal(0.5, size=(2, 5))
    difference, squared_error = difference_of_means(stored, repeats)
    np.testing.assert_allclose(difference / squared_error**0.5, ttest_ind(repeats, stored, axis=1).statistic)


def test_the_best_seed_of_every_method_is_kept():
    assert len(KEPT) == len(list(POLICIES.glob("*"))) > 0
    assert kept_policies() == best_seeds(RESULTS / "locomotion")


def test_the_stored_paths_are_those_of_the_kept_policies():
    rows = json.loads(paths.paths_path(RESULTS / "locomotion").read_text())["rows"]
    kept = {method: seed for family, method, seed in KEPT if family == paths.FAMILY}
    assert {row["method"]: row["seed"] for row in rows} == kept
    for row in rows:
        path = RESULTS / "locomotion" / paths.FAMILY / row["method"] / f"seed_{row['seed']}.json"
        scored = json.loads(path.read_text())["rows"][-1]
        scores = np.array(scored["deterministic"])[: len(row["paths"])]
        assert (row["tasks"], len(scores)) == (scored["tasks"][::3], 1 if row["method"] == "oracle" else 2)
        np.testing.assert_allclose(returns_of_paths(row), scores[:, ::3], atol=0.2)


@pytest.mark.slow
@pytest.mark.parametrize(("family", "method", "seed"), KEPT)
def test_stored_scores_are_reproduced(family, method, seed):
    assert np.abs(distance_to_stored(family, method, seed)).max() < N_ERRORS


@pytest.mark.slow
def test_another_policy_does_not_reproduce_them(monkeypatch):
    family, method, seed = next(kept for kept in KEPT if kept[:2] == ("Navigation2D", "bomrl-alg1"))

    generator = th.Generator().manual_seed(0)

    def scrambled(*args):
        model = load_policy(*args)
        with th.no_grad():
            for parameter in model.policy.parameters():
                parameter.add_(0.5 * th.randn(parameter.shape, generator=generator))
        return model

    monkeypatch.setattr(policies, "load_policy", scrambled)
    assert np.abs(distance_to_stored(family, method, seed)).max() > N_ERRORS


def test_pruning_leaves_the_best_seed(tmp_path):
    for method, returns in {"maml": (3.0, 5.0, 4.0), "promp": (1.0, 0.0)}.items():
        for seed, value in enumerate(returns):
            scores = {kind: [[9.0], [value]] for kind in ("stochastic", "deterministic")}
            rows = [{"is_final": True, "tasks": [1], **scores}]
            head = {"env": "bomrl/AntVel-v0", "label": method, "seed": seed, "timesteps": 1}
            path = tmp_path / "results" / "AntVel" / method / f"seed_{seed}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({**head, "rows": rows}))
            (tmp_path / f"AntVel_{method}_seed_{seed}.zip").touch()
    left = prune(tmp_path, tmp_path / "results")
    assert [path.name for path in left] == ["AntVel_maml_seed_1.zip", "AntVel_promp_seed_0.zip"]


def test_what_is_not_kept_is_said(tmp_path):
    (tmp_path / "AntVel_maml_seed_1.zip").touch()
    with pytest.raises(ValueError, match=r"a policy in .*, AntVel_maml_seed_1, got 'AntDir' and 'maml'"):
        load_policy("AntDir", "maml", tmp_path)
