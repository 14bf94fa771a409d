"""What every test needs."""

import signal

import pytest


@pytest.fixture(autouse=True, scope="session")
def _interruptible():
    """Jobs that a shell runs in the background ignore SIGINT, and so would the processes that tests start."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
