"""Folders of runs: somebody else's, one that another run writes to, and one on a full disk."""

import base64
import json
import os
import pickle
import signal
import subprocess
import sys
import zipfile

import pytest

pytest.importorskip("typer")

from typer.testing import CliRunner

from sb3_bomrl import BOMRL, load_checkpoint
from sb3_bomrl.cli import app as cli
from sb3_bomrl.cli import progress_csv
from sb3_bomrl.cli.run import Run, read_run
from sb3_bomrl.saving.checkpoints import checkpoints
from sb3_bomrl.saving.lock import LOCK_FILE, folder_lock
from sb3_bomrl.saving.model_file import write_zip

ENV = "bomrl/Navigation2D-v0"
TINY = ["-P", "n_steps=10", "-P", "meta_batch_size=2", "-P", "n_envs_per_task=2", "-P", "n_inner_steps=2"]


def call(*argv):
    return CliRunner().invoke(cli.app, [str(part) for part in argv], catch_exceptions=False)


@pytest.fixture
def stopped(tmp_path, monkeypatch):
    """The folder of a run that was interrupted, with two checkpoints."""
    original = BOMRL._meta_iteration

    def interrupted(self, run, must_finish):
        if self.n_meta_iterations == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, run, must_finish)

    with monkeypatch.context() as patch:
        patch.setattr(BOMRL, "_meta_iteration", interrupted)
        done = call("train", ENV, *TINY, "-n", 240, "-o", tmp_path / "nav", "--save-freq", 1)
    assert done.exit_code == 128 + signal.SIGTERM
    return tmp_path / "nav"


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_folder_of_somebody_else_runs_nothing_when_it_is_resumed(stopped, tmp_path):
    path = checkpoints(stopped / "checkpoints")[-1]
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    settings = json.loads(members["data"])
    settings["rollout_buffer_kwargs"] = {
        ":type:": "dict",
        ":serialized:": base64.b64encode(pickle.dumps(Evil(tmp_path / "ran"))).decode(),
    }
    members["data"] = json.dumps(settings).encode()
    path.write_bytes(write_zip(members))
    with pytest.raises(ValueError, match="only unpickling could load: 'rollout_buffer_kwargs'"):
        call("train", ENV, "-o", stopped, "--resume")
    assert not (tmp_path / "ran").exists()
    with pytest.raises((TypeError, ValueError, AttributeError)):
        call("train", ENV, "-o", stopped, "--resume", "--trusted")
    assert (tmp_path / "ran").exists()


def test_a_damaged_checkpoint_is_passed_over_without_unpickling_too(stopped):
    path = checkpoints(stopped / "checkpoints")[-1]
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.warns(RuntimeWarning, match="renamed, and the checkpoint before it is used"):
        done = call("train", ENV, "-o", stopped, "--resume")
    assert done.exit_code == 0, done.output


def test_the_page_says_in_bold_what_is_unpickled():
    assert "**By default, as ``load``, this unpickles" in load_checkpoint.__doc__


def test_two_runs_in_one_folder_are_refused(stopped):
    with folder_lock(stopped):
        with pytest.raises(ValueError, match=rf"no other run writes to, got .*nav, where process {os.getpid()} is"):
            call("train", ENV, "-o", stopped, "--resume")
        with pytest.raises(ValueError, match="no other run writes to"):
            call("train", ENV, *TINY, "-o", stopped)
    assert call("train", ENV, "-o", stopped, "--resume").exit_code == 0


def test_the_lock_ends_with_its_process(tmp_path):
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom sb3_bomrl.saving.lock import folder_lock\n"
        "with folder_lock(Path(sys.argv[1])):\n    print('in', flush=True)\n    sys.stdin.read()\n"
    )
    argv = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "in\n"
        with pytest.raises(ValueError, match=f"where process {process.pid} is training"), folder_lock(tmp_path):
            pass
        process.kill()
    with folder_lock(tmp_path):
        pass


def test_a_full_disk_does_not_end_a_run(tmp_path, monkeypatch):
    original, calls = progress_csv._append, []

    def append(path, data):
        calls.append(path)
        if len(calls) == 1:
            raise OSError(28, "No space left on device")
        original(path, data)

    monkeypatch.setattr(progress_csv, "_append", append)
    with pytest.warns(RuntimeWarning, match=r"progress_0+\.csv could not be written \(\[Errno 28\]"):
        done = call("train", ENV, *TINY, "-n", 400, "-o", tmp_path / "nav")
    assert done.exit_code == 0, done.output
    (path,) = (tmp_path / "nav").glob("progress_*.csv")
    assert len(list(progress_csv.read_progress(path))) == 5
    with path.open("a") as file:
        file.write("1,2")
    call("plot", tmp_path / "nav", "-o", tmp_path / "returns.png")


@pytest.mark.parametrize(
    "text", ["{}", "[]", "1", "null", "", "{", '{"env": 1}', "[" * 9999, "\0", '["a", "bomrl", 1, {}, 0, 1]']
)
def test_a_run_file_of_something_else_is_named(tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(ValueError, match=r"run\.json must hold the settings of a run of `bomrl train`"):
        read_run(tmp_path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("seed", "0"), ("algo", "dqn"), ("params", []), ("n_envs", True)),
        *(("seed", -1), ("seed", 2**32), ("timesteps", -4), ("timesteps", 0), ("n_envs", 0), ("n_envs", 2**40)),
        *(("params", {name: 1}) for name in ("env", "seed", "verbose", "_init_setup_model", "x" * 10_000)),
    ],
)
def test_a_run_file_with_settings_of_another_type_is_named(tmp_path, name, value):
    run = {**Run(ENV, "bomrl", 4, {}, 0, 100)._asdict(), name: value}
    (tmp_path / "run.json").write_text(json.dumps(run))
    with pytest.raises(ValueError, match=rf"run\.json must hold the settings.* {name} must be"):
        read_run(tmp_path)


def fails_with(capsys, words, *argv):
    """The program ends with one line and exit code 1."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli.sys, "argv", ["bomrl", *map(str, argv)])
        with pytest.raises(SystemExit) as end:
            cli.main()
    err = capsys.readouterr().err
    assert (end.value.code, err.count("\n")) == (1, 1)
    assert err.startswith("bomrl: error: ")
    assert words in err


KINDS = {
    "a FIFO": os.mkfifo,
    "a folder": os.mkdir,
    "a socket or a device": lambda path: path.symlink_to("/dev/zero"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_only_regular_files_of_a_folder_are_used(stopped, capsys, kind):
    resume, go = ("train", ENV, "-o", stopped, "--resume"), ("--task", "(0.4, -0.1)")
    log = f"progress_{int(checkpoints(stopped / 'checkpoints')[-1].stem[11:]) * 80:012d}.csv"
    for name, calls in {
        "run.json": (resume, ("adapt", stopped, *go), ("evaluate", stopped), ("video", stopped, *go)),
        LOCK_FILE: (resume,),
        log: (resume, ("plot", stopped)),
    }.items():
        path = stopped / name
        if path.exists():
            path.rename(stopped / "kept")
        KINDS[kind](path)
        for argv in calls:
            words = "but is a link" if name == LOCK_FILE and path.is_symlink() else f"but is {kind}"
            fails_with(capsys, f"{path} must be a regular file, {words}", *argv)
        (path.rmdir if path.is_dir() else path.unlink)()
        if (stopped / "kept").exists():
            (stopped / "kept").rename(path)
    KINDS[kind](stopped / "model.zip")
    fails_with(capsys, "which is no regular file", "evaluate", stopped)


def test_a_file_in_place_of_a_folder_is_named(stopped, capsys, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    new = ("train", ENV, *TINY, "-n", 80, "-o")
    fails_with(capsys, f"file must be a folder, but {tmp_path / 'file'} is a file", *new, tmp_path / "file")
    fails_with(capsys, f"below must be a folder, but {tmp_path / 'file'} is a file", *new, tmp_path / "file" / "below")
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "checkpoints").write_bytes(b"")
    fails_with(capsys, "checkpoints must be a folder", *new, tmp_path / "new")


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"gamma": "x"}, "gamma must be a number, got 'x'"),
        ({"policy_kwargs": "open('x')"}, "policy_kwargs must be made of literals"),
        ({"learning_rate": "exp_1"}, "learning_rate must be a number or 'lin_<start>'"),
    ],
)
def test_a_run_file_with_wrong_settings_of_the_algorithm_is_named(tmp_path, params, words):
    (tmp_path / "run.json").write_text(json.dumps(Run(ENV, "bomrl", 4, params, 0, 100)._asdict()))
    with pytest.raises(ValueError, match=rf"run\.json must hold the settings.* {words}"):
        read_run(tmp_path)


def test_a_run_file_imports_no_module(tmp_path, tiny):
    tiny.model().save(tmp_path / "model.zip")
    run = Run("colorsys:Nothing-v0", "bomrl", 4, {}, 0, 100)
    (tmp_path / "run.json").write_text(json.dumps(run._asdict()))
    with pytest.raises(ValueError, match=r"--env must be given: .*names colorsys:Nothing-v0, which imports a module"):
        call("evaluate", tmp_path)


def test_settings_are_kept_as_they_were_given(stopped):
    assert read_run(stopped).params == {"n_steps": 10, "meta_batch_size": 2, "n_inner_steps": 2}
