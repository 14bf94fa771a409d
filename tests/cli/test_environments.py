"""Environments that ``bomrl train`` cannot use, and those that are one task only."""

import pytest

pytest.importorskip("typer")

from tests.cli.test_folders import TINY, call, fails_with


@pytest.mark.parametrize("env", ["nope/Env-v0", "a", "foo:bar", "", "CartPole-v99"])
def test_a_wrong_id_ends_with_one_line(env, capsys, caplog, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fails_with(capsys, "", "train", env)
    assert caplog.records == [], "each of them would be a line"
    assert list(tmp_path.iterdir()) == []


def test_an_environment_without_tasks_is_trained_with_a_warning(tmp_path):
    with pytest.warns(UserWarning, match=r"env has no set_task\(task\) .* there is one task only") as warned:
        done = call("train", "CartPole-v1", "-n", 4, *TINY, "-o", tmp_path)
    assert done.exit_code == 0, done.output
    assert len([warning for warning in warned if "one task only" in str(warning.message)]) == 1
