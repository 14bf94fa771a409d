"""What every test needs."""

import signal

import pytest
from stable_baselines3.common.logger import KVWriter, Logger


@pytest.fixture(autouse=True, scope="session")
def _interruptible():
    """Jobs that a shell runs in the background ignore SIGINT, and so would the processes that tests start."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


class Rows(KVWriter):
    """Keeps every row of the log."""

    def __init__(self):
        self.rows = []

    def write(self, key_values, key_excluded, step=0):
        self.rows.append(dict(key_values))

    def close(self):
        pass


@pytest.fixture
def log_rows():
    """Of a model, the list that every later row of its log goes to."""

    def attach(model):
        writer = Rows()
        model.set_logger(Logger(folder=None, output_formats=[writer]))
        return writer.rows

    return attach
