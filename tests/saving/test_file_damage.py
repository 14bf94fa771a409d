"""Damaged files: truncated, with bits flipped, overwritten with the checksums made right."""

import io
import json

import pytest
import torch as th
from hypothesis import given, settings
from hypothesis import strategies as st

from sb3_bomrl import BOMRL
from sb3_bomrl.saving.archive import write_zip
from sb3_bomrl.saving.model_file import SAFE
from sb3_bomrl.saving.safe_json import _KINDS, CLASSES, TAG
from tests.saving.archives import forged, members_of, saved


def loads_or_refuses(data, model, may_differ=False):
    try:
        loaded = BOMRL.load_safely(io.BytesIO(data))
    except ValueError:
        return None
    if not may_differ:
        for a, b in zip(model.policy.parameters(), loaded.policy.parameters(), strict=True):
            assert th.equal(a, b)
    return loaded


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(sorted(CLASSES)),
    lambda x: (
        st.lists(x, max_size=3)
        | st.dictionaries(st.text(max_size=5), x, max_size=3)
        | st.fixed_dictionaries({TAG: st.sampled_from(sorted(_KINDS)), "items": x, "n": x, "val": x})
    ),
    max_leaves=5,
)

_CACHE = {}


def reference(tiny):
    if not _CACHE:
        _CACHE["model"] = tiny.model(outer_step="adam").learn(tiny.iteration)
        _CACHE["data"] = saved(_CACHE["model"])
    return _CACHE["model"], _CACHE["data"]


def damage(tiny, n_examples):
    model, data = reference(tiny)
    position = st.integers(0, len(data) - 1)

    @settings(deadline=10_000, max_examples=n_examples, database=None)
    @given(position)
    def truncate(n):
        with pytest.raises(ValueError, match="path must name"):
            BOMRL.load_safely(io.BytesIO(data[:n]))

    @settings(deadline=10_000, max_examples=n_examples, database=None)
    @given(st.lists(st.tuples(position, st.integers(0, 7)), min_size=1, max_size=4))
    def flip(bits):
        broken = bytearray(data)
        for where, bit in bits:
            broken[where] ^= 1 << bit
        loads_or_refuses(bytes(broken), model)

    @settings(deadline=10_000, max_examples=n_examples, database=None)
    @given(st.sampled_from(sorted(members_of(data))), st.integers(0, 2**31), st.binary(min_size=1, max_size=8))
    def overwrite(name, where, new):
        """The checksums are right: only what is checked of the contents can tell."""
        parts = members_of(data)
        content = bytearray(parts[name])
        where %= len(content)
        content[where : where + len(new)] = new
        loads_or_refuses(write_zip({**parts, name: bytes(content)}), model, may_differ=True)

    settings_of = json.loads(members_of(data)["data"])

    @settings(deadline=10_000, max_examples=n_examples, database=None)
    @given(st.dictionaries(st.sampled_from(sorted(settings_of)), JSON, min_size=1, max_size=2), st.booleans())
    def replace(values, within):
        """Settings of other types; or their form without pickle, with a field replaced."""

        def edit(entries):
            for name, value in values.items():
                form = entries[name].get(SAFE) if isinstance(entries[name], dict) else None
                if within and isinstance(form, dict) and form:
                    form[sorted(form)[len(str(value)) % len(form)]] = value
                else:
                    entries[name] = value

        loaded = loads_or_refuses(forged(data, edit).getvalue(), model, may_differ=True)
        if loaded is not None:
            loads_or_refuses(saved(loaded), loaded)

    for check in (truncate, flip, overwrite, replace):
        check()


@pytest.mark.filterwarnings("ignore::UserWarning:zipfile")
def test_damaged_files(tiny):
    damage(tiny, 60)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning:zipfile")
def test_thousands_of_damaged_files(tiny):
    damage(tiny, 3000)
