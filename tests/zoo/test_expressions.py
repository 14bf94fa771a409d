"""Arguments as text: what rl_zoo3's files write is read, and nothing is run."""

import pytest
import torch as th
from hypothesis import given
from hypothesis import strategies as st
from stable_baselines3.common.torch_layers import NatureCNN

from sb3_bomrl import BOMRL, zoo
from sb3_bomrl.policies import NormalizedFlattenExtractor
from sb3_bomrl.zoo.expressions import read_expression


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("dict(net_arch=[8])", {"net_arch": [8]}),
        ("dict()", {}),
        (" {'net_arch': dict(pi=[8], vf=[])} ", {"net_arch": {"pi": [8], "vf": []}}),
        (
            "dict(features_extractor_class=NormalizedFlattenExtractor, log_std_init=-0.5)",
            {"features_extractor_class": NormalizedFlattenExtractor, "log_std_init": -0.5},
        ),
        ("dict(activation_fn=nn.ReLU, ortho_init=False)", {"activation_fn": th.nn.ReLU, "ortho_init": False}),
        ("dict(activation_fn=th.nn.Tanh)", {"activation_fn": th.nn.Tanh}),
        (
            "dict(optimizer_class=torch.optim.Adam, optimizer_kwargs=dict(betas=(0.9, 0.99)))",
            {"optimizer_class": th.optim.Adam, "optimizer_kwargs": {"betas": (0.9, 0.99)}},
        ),
        ("NatureCNN", NatureCNN),
    ],
)
def test_what_files_write_is_read(text, value):
    assert read_expression("policy_kwargs", text) == value


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('touch ran')",
        "dict(a=open('ran', 'w'))",
        "dict(**{'a': 1})",
        "dict([('a', 1)])",
        "{**{}}",
        "dict(a=[x for x in (1, 2)])",
        "dict(a=lambda x: x)",
        "dict(a=dict)",
        "dict(a=th.nn.Module)",
        "dict(a=nn.Tanh.__init__)",
        "dict.__class__(a=1)",
        "(lambda: 1)()",
        "f'{open(1)}'",
        "dict(a=1",
        "{[]: 1}",
        "",
        "(" * 5000,
        "-" * 100000 + "1",
        "dict(" * 5000 + ")" * 5000,
        "\0",
    ],
)
def test_anything_else_is_refused_and_not_run(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"^policy_kwargs must be made of literals, dict\(...\) and known names"):
        read_expression("policy_kwargs", text)
    assert not (tmp_path / "ran").exists()


@given(
    st.recursive(st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text() | st.booleans(), st.lists)
)
def test_every_literal_is_read(value):
    assert read_expression("x", repr(value)) == value


def test_arguments_of_a_file_are_those_of_a_constructor():
    settings = {"inner_lr": "lin_0.01", "policy_kwargs": "dict(net_arch=[8])", "gamma": 0.9}
    found = zoo.constructor_arguments(BOMRL, settings)
    assert (found["policy_kwargs"], found["gamma"], found["inner_lr"](1.0)) == ({"net_arch": [8]}, 0.9, 0.01)
    assert settings["inner_lr"] == "lin_0.01"
    for start in ("nan", "inf", "-1", "0"):
        with pytest.raises(ValueError, match="inner_lr must be a number or 'lin_<start>'"):
            zoo.constructor_arguments(BOMRL, {"inner_lr": f"lin_{start}"})
