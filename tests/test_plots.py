"""Figures hold the numbers they were given."""

import numpy as np
import pytest

from sb3_bomrl.meta.evaluation import AdaptationCurve
from sb3_bomrl.plots import plot_adaptation_curves, plot_goal_tracking, save_figure


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


def test_saved_figure_is_a_whole_png(tmp_path):
    ax = plot_adaptation_curves({"ours": curve()})
    path = save_figure(ax.figure, tmp_path / "new" / "figure.png")
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG")
    assert data.endswith(b"IEND\xaeB`\x82")
    assert [p.name for p in path.parent.iterdir()] == ["figure.png"]
