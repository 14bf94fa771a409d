"""What every test needs."""

import signal
from types import SimpleNamespace

import pytest
from stable_baselines3.common.logger import KVWriter, Logger

from sb3_bomrl import MetaAlgorithm
from tests.tiny import (
    ALGORITHMS,
    GoalEnv,
    SpaceEnv,
    assert_equal,
    differ,
    goal_vec,
    iteration_of,
    make_model,
    params_of,
)


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


@pytest.fixture(params=ALGORITHMS, ids=lambda cls: cls.__name__)
def algorithm(request) -> type[MetaAlgorithm]:
    """Each of the package's meta-algorithms in turn."""
    return request.param


@pytest.fixture
def tiny(log_rows) -> SimpleNamespace:
    """Everything tests build their examples from."""
    return SimpleNamespace(
        SpaceEnv=SpaceEnv,
        GoalEnv=GoalEnv,
        goal_vec=goal_vec,
        model=make_model,
        params=params_of,
        assert_equal=assert_equal,
        differ=differ,
        iteration_of=iteration_of,
        log_rows=log_rows,
        iteration=2 * 10 * 4,  # env steps of one meta-iteration of the default model
    )
