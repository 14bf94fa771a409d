"""Chunks in threads of their own: results in order, the same bits for any number of threads, the number restored."""

import threading

import pytest
import torch as th

import sb3_bomrl
from sb3_bomrl.core.threads import map_in_threads, torch_threads
from sb3_bomrl.meta import chunks


@pytest.fixture
def three_threads():
    with torch_threads(3):
        yield


def test_results_come_in_order_from_threads_with_single_threaded_operations(three_threads):
    meet = threading.Barrier(3, timeout=30)  # passes only if three run at once

    def work(item):
        meet.wait()
        return item, th.get_num_threads(), threading.get_ident()

    results = map_in_threads(work, range(6), True)
    assert [item for item, _, _ in results] == list(range(6))
    assert {n for _, n, _ in results} == {1}
    assert len({ident for _, _, ident in results}) == 3
    assert th.get_num_threads() == 3


def test_a_thread_that_starts_later_has_torchs_own_number(three_threads):
    map_in_threads(lambda item: item, range(3), True)
    seen = []
    thread = threading.Thread(target=lambda: seen.append(th.get_num_threads()))
    thread.start()
    thread.join()
    assert seen == [3]


def test_inside_of_a_thread_calls_run_in_turn(three_threads):
    inner = lambda _: map_in_threads(lambda _: threading.get_ident(), range(4), True)  # noqa: E731
    nested = map_in_threads(inner, range(2), True)
    assert [len(set(idents)) for idents in nested] == [1, 1]


@pytest.mark.parametrize("parallel", [True, False])
def test_errors_reach_the_caller(three_threads, parallel):
    def fail(item):
        raise ValueError(f"item {item}")

    with pytest.raises(ValueError, match="item 0"):
        map_in_threads(fail, range(3), parallel)
    assert th.get_num_threads() == 3


def test_in_turn_on_request(three_threads):
    assert set(map_in_threads(lambda _: threading.get_ident(), range(3), False)) == {threading.get_ident()}


@pytest.mark.parametrize(
    ("algorithm", "settings"),
    [("BOMRL", {"n_inner_steps": 5}), ("MAML", {}), ("EMAML", {}), ("ProMP", {"n_epochs": 2})],
)
def test_the_number_of_threads_changes_no_bit(algorithm, settings, monkeypatch):
    monkeypatch.setattr(chunks, "ACTIVATIONS_AT_ONCE", 2_000)  # a task per chunk
    results = []
    for n_threads in (1, 2, 3):
        with torch_threads(n_threads):
            env = sb3_bomrl.make_meta_vec_env("bomrl/Navigation2D-v0", 6, env_kwargs={"horizon": 10})
            common = {
                "n_steps": 20,
                "meta_batch_size": 3,
                "policy_kwargs": {"net_arch": [16]},
                "seed": 0,
                "device": "cpu",
            }
            model = getattr(sb3_bomrl, algorithm)("MlpPolicy", env, **common, **settings)
            before = model.actor.params()
            model.learn(2 * 20 * 6)
            assert not any(th.equal(before[name], value) for name, value in model.actor.params().items())
            results.append(model.actor.params())
    for other in results[1:]:
        assert all(th.equal(other[name], value) for name, value in results[0].items())
