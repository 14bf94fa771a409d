"""Keyword arguments of policies: NumPy's become Python's, and one that does not fit is named."""

import io
from functools import partial

import numpy as np
import pytest
import torch as th

from sb3_bomrl import BOMRL


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"net_arch": np.array([8])}, {"net_arch": [8]}),
        ({"net_arch": (np.int64(8), 4)}, {"net_arch": [8, 4]}),
        ({"net_arch": {"pi": np.array([8]), "vf": [np.int32(4)]}}, {"net_arch": {"pi": [8], "vf": [4]}}),
        ({"log_std_init": np.array(-0.5)}, {"log_std_init": -0.5}),
        ({"optimizer_kwargs": {"betas": np.array([0.5, 0.75])}}, {"optimizer_kwargs": {"betas": [0.5, 0.75]}}),
        ({"optimizer_kwargs": {"eps": np.float64(1e-4)}}, {"optimizer_kwargs": {"eps": 1e-4}}),
        ({"optimizer_kwargs": {"amsgrad": np.True_}}, {"optimizer_kwargs": {"amsgrad": True}}),
    ],
)
def test_numpy_values_are_loaded_as_pythons(tiny, given, kept):
    file, before = io.BytesIO(), repr(given)
    model = tiny.model(outer_step="adam", policy_kwargs=given).learn(1)
    model.save(file)
    assert repr(BOMRL.load_safely(file).policy_kwargs) == repr(kept)
    assert repr(given) == before


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"log_std_init": "a"}, r"\['log_std_init'\] must be a number, got 'a'"),
        ({"log_std_init": th.tensor(0.5)}, r"\['log_std_init'\] must be a number, got tensor"),
        ({"activation_fn": None}, r"\['activation_fn'\] must be a class derived from Module, got None"),
        ({"features_extractor_class": 3}, r"\['features_extractor_class'\] must be a class derived from"),
        ({"optimizer_class": int}, r"\['optimizer_class'\] must be a class derived from Optimizer, got"),
        ({"optimizer_kwargs": 3}, r"\['optimizer_kwargs'\] must be a dictionary or None, got 3"),
        ({"optimizer_kwargs": {"eps": "a"}}, "must fit NormalizedMlpPolicy: '<=' not supported"),
        ({"ortho_init": "no"}, r"\['ortho_init'\] must be True or False, got 'no'"),
        ({"net_arch": "a"}, r"\['net_arch'\] must be a list or a dictionary or None, got 'a'"),
        ({"net_arch": [8.5]}, r"\['net_arch'\] must be a list of integers of at least 1, .* got \[8.5\]"),
        ({"net_arch": np.array([[8]])}, r"\['net_arch'\] must be a list of integers of at least 1"),
        ({"net_arch": {"pi": 8}}, r"\['net_arch'\] must be a list of integers of at least 1"),
        ({"net_arch": [True]}, r"\['net_arch'\] must be a list of integers of at least 1"),
        ({"colour": 1}, "must fit NormalizedMlpPolicy: .*'colour'"),
        ({"features_extractor_kwargs": {"colour": 1}}, "must fit NormalizedMlpPolicy: .*'colour'"),
    ],
)
def test_one_that_does_not_fit_is_named(tiny, given, words):
    with pytest.raises((ValueError, TypeError), match=f"policy_kwargs.*{words}"):
        tiny.model(policy_kwargs=given)


def test_a_function_may_stand_for_a_class(tiny):
    model = tiny.model(policy_kwargs={"net_arch": [], "activation_fn": partial(th.nn.LeakyReLU, 0.2)})
    assert model.learn(tiny.iteration).n_meta_iterations == 1
