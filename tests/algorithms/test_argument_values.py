"""Every constructor argument with odd values: it works, is saved and is loaded safely, or is refused by its name."""

import inspect
import io
import math
import pathlib
import warnings
from fractions import Fraction

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from hypothesis import given, settings
from hypothesis import strategies as st

from sb3_bomrl import BOMRL, EMAML, FOMAML, MAML, ProMP, Reptile
from tests.tiny import ALGORITHMS, OWN_SETTINGS, goal_vec

TABLE = [
    np.int64(2),
    np.int8(1),
    np.float32(0.5),
    np.longdouble(1),
    np.float64("nan"),
    np.bool_(True),
    np.str_("adam"),
    np.array(1.0),
    np.array([1, 2]),
    th.tensor(1.0),
    True,
    False,
    0,
    -1,
    -0.5,
    math.inf,
    -math.inf,
    math.nan,
    1e300,
    2**31,
    2**63,
    10**400,
    Fraction(1, 2),
    1j,
    "",
    "false",
    "1",
    None,
    [],
    [1],
    {},
    {"a": 1},
    b"1",
    pathlib.Path("logs"),
    float,
    object(),
    lambda _: "1",
    lambda _: math.nan,
]
ENDLESS = 1000
"""Training with more steps than this is not tried."""


def arguments_of(cls):
    return list(inspect.signature(cls.__init__).parameters)[1:]


def make(cls, **kwargs):
    """A small model, for any value of an argument."""
    sizes = {"n_steps": 3, "meta_batch_size": 2, "seed": 0, "device": "cpu", "n_critic_updates": 1}
    small = {"policy": "MlpPolicy", "env": goal_vec(2, horizon=3), "policy_kwargs": {"net_arch": [4]}}
    return cls(**{**small, **sizes, **OWN_SETTINGS[cls], **kwargs})


def refused(error, name):
    """Errors name the argument; those of a policy or buffer of SB3's name its keyword."""
    assert isinstance(error, ValueError | TypeError | gym.error.Error), repr(error)
    words = {"policy_kwargs": "unexpected keyword|policy_kwargs", "rollout_buffer_kwargs": "unexpected keyword|buffer"}
    text = str(error).lower()
    assert any(word in text for word in words.get(name, f"{name}|{name.replace('_', ' ')}").lower().split("|")), error


def refused_as(error, words):
    assert words in str(error)


def check_value(cls, name, value, tried):
    """``tried`` holds what the argument became before: that is not trained with again."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*has no effect|.*multiple of|.*[Pp]ickle", UserWarning)
        try:
            model = make(cls, **{name: value})
        except Exception as error:
            refused(error, name)
            return
        if name == "_init_setup_model" and not value:
            return
        found = repr(getattr(model, name, value))
        is_long = isinstance(value, int) and value > ENDLESS
        if found not in tried and not is_long and name != "tensorboard_log":
            tried.add(found)
            try:
                model.learn(1)
            except FloatingPointError as error:  # a step size of 1e300
                refused_as(error, "not finite")
            except (ValueError, TypeError) as error:  # a schedule is seen when it is called
                refused(error, name)
                return
        data = io.BytesIO()
        if any(not parameter.isfinite().all() for parameter in model.policy.parameters()):
            return
        model.save(data)
        given = {"learning_rate": 1e-3, name: 1.0, "lr_schedule": lambda _: 1.0} if callable(value) else {}
        loaded = cls.load_safely(data, custom_objects=given)
    if not callable(value) and hasattr(loaded, name) and name not in ("env", "device", "tensorboard_log"):
        found = getattr(loaded, name)
        assert type(found) is type(getattr(model, name)), (found, value)
        assert found == getattr(model, name)
        assert not isinstance(found, np.generic)


OWN = [
    (cls, name) for cls in ALGORITHMS for name in arguments_of(cls) if cls is BOMRL or name not in arguments_of(BOMRL)
]


@pytest.mark.parametrize(("cls", "name"), OWN, ids=lambda part: getattr(part, "__name__", part))
def test_odd_values_work_or_are_refused(cls, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tried = set()
    for value in TABLE:
        check_value(cls, name, value, tried)


CHOICES = [(cls, name) for cls in ALGORITHMS for name in arguments_of(cls)]
VALUES = st.one_of(
    st.sampled_from(TABLE),
    st.integers().filter(lambda n: not ENDLESS < n < 2**31),  # what takes gigabytes, or hours
    st.integers(-3, 20),
    st.floats(),
    st.floats(width=16).map(np.float16),
    st.booleans(),
    st.text(max_size=4),
    st.lists(st.integers(), max_size=2),
)


@given(st.sampled_from(CHOICES), VALUES)
@settings(max_examples=50, deadline=None)
def test_any_value_works_or_is_refused(choice, value):
    check_value(*choice, value, set())


@pytest.mark.parametrize("cls", [BOMRL, MAML, FOMAML, EMAML, ProMP, Reptile])
@pytest.mark.parametrize("text", ["false", "off", 0, 1, None, np.float32(1)])
def test_text_is_no_boolean(tiny, cls, text):
    with pytest.raises(ValueError, match="normalize_advantage must be True or False, got "):
        tiny.model(cls=cls, normalize_advantage=text)


def test_arguments_become_pythons_own_types(tiny):
    model = tiny.model(
        n_steps=np.int64(10),
        gamma=np.float32(0.5),
        line_search=np.bool_(True),
        seed=np.uint8(3),
        learning_rate=np.float64(1),
    )
    assert [type(x) for x in (model.n_steps, model.gamma, model.line_search, model.seed)] == [int, float, bool, int]
    assert type(model.learning_rate) is float
    model.save(data := io.BytesIO())
    assert BOMRL.load_safely(data).seed == 3


def test_arguments_are_checked_when_they_are_changed_while_loading(tiny):
    tiny.model().save(data := io.BytesIO())
    with pytest.raises(ValueError, match="discount_states must be True or False, got 'no'"):
        BOMRL.load(data, discount_states="no")


def test_a_rollout_that_does_not_fit_in_memory_is_named(tiny):
    with pytest.raises(ValueError, match="n_steps must be at most 2147483647, got 1000000000000"):
        tiny.model(n_steps=10**12)


@pytest.mark.parametrize("device", ["mps", "meta", "nonsense", "", "cuda", "cuda:7"])
def test_a_device_that_is_not_there_is_named(tiny, device):
    if (device == "mps" and th.backends.mps.is_available()) or (device == "cuda" and th.cuda.is_available()):
        pytest.skip("there is such a device")
    with pytest.raises(
        ValueError, match=f"device must be 'auto', 'cpu' or one that torch can use here, got '{device}'"
    ):
        tiny.model(device=device)
