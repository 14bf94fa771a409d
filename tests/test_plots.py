"""Figures hold the numbers they were given."""

import numpy as np
import pytest

from sb3_bomrl.algorithms.evaluation import AdaptationCurve
from sb3_bomrl.plots import plot_adaptation_curves, plot_goal_tracking, plot_trajectories, save_figure


def curve(measured=True):
    rng = np.random.default_rng(0)
    returns = rng.normal(size=(4, 3, 5))
    return AdaptationCurve(
        [0.5, 1.0, 1.5],
        returns,
        np.full((4, 3, 5), 100),
        np.zeros((4, 3)),
        [],
        rng.normal(size=(4, 3)) if measured else None,
    )


def test_curves_are_means_over_tasks():
    ours, theirs = curve(), curve()._replace(returns=np.zeros((4, 3, 5)))
    ax = plot_adaptation_curves({"ours": ours, "theirs": theirs})
    lines = {line.get_label(): line.get_ydata() for line in ax.get_lines()}
    np.testing.assert_allclose(lines["ours"], ours.returns.mean((1, 2)))
    np.testing.assert_allclose(lines["theirs"], 0.0)
    assert ax.get_xticks().tolist() == [0, 1, 2, 3]


def test_goal_tracking_draws_before_one_and_last():
    data = curve()
    ax = plot_goal_tracking(data, "velocity (m/s)")
    lines = {line.get_label(): line.get_ydata() for line in ax.get_lines()}
    np.testing.assert_allclose(lines["before adaptation"], data.measured[0])
    np.testing.assert_allclose(lines["after 1 adaptation"], data.measured[1])
    np.testing.assert_allclose(lines["after 3 adaptations"], data.measured[3])
    assert "velocity (m/s)" in ax.get_xlabel()


def test_goal_tracking_needs_measurements():
    with pytest.raises(ValueError, match="curve must have measured values, got None"):
        plot_goal_tracking(curve(measured=False))


def test_trajectories_in_the_plane_with_goals():
    paths, goals = np.random.default_rng(0).normal(size=(3, 2, 7, 2)), np.array([[1.0, 2.0], [-1.0, 0.5]])
    ax = plot_trajectories(paths, goals)
    before, after, stars = ax.get_lines()[:2], ax.get_lines()[2:4], ax.get_lines()[4:]
    for task in range(2):
        np.testing.assert_array_equal(before[task].get_xydata(), paths[0, task])
        np.testing.assert_array_equal(after[task].get_xydata(), paths[2, task])
        np.testing.assert_array_equal(stars[task].get_xydata(), goals[task][None])
        assert before[task].get_color() == after[task].get_color() == stars[task].get_color()
    assert before[0].get_color() != before[1].get_color()
    assert before[0].get_linestyle() != after[0].get_linestyle()
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["before adaptation", "after 2 adaptations", "asked for"]


def test_trajectories_of_numbers_are_drawn_against_time():
    paths = np.random.default_rng(0).normal(size=(2, 1, 5))
    ax = plot_trajectories(paths, [0.7], "velocity (m/s)")
    lines = {line.get_label(): line for line in ax.get_lines()}
    np.testing.assert_array_equal(lines["before adaptation"].get_xdata(), np.arange(5))
    np.testing.assert_array_equal(lines["after 1 adaptation"].get_ydata(), paths[1, 0])
    np.testing.assert_array_equal(lines["asked for"].get_ydata(), [0.7, 0.7])
    assert ax.get_ylabel() == "velocity (m/s)"


def test_without_adaptation_each_trajectory_is_drawn_once():
    assert len(plot_trajectories(np.zeros((1, 3, 5))).get_lines()) == 3


@pytest.mark.parametrize("shape", [(5,), (2, 3), (2, 3, 5, 3), (1, 2, 3, 4, 2)])
def test_trajectories_need_a_path_per_adaptation_and_task(shape):
    with pytest.raises(ValueError, match=r"paths must have shape .*, got"):
        plot_trajectories(np.zeros(shape))


def test_goals_of_trajectories_need_their_shape():
    with pytest.raises(ValueError, match=r"goals must have shape \(3, 2\) for these paths, got \(3,\)"):
        plot_trajectories(np.zeros((2, 3, 5, 2)), np.zeros(3))


def test_figures_share_no_state():
    pyplot = pytest.importorskip("matplotlib.pyplot")
    before = pyplot.get_fignums()
    figures = {id(draw().figure) for draw in (lambda: plot_adaptation_curves({"a": curve()}),) * 2}
    assert len(figures) == 2
    plot_trajectories(np.zeros((2, 1, 4)))
    assert pyplot.get_fignums() == before


def test_saved_figure_is_a_whole_png(tmp_path):
    ax = plot_adaptation_curves({"ours": curve()})
    path = save_figure(ax.figure, tmp_path / "new" / "figure.png")
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG")
    assert data.endswith(b"IEND\xaeB`\x82")
    assert [p.name for p in path.parent.iterdir()] == ["figure.png"]
