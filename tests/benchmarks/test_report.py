"""Statistics, tables and figures of results that are known."""

import numpy as np
import pytest
from scipy import stats

from benchmarks import figures, report
from benchmarks.frozen_lake import tables as lake_tables
from benchmarks.provenance import FIGURES, RESULTS, write_json
from benchmarks.records import append_rows, csv_path, provenance_path, read_provenance, record_run, rows_of
from benchmarks.scoring import KINDS, Scores
from benchmarks.statistics import difference, estimate, load_groups
from benchmarks.suites import expand, load_suite

TASKS = [1, 2, 3]
ENV = "bomrl/AntVel-v0"


def write(folder, name, methods, overrides=({},), seeds=(0, 1, 2)):
    """Random results; returns (label, seed) -> policy -> (2, n_tasks)."""
    rng, path, scores = np.random.default_rng(0), csv_path(name, folder), {}
    entry = {"methods": methods, "envs": [ENV], "seeds": list(seeds), "env_steps": 100, "overrides": list(overrides)}
    for run in expand(name, entry):
        for env_steps in (0, 50, 100):
            tasks = TASKS if env_steps == 100 else TASKS[::2]
            n_scores = 4 if env_steps == 100 else 2
            returns = {kind: np.round(rng.normal(size=(n_scores, len(tasks))), 2) for kind in KINDS}
            append_rows(path, rows_of(run, env_steps, 1.0, Scores(tasks, returns)))
        scores[run.label, run.seed] = returns
        record_run(path, run, {}, "test")
    return path, scores


def test_the_interval_is_students():
    scores = np.random.default_rng(0).normal(size=4)
    low, high = stats.ttest_1samp(scores, 0.0).confidence_interval(0.95)
    found = estimate(scores)
    assert found.mean == pytest.approx((low + high) / 2)
    assert found.half_width == pytest.approx((high - low) / 2)
    assert estimate(scores[:1]) == (scores[0], np.inf)


def test_the_difference_is_welchs():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=5), rng.normal(2.0, 3.0, size=3)
    u, v = a.var(ddof=1) / 5, b.var(ddof=1) / 3
    freedom = (u + v) ** 2 / (u**2 / 4 + v**2 / 2)
    found = difference(a, b)
    assert found.mean == pytest.approx(a.mean() - b.mean())
    assert found.half_width == pytest.approx(stats.t.ppf(0.975, freedom) * np.sqrt(u + v))
    assert difference(a, b[:1]).half_width == np.inf


def test_groups_have_a_score_per_seed(tmp_path):
    path, scores = write(tmp_path, "known", ["maml", "promp"])
    unfinished = next(expand("known", {"methods": ["maml"], "envs": [ENV], "seeds": [9], "env_steps": 100}))
    append_rows(path, rows_of(unfinished, 0, 0.0, Scores(TASKS, {"stochastic": np.zeros((2, 3))})))
    first, second = load_groups(path)
    assert [(group.label, group.seeds, group.env_steps) for group in (first, second)] == [
        (method, [0, 1, 2], 100) for method in ("maml", "promp")
    ]
    for policy in KINDS:
        expected = [scores["maml", seed][policy].mean(1) for seed in range(3)]
        np.testing.assert_allclose(first.final[policy], expected)
        np.testing.assert_allclose(first.after(policy, 1), np.array(expected)[:, 1])
    assert first.curve_env_steps.tolist() == [0, 50, 100]
    last = [scores["maml", seed]["stochastic"][1, ::2].mean() for seed in range(3)]
    np.testing.assert_allclose(first.curves["stochastic"][:, -1], last)  # over the tasks of all evaluations


def test_a_table_says_by_how_much_the_best_form_is_ahead(tmp_path):
    path, _ = write(tmp_path, "known", ["bomrl-alg1", "bomrl-alg2", "maml", "random-init"])
    speed = {"env": ENV, "method": "maml", "env_steps": 10, "seconds": [1.0, 3.0, 2.0]}
    write_json(provenance_path(path), {**read_provenance(path), "speed": [speed]})
    groups = {group.label: group for group in load_groups(path)}
    best = max(("bomrl-alg1", "bomrl-alg2"), key=lambda label: groups[label].after("stochastic", 1).mean())
    (text,) = report.tables("known", tmp_path).values()
    lines = [line for line in text.splitlines() if line.startswith("| maml")]
    assert len(lines) == 2
    for policy, line in zip(KINDS, lines, strict=True):
        ours, other = groups[best].after(policy, 1), groups["maml"].after(policy, 1)
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        assert cells[:3] == ["maml", "3", "20"]
        assert cells[4] == report.text_of(estimate(other))
        assert cells[-2] == ", ".join(f"{value:.1f}" for value in other)
        assert cells[-1] == report.text_of(difference(ours, other))
    assert text.count(f"{best} minus it") == 2
    assert "AntVel, 100 environment steps" in text


def test_variants_have_a_row_each_and_of_several_methods_the_best(tmp_path):
    write(tmp_path, "one", ["maml"], [{"inner_lr": 0.1}, {"inner_lr": 0.2}])
    lines = report.tables("one", tmp_path)["one"].splitlines()
    assert [line.split(" | ")[2] for line in lines[2:]] == ["maml inner_lr=0.1", "maml inner_lr=0.2"]
    path, _ = write(tmp_path, "many", ["maml", "promp"], [{"inner_lr": 0.1}, {"inner_lr": 0.2}])
    found = [line.split(" | ")[2] for line in report.tables("many", tmp_path)["many"].splitlines()[2:]]
    for method, label in zip(("maml", "promp"), found, strict=True):
        tried = [group for group in load_groups(path) if group.method == method]
        sums = {group.label: sum(group.after(kind, 1).mean() for kind in KINDS) for group in tried}
        assert label == max(sums, key=sums.get)


def test_figures_contain_the_data(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(figures, "save_figure", lambda figure, path: drawn.append(figure))
    path, _ = write(tmp_path, "known", ["bomrl-alg1", "maml"])
    assert figures.draw("known", tmp_path, tmp_path) == [tmp_path / "known_AntVel.png"]
    group = next(group for group in load_groups(path) if group.label == "maml")
    axes = drawn[0].axes
    for ax, policy in zip(axes[:2], KINDS, strict=True):
        line = next(line for line in ax.lines if line.get_label() == "maml")
        np.testing.assert_allclose(line.get_ydata(), group.final[policy].mean(0))
    line = next(line for line in axes[2].lines if line.get_label() == "maml")
    np.testing.assert_allclose(line.get_xydata(), np.stack([[0, 50, 100], group.curves["stochastic"].mean(0)], 1))
    assert not axes[3].lines  # no speed was measured
    write(tmp_path, "ablated", ["maml"], [{"inner_lr": 0.1}, {"inner_lr": 0.2}])
    figures.draw("ablated", tmp_path, tmp_path)
    variants = [group.after("stochastic", 1).mean() for group in load_groups(csv_path("ablated", tmp_path))]
    np.testing.assert_allclose(drawn[1].axes[0].containers[1].lines[0].get_ydata(), variants)


def test_nothing_to_draw_is_said(tmp_path):
    with pytest.raises(ValueError, match="results must have a finished run, found none in"):
        figures.draw("nothing", tmp_path)
    write(tmp_path, "both", ["maml", "promp"], [{"inner_lr": 0.1, "max_kl": 1}])
    with pytest.raises(ValueError, match=r"suite must compare methods, .* got 'both'"):
        figures.draw("both", tmp_path, tmp_path)


@pytest.mark.parametrize("suite", ["comparison", "tuning", "ablations"])
def test_tables_of_the_documentation_are_those_of_the_results(suite):
    for name, text in report.tables(suite).items():
        assert (FIGURES / f"{name}.md").read_text() == text + "\n", name


def test_the_table_of_frozen_lake_is_that_of_the_results():
    assert (FIGURES / "frozen_lake_sampled.md").read_text() == lake_tables.sampled_table() + "\n"


@pytest.mark.parametrize("suite", ["comparison", "longer", "tuning", "ablations"])
def test_all_runs_of_the_suites_are_finished(suite):
    runs = {(run.label, run.env, run.seed): run.env_steps for run in load_suite(suite)}
    assert {
        (run["method"], run["env"], run["seed"]): run["env_steps"]
        for run in read_provenance(csv_path(suite, RESULTS))["runs"]
    } == runs
