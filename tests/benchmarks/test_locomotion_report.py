"""What the report makes of result files that are known."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from benchmarks import ablations, tuning
from benchmarks.locomotion import comparison, figures, paths, report
from benchmarks.locomotion.__main__ import draw
from benchmarks.locomotion.methods import METHODS
from benchmarks.provenance import FIGURES, RESULTS

N_TASKS = 4
README = Path(__file__).parents[2] / "README.md"


def row(scores, iteration, is_final, **more):
    values = np.round(scores, 2).tolist()
    head = {"iteration": iteration, "env_steps": 1_000 * iteration, "tasks": list(range(len(values[0])))}
    return {**head, "is_final": is_final, "deterministic": values, "stochastic": values, **more}


def write_run(root, label, seed, rng, n_scores=4, n_points=3, env="HalfCheetahVel", is_complete=True, **more):
    rows = [row(rng.normal(size=(min(2, n_scores), 2)), i, False) for i in range(n_points)]
    if is_complete:
        rows.append(row(rng.normal(size=(n_scores, N_TASKS)), n_points - 1, True, **more))
    head = {"env": f"bomrl/{env}-v0", "method": label, "label": label, "seed": seed, "timesteps": 2_000}
    head["provenance"] = {"hardware": f"{1 + seed // 2} cores"}
    path = root / env / label / f"seed_{seed}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**head, "rows": rows}))
    return {**head, "rows": rows}


@pytest.fixture
def results(tmp_path):
    """Two seeds of one method, one of the untrained policy and of the oracle, and a run that is not finished."""
    rng = np.random.default_rng(0)
    runs = {
        "maml": [write_run(tmp_path, "maml", seed, rng) for seed in (0, 1)],
        "random-init": [write_run(tmp_path, "random-init", 0, rng, n_points=1)],
        "oracle": [write_run(tmp_path, "oracle", 0, rng, n_scores=1)],
    }
    write_run(tmp_path, "maml", 2, rng, is_complete=False)
    rows = [{"method": "maml", "env_steps": 500, "seconds": [1.0, 9.0, 0.5]}]
    (tmp_path / "HalfCheetahVel" / "speed.json").write_text(json.dumps({"rows": rows}))
    return tmp_path, runs


def rows_drawn(statistic, *columns):
    """SciPy's bootstrap, which draws whole rows of columns that are paired."""
    settings = {"n_resamples": 2_000, "method": "percentile", "vectorized": False, "paired": True}
    return stats.bootstrap(columns, statistic, **settings, rng=np.random.default_rng(1)).confidence_interval


def test_interquartile_mean_and_its_interval():
    scores = np.random.default_rng(0).normal(5.0, 2.0, (6, 16))
    ordered = np.sort(scores.ravel())
    result = report.estimate(scores)
    assert result.value == pytest.approx(ordered[24:72].mean())
    whole = rows_drawn(lambda *columns: stats.trim_mean(np.concatenate(columns), 0.25), *scores.T)
    assert (result.low, result.high) == (pytest.approx(whole.low, abs=0.05), pytest.approx(whole.high, abs=0.05))
    # three seeds whose scores rise and fall together have no interval narrower than themselves
    together = report.estimate(np.repeat([[1.0], [2.0], [3.0]], 50, axis=1))
    assert (together.low, together.high) == (1.0, 3.0)
    alone = report.estimate(scores[:1])
    assert alone.low == alone.value == alone.high


def test_profiles_and_the_probability_of_improvement_by_hand():
    thresholds, share = report.performance_profile(np.array([[3.0, 1.0], [2.0, 4.0]]))
    assert (thresholds.tolist(), share.tolist()) == ([1.0, 2.0, 3.0, 4.0, 4.0], [1.0, 0.75, 0.5, 0.25, 0.0])
    # first task: 2 of 4 pairs won, one tie; second task: all lost
    scores, others = np.array([[1.0, 0.0], [3.0, 0.0]]), np.array([[1.0, 5.0], [2.0, 5.0]])
    assert comparison.probability_of_improvement(scores, others) == pytest.approx((2.5 / 4 + 0.0) / 2)


def test_a_task_that_is_adapted_to_repeatedly_counts_once():
    row = {"tasks": [[0.5, 1], [0.5, 1], [2, 1]], "stochastic": [[1.0, 2.0, 3.0], [5.0, 7.0, 0.0]]}
    assert report.scores_by_task(row, "stochastic").tolist() == [[1.5, 3.0], [6.0, 0.0]]
    assert report.after_one(row, "stochastic").tolist() == [6.0, 0.0]
    assert report.after_one({**row, "stochastic": row["stochastic"][:1]}, "stochastic").tolist() == [1.5, 3.0]


def test_nothing_to_draw_is_said(tmp_path):
    with pytest.raises(ValueError, match=r"results must have a finished run, found none in"):
        figures.figure_2(tmp_path, tmp_path / "figure.png")
    with pytest.raises(ValueError, match=r"against must be one of env_steps, seconds, got 'epochs'"):
        figures.figure_5(tmp_path, tmp_path / "figure.png", "epochs")


def test_the_table_has_every_group_and_no_unfinished_run(results):
    root, runs = results
    lines = report.markdown_table(root).splitlines()
    assert len(lines) == 2 + 2 * 3 + 2
    assert lines[-1] == "Made on: 1 cores (4 runs)."
    line = next(line for line in lines if "| maml |" in line and "deterministic" in line)
    assert "| 2,000 | 2 | 4 |" in line
    scores = np.array([run["rows"][-1]["deterministic"][3] for run in runs["maml"]])
    value = stats.trim_mean(scores, 0.25, axis=None)
    assert line.rstrip(" |").split(" | ")[-2].startswith(f"{value:.1f} (")
    means = [np.mean(run["rows"][-1]["deterministic"][1]) for run in runs["maml"]]
    assert line.endswith(f" | {means[0]:.1f}, {means[1]:.1f} |")
    untrained = next(line for line in lines if "| random-init |" in line)
    assert untrained.split(" | ")[4] == "0"
    assert "(" not in untrained  # one seed has no interval
    oracle = next(line for line in lines if "| oracle |" in line)
    assert oracle.split(" | ")[4] == "–"
    assert " | – | – | – | " in oracle


def test_the_improvement_table(results):
    root, runs = results
    table = comparison.improvement_table(root).splitlines()
    assert table[0] == "bomrl/HalfCheetahVel-v0, 2,000 steps, stochastic policy"
    header = table[2].split(" | ")
    line = next(line for line in table if line.startswith("| maml (2 seeds)")).strip("| ").split(" | ")
    a = np.array([run["rows"][-1]["stochastic"][1] for run in runs["maml"]])
    b = np.array([run["rows"][-1]["stochastic"][0] for run in runs["oracle"]])  # it does not adapt
    expected = np.mean([[x > y for x in a[:, i] for y in b[:, i]] for i in range(N_TASKS)])
    assert line[[name.strip("| ") for name in header].index("oracle")] == f"{expected:.2f}"


def test_differences_are_of_interquartile_means_and_draw_whole_seeds():
    rng = np.random.default_rng(2)
    scores, others = rng.normal(5.0, 2.0, (6, 16)), rng.normal(4.0, 1.0, (6, 16)) + rng.normal(size=(6, 1))
    result = comparison.difference(scores, others)
    assert result.value == pytest.approx(stats.trim_mean(scores, 0.25, None) - stats.trim_mean(others, 0.25, None))
    rows = rng.integers(6, size=(2, 4_000, 6))
    means = [
        [stats.trim_mean(table[i], 0.25, None) for i in draws]
        for table, draws in zip((scores, others), rows, strict=True)
    ]
    low, high = np.percentile(np.subtract(*means), [2.5, 97.5])
    assert (result.low, result.high) == (pytest.approx(low, abs=0.05), pytest.approx(high, abs=0.05))


def test_the_difference_table(results):
    root, runs = results
    rng = np.random.default_rng(3)
    ours = [write_run(root, "bomrl-alg3", seed, rng) for seed in (0, 1)]
    head, _, *lines = comparison.difference_table(root).splitlines()
    assert head == "| env | policy | less | bomrl-alg1 | bomrl-alg2 | bomrl-alg3 |"
    assert [line.split(" | ")[2] for line in lines] == ["maml", "oracle"] * 2  # the untrained policy is none of them
    a, b = ([run["rows"][-1]["deterministic"][1] for run in found] for found in (ours, runs["maml"]))
    value = stats.trim_mean(a, 0.25, axis=None) - stats.trim_mean(b, 0.25, axis=None)
    assert lines[0].startswith(f"| bomrl/HalfCheetahVel-v0 | deterministic | maml | – | – | {value:.1f} (")
    assert "(" not in lines[1]  # one seed has no interval


def test_levels_are_the_means_of_the_last_three_evaluations_up_to_there(tmp_path):
    # evaluations after 0, …, 7 thousand steps, of which 3.5 are half; their means over the two tasks are n²
    numbers = np.arange(8.0)
    curve = [row(np.stack([[-9.0, -9.0], [n * n - 1.0, n * n + 1.0]]), int(n), False) for n in numbers]
    run = {"rows": [*curve, row(np.full((4, N_TASKS), 100.0), 7, True)]}
    assert comparison.level(run, 0.5, "stochastic") == pytest.approx((1 + 4 + 9) / 3)
    assert comparison.level(run, 1.0, "stochastic") == pytest.approx((25 + 36 + 49) / 3)


def test_the_level_table(results):
    root, runs = results
    lines = comparison.level_table(root).splitlines()
    assert [line.split(" | ")[2] for line in lines[2:]] == ["maml", "oracle"] * 2  # the untrained policy has none
    half, whole = ([comparison.level(run, share, "deterministic") for run in runs["maml"]] for share in (0.5, 1.0))
    cells = [f"{np.mean(half):.1f}", f"{np.mean(whole):.1f}", *(f"{a:.1f}, {b:.1f}" for a, b in (half, whole))]
    assert lines[2] == f"| bomrl/HalfCheetahVel-v0 | deterministic | maml | {' | '.join(cells)} |"


def test_the_summary_has_the_best_of_each_kind(results):
    root, runs = results
    rng = np.random.default_rng(4)
    runs["bomrl-alg1"], runs["bomrl-alg3"] = ([write_run(root, f"bomrl-alg{n}", 0, rng)] for n in (1, 3))

    def score(label, *ks):
        scores = np.array([run["rows"][-1]["stochastic"] for run in runs[label]])
        return max(stats.trim_mean(scores[:, k], 0.25, axis=None) for k in ks)

    _, _, once, often, *_ = comparison.summary_table(root).splitlines()
    for line, name, ks in ((once, "1", (1,)), (often, "best of 1 to 3", (1, 2, 3))):
        ours = {label: score(label, *ks) for label in ("bomrl-alg1", "bomrl-alg3")}
        best = max(ours, key=ours.get)
        cells = [f"{ours[best]:.1f} ({best})", f"{score('maml', *ks):.1f} (maml)", "–"]
        cells.append(f"{score('random-init', *ks):.1f}")
        assert line == f"| HalfCheetahVel | stochastic | {name} | {' | '.join(cells)} |"


def lines_of(figure):
    return {line.get_label(): line for line in figure.axes[0].lines}


def test_the_figures_contain_the_data(results, monkeypatch):
    root, runs = results
    drawn = {}
    monkeypatch.setattr(figures, "save_figure", lambda figure, path: drawn.update({path.name: figure}))
    draw(root, root)
    assert len(drawn) == 8
    assert (root / "locomotion_table.md").read_text() == report.markdown_table(root) + "\n"
    labels = {"maml", "random-init", "oracle"}
    panel, legend = drawn["locomotion_figure2_deterministic.png"].axes
    assert panel.get_title() == "HalfCheetahVel, 2,000 steps\n1 seed (maml: 2)"
    assert [text.get_text() for text in legend.get_legend().get_texts()] == ["maml", "random-init", "oracle"]
    lines = lines_of(drawn["locomotion_figure2_deterministic.png"])
    assert set(lines) == labels
    scores = np.array([run["rows"][-1]["deterministic"] for run in runs["maml"]])
    expected = [stats.trim_mean(scores[:, k], 0.25, axis=None) for k in range(4)]
    assert lines["maml"].get_ydata() == pytest.approx(expected)
    level = stats.trim_mean(runs["oracle"][0]["rows"][-1]["deterministic"][0], 0.25)
    assert list(lines["oracle"].get_ydata()) == pytest.approx([level, level])
    for against, factor in (("env_steps", 1_000), ("seconds", 2)):
        lines = lines_of(drawn[f"locomotion_figure5_{against}_stochastic.png"])
        assert set(lines) == (labels if against == "env_steps" else labels - {"oracle"})  # was not measured
        assert lines["maml"].get_xdata().tolist() == [0, factor, 2 * factor]
        scores = np.array([[row["stochastic"][1] for row in run["rows"][:-1]] for run in runs["maml"]])
        expected = [stats.trim_mean(scores[:, i], 0.25, axis=None) for i in range(3)]
        assert lines["maml"].get_ydata() == pytest.approx(expected)
    profile = lines_of(drawn["locomotion_profiles_stochastic.png"])["random-init"]
    assert sorted(runs["random-init"][0]["rows"][-1]["stochastic"][1]) == pytest.approx(list(profile.get_xdata())[:-1])


def write_levels(root, label, *levels, env="Navigation2D"):
    """A run of which every task has the same return after 0, 1 … adaptations."""
    path = root / env / label / "seed_0.json"
    write_run(root, label, 0, np.random.default_rng(0), env=env)
    run = json.loads(path.read_text())
    run["rows"][-1] = row(np.repeat(np.array(levels)[:, None], N_TASKS, axis=1), 2, True)
    path.write_text(json.dumps(run))


def test_lines_that_leave_a_panel_are_said(tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr(figures, "save_figure", lambda figure, path: drawn.update({path.name: figure}))
    write_levels(tmp_path, "maml", -50.0, -30.0, -400.0)
    write_levels(tmp_path, "promp", -70.0, -10.0, 10.0)
    write_levels(tmp_path, "oracle", 0.0)
    for label in ("maml", "promp"):
        write_levels(tmp_path, label, -90.0, -10.0, -95.0, env="AntVel")
    for draw_figure in (figures.figure_2, figures.profiles):
        draw_figure(tmp_path, tmp_path / draw_figure.__name__)
    whole, cut, *_ = drawn["figure_2"].axes
    assert not whole.texts
    assert whole.get_ylim()[0] < -95.0
    # -50 is the middle one before, and 0 the highest after one adaptation
    assert cut.get_ylim() == pytest.approx((-75.0, 10.0 + 0.05 * 85.0))
    assert [text.get_text() for text in cut.texts] == ["↓ lines go on to −400"]
    assert not any(ax.texts for ax in drawn["profiles"].axes)


def test_profiles_leave_out_what_few_scores_are_at(tmp_path, monkeypatch):
    drawn, scores = [], [[0.0] * 100, [-900.0, *np.linspace(-20.0, 0.0, 99)]]
    path = tmp_path / "AntVel" / "maml" / "seed_0.json"
    run = write_run(tmp_path, "maml", 0, np.random.default_rng(0), env="AntVel")
    path.write_text(json.dumps({**run, "rows": [row(scores, 2, True)]}))
    monkeypatch.setattr(figures, "save_figure", lambda figure, path: drawn.append(figure))
    figures.profiles(tmp_path, tmp_path / "figure.png")
    ax = drawn[0].axes[0]
    low = np.percentile(scores[1], 5)
    assert ax.get_xlim()[0] == pytest.approx(1.5 * low, abs=0.01)  # files are rounded
    assert [text.get_text() for text in ax.texts] == ["← lines go on to −900"]


def test_a_method_has_its_colour_whatever_else_is_drawn(tmp_path, monkeypatch):
    drawn, rng = [], np.random.default_rng(0)
    monkeypatch.setattr(figures, "save_figure", lambda figure, path: drawn.append(figure))
    for label in ("promp", "maml"):
        write_run(tmp_path, label, 0, rng)
        figures.figure_2(tmp_path, tmp_path / "figure.png")
    colours = {lines_of(figure)["promp"].get_color() for figure in drawn}
    assert colours == {figures.COLOURS["promp"]}
    assert len(set(figures.COLOURS.values())) == len(METHODS)


def test_paths_are_drawn_before_and_after(results, monkeypatch):
    root, _ = results
    rng, drawn = np.random.default_rng(1), {}
    found = rng.normal(size=(2, 3, 5, 2)).tolist()
    common = {"seed": 1, "tasks": [[0.0, 0.1], [0.2, 0.3], [0.4, -0.5]]}
    rows = [{"method": "maml", **common, "paths": found}, {"method": "oracle", **common, "paths": found[:1]}]
    file = paths.paths_path(root)
    file.parent.mkdir()
    file.write_text(json.dumps({"rows": rows}))
    write_run(root, "maml", 1, rng, env="Navigation2D")
    for module in (figures, paths):
        monkeypatch.setattr(module, "save_figure", lambda figure, path: drawn.update({path.name: figure}))
    draw(root, root)
    ax, oracle = drawn["locomotion_paths.png"].axes
    assert ax.get_title() == "maml, seed 1\nadapted to 20 episodes"
    assert oracle.get_title() == "oracle, seed 1\nsees the goal"
    assert ax.get_xlim() == oracle.get_ylim() == (-1.0, 1.0)
    lines = [line.get_xydata().tolist() for line in ax.lines]
    assert all(path in lines for path in (found[0][0], found[1][2]))
    (legend,) = drawn["locomotion_paths.png"].legends
    assert [text.get_text() for text in legend.get_texts()] == ["before adaptation", "after 1 adaptation", "asked for"]
    assert len(drawn["locomotion_figure2_stochastic.png"].axes) == 3  # and the legend's
    assert len(drawn["locomotion_figure5_seconds_stochastic.png"].axes) == 2  # speed is known of one family


def test_figures_without_measured_speed(results, monkeypatch):
    root, _ = results
    (root / "HalfCheetahVel" / "speed.json").unlink()
    drawn = []
    monkeypatch.setattr(figures, "save_figure", lambda figure, path: drawn.append(path.name))
    draw(root, root)
    assert len(drawn) == 6
    assert not any("seconds" in name for name in drawn)


def test_tables_of_the_documentation_are_those_of_the_results():
    results = RESULTS / "locomotion"
    expected = {"locomotion_table": report.markdown_table(results), "tuning": tuning.table(RESULTS / "tuning")}
    expected["locomotion_differences"] = comparison.difference_table(results)
    expected["locomotion_levels"] = comparison.level_table(results)
    expected["locomotion_summary"] = comparison.summary_table(results)
    expected["ablations"] = ablations.table(RESULTS / "ablations")
    for kind in ("deterministic", "stochastic"):
        expected[f"locomotion_improvement_{kind}"] = comparison.improvement_table(results, kind)
    for name, text in expected.items():
        assert (FIGURES / f"{name}.md").read_text() == text + "\n", name


def test_the_table_of_the_readme_is_that_of_the_results():
    lines = comparison.summary_table(RESULTS / "locomotion").splitlines()
    shown = [line for line in lines if "| deterministic |" not in line]
    assert len(shown) > 2
    assert "\n".join(shown) in README.read_text()
