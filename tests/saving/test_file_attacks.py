"""Files that comes from elsewhere: a clear error or the right model, never code from the file."""

import io
import json
import pickle
import zipfile

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from sb3_bomrl import BOMRL, make_meta_vec_env
from sb3_bomrl.saving.archive import write_zip
from sb3_bomrl.saving.model_file import PICKLED, SAFE
from tests.saving.archives import Evil, forged, members_of, pickled, saved, weights


@pytest.fixture
def trained(tiny):
    model = tiny.model(outer_step="adam").learn(tiny.iteration)
    return model, saved(model)


def test_pickles_in_every_field_never_run(tiny, tmp_path, trained):
    model, data = trained
    marker = tmp_path / "executed"
    code = pickled(Evil(marker))
    values = json.loads(members_of(data)["data"])
    for name in values:

        def replace(entries, name=name):
            entries[name] = {":type:": "x", PICKLED: code}

        def add(entries, name=name):
            if isinstance(entries[name], dict) and SAFE in entries[name]:
                entries[name][PICKLED] = code

        if name != "_algorithm_name":
            with pytest.raises(ValueError, match=f"only unpickling could load: '{name}'"):
                BOMRL.load_safely(forged(data, replace))
        else:
            with pytest.raises(ValueError, match="was saved by"):
                BOMRL.load_safely(forged(data, replace))
        tiny.assert_equal(tiny.params(BOMRL.load_safely(forged(data, add))), tiny.params(model))
    assert not marker.exists()
    OnPolicyAlgorithm.load.__func__(BOMRL, forged(data, lambda e: e["ep_info_buffer"].update({PICKLED: code})))
    assert marker.exists(), "the attack must work where pickles are loaded"


def test_pickles_in_nested_fields_never_run(tmp_path, trained):
    _, data = trained
    code = pickled(Evil(tmp_path / "executed"))
    for inner in ({PICKLED: code}, {":kind:": "class", "name": "builtins.eval"}, {":kind:": "pickle", "data": code}):
        for outer in (inner, [inner], {"net_arch": inner}):
            with pytest.raises(ValueError, match=r"policy_kwargs|does not make a model"):
                BOMRL.load_safely(forged(data, lambda e, o=outer: e.update(policy_kwargs={SAFE: o, ":type:": ""})))
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("member", ["policy.pth", "policy.optimizer.pth", "pytorch_variables.pth"])
def test_pickles_in_weight_files_never_run(tmp_path, trained, member):
    _, data = trained
    marker = tmp_path / "executed"
    new, old, bare = io.BytesIO(), io.BytesIO(), pickle.dumps(Evil(marker))
    th.save({"a": Evil(marker)}, new)
    th.save({"a": Evil(marker)}, old, _use_new_zipfile_serialization=False)
    for attack in (new.getvalue(), old.getvalue(), bare, b"", b"PK"):
        with pytest.raises(ValueError, match=f"{member}|damaged"):
            BOMRL.load_safely(forged(data, **{member.replace(".", "__"): attack}))
    assert not marker.exists()
    pickle.loads(bare)
    assert marker.exists()


def test_a_weight_file_that_would_fill_the_memory_is_refused(trained):
    _, data = trained
    parts = members_of(members_of(data)["policy.pth"])
    name = next(member for member in parts if member.endswith("data.pkl"))
    # bytearray(2**40), which torch's own restricted unpickler would carry out
    parts[name] = b"\x80\x02cbuiltins\nbytearray\n\x8a\x06" + (2**40).to_bytes(6, "little") + b"\x85R."
    with pytest.raises(ValueError, match=r"code in 'policy.pth': builtins bytearray"):
        BOMRL.load_safely(forged(data, policy__pth=write_zip(parts)))


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "evil.pkl", "data/../data", "policy2.pth", "C:\\evil"])
def test_other_members_are_named(trained, name):
    _, data = trained
    with pytest.raises(ValueError, match="which belongs to no model") as error:
        BOMRL.load_safely(io.BytesIO(write_zip({**members_of(data), name: b"x"})))
    assert repr(name) in str(error.value)


def test_members_that_are_missing_twice_or_compressed(trained):
    _, data = trained
    with pytest.raises(ValueError, match=r"lacks 'policy\.optimizer\.pth'"):
        BOMRL.load_safely(forged(data, policy__optimizer__pth=None))
    file = io.BytesIO(data)
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(file, "a") as archive:
        archive.writestr("data", b"{}")
    with pytest.raises(ValueError, match="holds 'data' twice"):
        BOMRL.load_safely(io.BytesIO(file.getvalue()))
    for name in ("data", "policy.pth", "system_info.txt"):
        bomb = io.BytesIO()
        with zipfile.ZipFile(bomb, "w") as archive:
            for member, content in members_of(data).items():
                if member == name:
                    archive.writestr(member, bytes(2**26), zipfile.ZIP_DEFLATED)
                else:
                    archive.writestr(member, content)
        assert len(bomb.getvalue()) < 2**20
        with pytest.raises(ValueError, match=f"holds '{name}' compressed, {2**26} bytes unpacked"):
            BOMRL.load_safely(io.BytesIO(bomb.getvalue()))


def test_a_bomb_within_a_weight_file_is_refused(trained):
    _, data = trained
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, content in members_of(members_of(data)["policy.pth"]).items():
            archive.writestr(member, content + bytes(2**24) if member.endswith("data/0") else content)
    with pytest.raises(ValueError, match=r"policy\.pth: .*compressed"):
        BOMRL.load_safely(forged(data, policy__pth=bomb.getvalue()))


def kind(**fields):
    name = fields.pop("kind")
    return {SAFE: {":kind:": name, **fields}, ":type:": ""}


BAD_SETTINGS = [
    ("nonsense", 1, "got also 'nonsense'"),
    ("predict", "x", "got also 'predict'"),
    ("policy", {}, "got also 'policy'"),
    ("env", None, "got also 'env'"),
    ("__class__", "x", "got also '__class__'"),
    ("reg_coef", "much", "'reg_coef' of the file must be a finite number of at least 0, a schedule, or 'auto'"),
    ("reg_coef", -1.0, "'reg_coef' of the file must be a finite number of at least 0"),
    ("reg_coef", 0.0, "reg_coef must be a finite number above 0"),
    ("inner_target_kl", float("inf"), "'inner_target_kl' of the file must be None or a finite number"),
    ("reg_coef_now", -1.0, "reg_coef_now must be a finite number of at least 0"),
    ("max_kl", kind(kind="class", name="torch.optim.adam.Adam"), "'max_kl' of the file must be a finite number"),
    ("max_kl", float("inf"), "'max_kl' of the file must be a finite number"),
    ("inner_lr", float("nan"), "'inner_lr' of the file must be a finite number"),
    ("learning_rate", -1.0, "'learning_rate' of the file must be a finite number"),
    ("learning_rate", kind(kind="ConstantSchedule", val=float("inf")), "could load: 'learning_rate'"),
    ("lr_schedule", kind(kind="class", name="torch.optim.sgd.SGD"), "'lr_schedule' of the file must be a schedule"),
    ("gamma", float("nan"), "'gamma' of the file must be a number"),
    ("ep_info_buffer", kind(kind="deque", items=[1, 2], maxlen=100), "must be None or a deque of statistics"),
    ("ep_success_buffer", kind(kind="deque", items=["x"], maxlen=100), "must be None or a deque of numbers"),
    ("n_inner_steps", 2.5, "'n_inner_steps' of the file must be an integer"),
    ("distance", None, "'distance' of the file must be of type str"),
    ("distance", "other", "distance must be one of"),
    ("line_search", 1, "'line_search' of the file must be of type bool"),
    ("num_timesteps", -1, "'num_timesteps' of the file must be an integer of at least 0"),
    ("n_envs", 0, "'n_envs' of the file must be an integer of at least 1"),
    ("n_envs", 10**18, "does not make a model"),
    ("n_steps", 10**15, "does not make a model"),
    ("seed", "0", "'seed' of the file must be None or an integer"),
    ("seed", 2**40, "'seed' of the file must be None or an integer"),
    ("policy_class", kind(kind="class", name="torch.nn.modules.activation.Tanh"), "must be a policy class"),
    ("policy_class", kind(kind="class", name="os.system"), "unpickling could load: 'policy_class'"),
    ("task_generator", kind(kind="generator", bit_generator="PCG64"), "unpickling could load: 'task_generator'"),
    ("task_generator", 3, "'task_generator' of the file must be of type Generator"),
    ("observation_space", kind(kind="Discrete", n=3, start=0), "does not make a model"),
    ("observation_space", kind(kind="Discrete", n=10**8, start=0), "larger than all weights"),
    ("observation_space", kind(kind="array", dtype="<f8", shape=[2], data="AAAA"), "could load: 'observation_space'"),
    ("observation_space", kind(kind="array", dtype="|O", shape=[1], data=""), "could load: 'observation_space'"),
    ("action_space", kind(kind="MultiBinary", n=10**15), "does not make a model"),
    ("policy_kwargs", {"net_arch": [10**9]}, "larger than all weights"),
    ("policy_kwargs", {"net_arch": [-3]}, "does not make a model"),
    ("policy_kwargs", {"net_arch": [9]}, "does not make a model: .*(exp_avg|size mismatch)"),
    ("policy_kwargs", {"nonsense": 1}, "does not make a model: .*nonsense"),
    ("policy_kwargs", 7, "'policy_kwargs' of the file must be of type dict"),
    ("_normalizer_statistics", {"obs": {"": {}}}, "normaliser statistics of the file do not fit"),
    (
        "_normalizer_statistics",
        {"obs": {"": {"mean": [0.0] * 3, "var": [1.0] * 3, "count": 1}}, "returns": {"mean": 0, "var": 1, "count": 1}},
        r"those of obs must have shape \(2,\)",
    ),
    (
        "_normalizer_statistics",
        {"obs": {}, "returns": {"mean": 0, "var": float("nan"), "count": 1}},
        "those of returns must be finite",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value", "words"), BAD_SETTINGS)
def test_settings_of_the_wrong_kind_are_named(trained, name, value, words):
    _, data = trained
    with pytest.raises(ValueError, match=words):
        BOMRL.load_safely(forged(data, lambda e: e.update({name: value})))


def test_incomplete_settings_are_named(trained):
    _, data = trained
    with pytest.raises(ValueError, match="'reg_coef' is missing"):
        BOMRL.load_safely(forged(data, lambda e: e.pop("reg_coef")))
    assert BOMRL.load_safely(forged(data, lambda e: e.pop("reg_coef")), reg_coef=0.5).reg_coef == 0.5
    for text in (b"[]", b"{}", b"", b"\xff", b"[" * 100_000, b"1" * 10_000):
        with pytest.raises(ValueError, match="path must name a model saved by BOMRL"):
            BOMRL.load_safely(forged(data, data=text))


def set_to(name, index, value):
    def change(state):
        state[name].view(-1)[index] = value

    return change


def slot(key, value):
    def change(state):
        state["state"][0][key] = value(state["state"][0][key])

    return change


BAD_WEIGHTS = [
    ("policy.pth", set_to("action_net.weight", 1, np.nan), r"'action_net\.weight' is not finite"),
    ("policy.pth", set_to("log_std", 0, np.inf), "'log_std' is not finite"),
    ("policy.pth", lambda s: s.update(log_std=s["log_std"].double() + 1e300), "'log_std' is not finite"),
    ("policy.pth", lambda s: s.update(log_std=s["log_std"] > 0), "must have real weights, but 'log_std' is of .*bool"),
    (
        "policy.pth",
        lambda s: s.update(log_std=s["log_std"].long()),
        "must have real weights, but 'log_std' is of .*int",
    ),
    ("policy.pth", lambda s: s.update(log_std=s["log_std"][:1]), "log_std.*size mismatch|size mismatch.*log_std"),
    ("policy.pth", lambda s: s.pop("log_std"), "log_std"),
    ("policy.pth", lambda s: s.update(other=th.zeros(1)), "other"),
    ("policy.pth", lambda s: s.update(log_std="text"), "log_std"),
    ("policy.pth", lambda s: s.update(log_std=th.zeros(1).expand(10**12)), "log_std"),
    ("policy.optimizer.pth", lambda s: s.pop("state"), "'state'"),
    ("policy.optimizer.pth", lambda s: s["param_groups"][0].update(lr="fast"), "'lr' is 'fast'"),
    ("policy.optimizer.pth", lambda s: s["param_groups"][0].update(lr=float("nan")), "'lr' is nan"),
    ("policy.optimizer.pth", lambda s: s["param_groups"][0].update(lr=float("inf")), "'lr' is inf"),
    ("policy.optimizer.pth", lambda s: s["param_groups"][0].update(betas=(5.0, 0.9)), "Invalid beta parameter"),
    ("policy.optimizer.pth", lambda s: s["param_groups"][0].update(eps=-1.0), "Invalid epsilon"),
    ("policy.optimizer.pth", lambda s: s["param_groups"][0].update(amsgrad=True), "'amsgrad' is True"),
    ("policy.optimizer.pth", lambda s: s["state"][0].pop("exp_avg"), "in place of .*'exp_avg'"),
    ("policy.optimizer.pth", slot("step", lambda x: x - 100), "'step' of parameter 0 is -"),
    ("policy.optimizer.pth", slot("exp_avg", lambda x: x.double() + 1e300), "'exp_avg' of parameter 0 is not finite"),
    ("policy.optimizer.pth", lambda s: s["param_groups"][0].update(params=[0]), "groups of parameters differ"),
    ("policy.optimizer.pth", slot("exp_avg", lambda x: x[:1]), r"'exp_avg' of parameter 0 has shape"),
    ("policy.optimizer.pth", slot("exp_avg", lambda x: x * np.nan), r"'exp_avg' of parameter 0 is not finite"),
    ("policy.optimizer.pth", slot("exp_avg", lambda x: th.zeros(1).expand(10**12)), r"'exp_avg' .* has shape"),
    ("policy.optimizer.pth", slot("exp_avg", lambda x: x[:1].expand(2)), "'exp_avg' of parameter 0 shares memory"),
    (
        "policy.optimizer.pth",
        lambda s: s["state"][0].update(exp_avg_sq=s["state"][0]["exp_avg"][:]),
        "'exp_avg_sq' of parameter 0 shares memory",
    ),
    ("pytorch_variables.pth", lambda s: s.update(num_timesteps=th.zeros(1)), "a model of this class has none"),
]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"n_elements": 10**6}, "a storage of 1000000 elements has 8 bytes"),
        ({"n_elements": 1}, "a storage of 1 elements has 8 bytes"),
        ({"n_elements": -2}, "a storage of -2 elements has 8 bytes"),
        ({"kind": th.DoubleStorage}, "a storage of 2 elements has 8 bytes"),
        ({"offset": 1}, r"shape \(2,\) and strides \(1,\) at 1 is not within its storage of 2 elements"),
        ({"offset": -1}, r"a tensor at -1 has shape \(2,\) and strides \(1,\)"),
        ({"shape": (2**62,)}, "is not within its storage of 2 elements"),
        ({"strides": (10**12,)}, r"strides \(1000000000000,\) at 0 is not within its storage"),
        ({"strides": (-1,)}, r"a tensor at 0 has shape \(2,\) and strides \(-1,\)"),
        ({"strides": (1, 1)}, r"a tensor at 0 has shape \(2,\) and strides \(1, 1\)"),
        ({"key": "nowhere"}, "the pickle is none of torch's: KeyError"),
    ],
)
def test_tensors_beyond_what_the_file_holds_are_refused(trained, change, words):
    _, data = trained
    where = {
        "kind": th.FloatStorage,
        "key": "0",
        "n_elements": 2,
        "offset": 0,
        "shape": (2,),
        "strides": (1,),
        **change,
    }
    parts = members_of(members_of(data)["policy.pth"])
    name = next(member for member in parts if member.endswith("data.pkl"))
    assert len(parts[name.replace("data.pkl", "data/0")]) == 8, "log_std"
    attack = forged(data, policy__pth=write_zip({**parts, name: pickle_of_tensor(**where)}))
    with pytest.raises(ValueError, match=rf"has a damaged 'policy\.pth': .*{words}"):
        BOMRL.load_safely(attack)


def pickle_of_tensor(kind, key, n_elements, offset, shape, strides):
    """What torch writes for the state {"log_std": tensor}."""

    class Tensor:
        def __reduce__(self):
            return th._utils._rebuild_tensor_v2, (Storage(), offset, shape, strides, False, {})

    class Storage:
        pass

    class Pickler(pickle.Pickler):
        def persistent_id(self, thing):
            return ("storage", kind, key, "cpu", n_elements) if isinstance(thing, Storage) else None

    file = io.BytesIO()
    Pickler(file, protocol=2).dump({"log_std": Tensor()})
    return file.getvalue()


@pytest.mark.parametrize("trusted", [False, True])
@pytest.mark.parametrize(("member", "change", "words"), BAD_WEIGHTS)
def test_weights_that_do_not_fit_are_named(trained, member, change, words, trusted):
    _, data = trained
    if trusted and member == "pytorch_variables.pth":
        pytest.skip("as in SB3")
    attack = forged(data, **{member.replace(".", "__"): weights(members_of(data)[member], change)})
    with pytest.raises((ValueError, RuntimeError) if trusted else ValueError, match=words):
        BOMRL.load(attack, trusted=trusted)


def test_the_environment_must_fit(tiny, trained):
    _, data = trained
    with pytest.raises(ValueError, match="Observation spaces do not match"):
        BOMRL.load_safely(io.BytesIO(data), env=make_meta_vec_env("bomrl/FrozenLakeHighVariance-v0", 4))
