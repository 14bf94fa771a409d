"""Small files that ask for much memory or time: refused within 1 GB and 10 s, measured in a process of their own."""

import io
import subprocess
import sys

import pytest
import torch as th

from sb3_bomrl.saving.archive import write_zip
from tests.saving.archives import forged, members_of, saved

LOAD = '''
import pathlib, resource, sys, time
import sb3_bomrl

def peak():
    """Of this program alone; getrusage counts that of the process it was forked from."""
    status = pathlib.Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024

resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
for path in sys.argv[1:]:
    cpu = time.process_time()
    try:
        sb3_bomrl.BOMRL.load_safely(path, device="cpu")
        words = "loaded"
    except ValueError as error:
        words = str(error).split(".zip' ")[-1]
        words = "a long error" if len(words) > 1000 else words.replace("\\n", " ")
    print(f"{time.process_time() - cpu:.3f}\\t{peak()}\\t{words}", flush=True)
'''


def wide(entries):
    entries["policy_kwargs"] = {"net_arch": [1000] * 1000}


def deep(entries):
    entries["policy_kwargs"] = {"net_arch": [1] * 100_000}


def lists(data):
    text = members_of(data)["data"].rstrip().removesuffix(b"}")
    return forged(data, data=text + b', "policy_kwargs": [' + b"[]," * 10**7 + b"[]]}").getvalue()


def many_members(data):
    return write_zip({**members_of(data), **{f"{i}": b"" for i in range(100_000)}})


def with_weights(data, state):
    file = io.BytesIO()
    th.save(state, file)
    return forged(data, deep, policy__pth=file.getvalue()).getvalue()


def deep_and_heavy(data):
    """Enough elements for a million layers, and as many tensors as a file may name."""
    shared = th.zeros(10**7)
    return with_weights(data, {f"{i}": shared[i : i + 1] for i in range(3000)})


def long_key(data):
    """A key that takes four bytes a character in memory."""
    text = members_of(data)["data"].rstrip().removesuffix(b"}")
    return forged(data, data=text + b', "' + "\U0001f600".encode() + b"x" * (46 * 2**20) + b'": 1}').getvalue()


def long_text(data):
    return forged(data, lambda entries: entries.update(distance="\u00e9" + "x" * 7_000_000)).getvalue()


def long_member(data):
    return write_zip({**members_of(data), "x" * 65_000: b""})


def pickle_of(data, code):
    parts = members_of(members_of(data)["policy.pth"])
    name = next(member for member in parts if member.endswith("data.pkl"))
    return forged(data, policy__pth=write_zip({**parts, name: code})).getvalue()


def nested_tuples(data):
    """Tuples of the same tuple twice, 60 deep, as a key: to hash it takes 2**60 steps."""
    code = b"\x80\x02}(K\x01q\x00" + b"".join(b"h%ch%c\x86q%c" % (i, i, i + 1) for i in range(60)) + b"K\x01u."
    return pickle_of(data, code)


FILES = {
    "wide": (lambda data: forged(data, wide).getvalue(), "larger than all weights in the file"),
    "deep": (lambda data: forged(data, deep).getvalue(), "larger than all weights in the file"),
    "lists": (lists, "has settings of more than 300000 values"),
    "members": (many_members, "holds more than 10000 members"),
    "deep_and_heavy": (deep_and_heavy, "larger than all weights in the file"),
    "long_key": (long_key, "has settings of more than 8388608 bytes of text"),
    "long_text": (long_text, "distance must be one of"),
    "long_member": (long_member, "which belongs to no model"),
    "pickle": (lambda data: pickle_of(data, b"\x80\x02" + b"}" * 10**7 + b"."), "names more tensors than a policy has"),
    "nested_tuples": (nested_tuples, "an object in 'policy.pth' that is used twice"),
}


def test_hostile_files_stay_within_bounds(tiny, tmp_path):
    data = saved(tiny.model(outer_step="adam").learn(1))
    for name, (make, _) in FILES.items():
        (tmp_path / f"{name}.zip").write_bytes(make(data))
        assert (tmp_path / f"{name}.zip").stat().st_size < 50 * 2**20
    paths = [str(tmp_path / f"{name}.zip") for name in FILES]
    out = subprocess.run(
        [sys.executable, "-c", LOAD, *paths], capture_output=True, text=True, timeout=300, check=True
    ).stdout
    for (name, (_, words)), line in zip(FILES.items(), out.splitlines(), strict=True):
        seconds, memory, message = line.split("\t")
        assert words in message, (name, message)
        assert float(seconds) < 10, name
        assert int(memory) < 2**30, name


@pytest.mark.slow
def test_the_largest_file_loads_within_bounds(tiny, tmp_path):
    """A policy whose weights are nearly 50 MB."""
    tiny.model(policy_kwargs={"net_arch": {"pi": [3500, 3500], "vf": []}}).save(tmp_path / "large")
    path = str(tmp_path / "large.zip")
    assert 45 * 2**20 < (tmp_path / "large.zip").stat().st_size < 50 * 2**20
    out = subprocess.run([sys.executable, "-c", LOAD, path], capture_output=True, text=True, timeout=300, check=True)
    seconds, memory, message = out.stdout.strip().split("\t")
    assert message == "loaded"
    assert float(seconds) < 10
    assert int(memory) < 2**30
