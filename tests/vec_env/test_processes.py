"""Runs that are killed in the middle leave no processes, threads or files behind."""

import contextlib
import os
import signal
import subprocess
import sys
import time

import pytest

pytest.importorskip("mujoco")
pytestmark = pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="threads are counted through /proc")

RUN = """
import contextlib
import os
import multiprocessing as mp
import numpy as np
from sb3_bomrl.vec_env import make_meta_vec_env

def n_threads():
    return len(os.listdir("/proc/self/task"))

def main():
    env_id, before = "bomrl/HopperRandParams-v0", n_threads()
    batch = make_meta_vec_env(env_id, 4, env_kwargs={"n_threads": 3})
    workers = make_meta_vec_env(env_id, 2, backend="subproc")
    try:
        batch.reset(), workers.reset()
        print("ready", n_threads() - before, len(mp.active_children()), flush=True)
        while True:
            batch.step(np.zeros((4, 3), dtype=np.float32)), workers.step(np.zeros((2, 3), dtype=np.float32))
    except KeyboardInterrupt:
        pass
    batch.close()
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        workers.close()  # workers that the same Ctrl-C ended are not there to answer
    for process in workers.processes:
        process.join()
    print("closed", n_threads() - before, len(mp.active_children()), flush=True)

if __name__ == "__main__":
    main()
"""


def start(folder):
    """A run in a session of its own, so that all its processes can be found."""
    (folder / "run.py").write_text(RUN)
    return subprocess.Popen(
        [sys.executable, "run.py"], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def is_gone(group):
    """Whether no process of the group is left, after up to 20 seconds."""
    for _ in range(200):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, 0)
            time.sleep(0.1)
            continue
        return True
    return False


def test_killed_runs_leave_nothing_behind(tmp_path):
    runs = {}
    for kind in (signal.SIGTERM, signal.SIGKILL, signal.SIGINT):
        folder = tmp_path / kind.name
        folder.mkdir()
        runs[kind] = start(folder)
    try:
        for run in runs.values():
            assert run.stdout.readline().split() == ["ready", "2", "2"]
        time.sleep(0.3)
        for kind, run in runs.items():
            if kind == signal.SIGINT:
                os.killpg(run.pid, kind)  # what Ctrl-C in a terminal does
            else:
                run.send_signal(kind)
        for kind, run in runs.items():
            output, errors = run.communicate(timeout=60)
            assert is_gone(run.pid), (kind, errors)
            assert os.listdir(tmp_path / kind.name) == ["run.py"]
            if kind == signal.SIGINT:
                assert (run.returncode, output.split()) == (0, ["closed", "0", "0"]), errors
            else:
                assert run.returncode == -kind
    finally:
        for run in runs.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(run.pid, signal.SIGKILL)
            run.communicate()
