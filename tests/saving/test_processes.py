"""Several processes, and a user in a hurry: every file is whole, and the program ends."""

import os
import signal
import subprocess
import sys
import time

import pytest
from stable_baselines3.common.callbacks import ConvertCallback

from sb3_bomrl import BOMRL, ExactCheckpointCallback
from sb3_bomrl.saving.checkpoints import checkpoints

SAVE = """
import sys
from tests.tiny import make_model
model = make_model(n_steps=int(sys.argv[2]))
print(flush=True)
while True:
    model.save(sys.argv[1])
"""


def test_of_many_processes_one_leaves_its_whole_model(tiny, tmp_path):
    path = tmp_path / "model.zip"
    argv = [sys.executable, "-c", SAVE, str(path)]
    with (
        subprocess.Popen([*argv, "10"], stdout=subprocess.PIPE) as one,
        subprocess.Popen([*argv, "20"], stdout=subprocess.PIPE) as other,
    ):
        try:
            found = set()
            for process in (one, other):
                assert process.stdout.readline() == b"\n"
            end = time.monotonic() + 60
            while time.monotonic() < end and (len(found) < 2 or not path.exists()):
                if path.exists():
                    found.add(BOMRL.load_safely(path, device="cpu").n_steps)
            for _ in range(20):
                found.add(BOMRL.load_safely(path, device="cpu").n_steps)
        finally:
            for process in (one, other):
                process.kill()
    assert found == {10, 20}
    assert BOMRL.load_safely(path, device="cpu").n_steps in found


def test_two_runs_in_one_folder_of_checkpoints_are_refused(tiny, tmp_path):
    errors = []

    def second(local, _):
        if not errors:
            with pytest.raises(
                ValueError, match=rf"folder must be .* no other run writes to, got .*{os.getpid()} is"
            ) as error:
                tiny.model().learn(1, callback=ExactCheckpointCallback(tmp_path, save_freq=1))
            errors.append(error)
        return True

    model = tiny.model()
    for _ in range(2):  # the folder is free when a run has ended
        model.learn(
            tiny.iteration,
            callback=[ExactCheckpointCallback(tmp_path, 1), ConvertCallback(second)],
            reset_num_timesteps=False,
        )
    assert len(errors) == 1
    assert len(checkpoints(tmp_path)) == 2


LEARN = """
import sys
from tests.tiny import make_model
from sb3_bomrl import ExactCheckpointCallback
from stable_baselines3.common.callbacks import BaseCallback

class Tell(BaseCallback):
    def _on_step(self):
        if self.n_calls == 100:
            print("running", flush=True)
        return True

make_model().learn(10**9, callback=[ExactCheckpointCallback(sys.argv[1], 1), Tell()])
"""


@pytest.mark.parametrize("pause", [0.0, 0.01])
def test_three_signals_in_quick_succession_end_the_program(tiny, tmp_path, pause):
    argv = [sys.executable, "-c", LEARN, str(tmp_path)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "running\n"
        for _ in range(3):
            process.send_signal(signal.SIGINT)
            time.sleep(pause)
        _, err = process.communicate(timeout=60)
    assert process.returncode in (0, 1, 130, -signal.SIGINT)
    assert process.returncode == 0 or "KeyboardInterrupt" in err
    for path in checkpoints(tmp_path):
        assert BOMRL.load_safely(path, device="cpu").n_meta_iterations > 0
