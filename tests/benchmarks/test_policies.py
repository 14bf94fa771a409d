"""The policies that are kept: which, and that they do what the results say of them."""

import json

import numpy as np
import pytest
import torch as th

from benchmarks.locomotion import policies
from benchmarks.locomotion.methods import FAMILIES
from benchmarks.locomotion.policies import best_seeds, load_policy, prune, score_policy
from benchmarks.locomotion.runs import POLICIES
from benchmarks.locomotion.scoring import Plan
from benchmarks.provenance import RESULTS

KEPT = sorted(path.stem.split("_") for path in POLICIES.glob("*.zip"))
N_TASKS, N_REPEATS, N_ERRORS = 3, 3, 5.0


def distance_to_stored(family, method, seed):
    """Mean difference to the stored stochastic returns, in standard errors: (before, after one adaptation)."""
    path = RESULTS / "locomotion" / family / method / f"seed_{seed}.json"
    row = json.loads(path.read_text())["rows"][-1]
    step = -(-len(row["tasks"]) // N_TASKS)
    tasks = row["tasks"][::step]
    again = score_policy(family, method, tasks * N_REPEATS, Plan(1, FAMILIES[family], 20))
    stored = np.array(row["stochastic"])[:2, ::step]
    repeats = np.array(again["stochastic"]).reshape(len(stored), N_REPEATS, len(tasks))
    # of the difference between one draw, the stored one, and the mean of the repeats; at least a rounding's
    errors = np.maximum(repeats.var(1, ddof=1) * (1.0 + 1.0 / N_REPEATS), 1e-4)
    return (repeats.mean(1) - stored).mean(1) / np.sqrt(errors.sum(1)) * len(tasks)


def test_the_best_seed_of_every_method_is_kept():
    best = best_seeds(RESULTS / "locomotion")
    kept = {(family, method): int(seed) for family, method, _, seed in KEPT}
    assert len(kept) == len(KEPT) > 0
    assert kept == {key: seed for key, seed in best.items() if key in kept}


@pytest.mark.slow
@pytest.mark.parametrize(("family", "method", "seed"), [(family, method, seed) for family, method, _, seed in KEPT])
def test_stored_scores_are_reproduced(family, method, seed):
    assert np.abs(distance_to_stored(family, method, seed)).max() < N_ERRORS


@pytest.mark.slow
def test_another_policy_does_not_reproduce_them(monkeypatch):
    family, method, _, seed = next(kept for kept in KEPT if kept[:2] == ["Navigation2D", "bomrl-alg1"])

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
