"""Archives as ``save`` writes them, taken apart and forged."""

import base64
import io
import json
import os
import zipfile

import cloudpickle
import torch as th

from sb3_bomrl.saving.archive import write_zip


class Evil:
    """Unpickling it makes a folder."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return (os.mkdir, (self.marker,))


def pickled(thing):
    return base64.b64encode(cloudpickle.dumps(thing)).decode()


def saved(model):
    file = io.BytesIO()
    model.save(file)
    return file.getvalue()


def members_of(data):
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def forged(archive, edit=None, **members):
    """The archive with its settings edited in place and members replaced (``None`` removes one)."""
    parts = members_of(archive)
    if edit is not None:
        values = json.loads(parts["data"])
        edit(values)
        parts["data"] = json.dumps(values).encode()
    parts.update({name.replace("__", "."): value for name, value in members.items()})
    return io.BytesIO(write_zip({name: value for name, value in parts.items() if value is not None}))


def weights(part, change):
    """A weight file of changed tensors."""
    state = th.load(io.BytesIO(part), weights_only=True)
    change(state)
    file = io.BytesIO()
    th.save(state, file)
    return file.getvalue()
