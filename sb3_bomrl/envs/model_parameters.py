"""Tasks that change a MuJoCo model: from multipliers to values of the model's fields."""

import mujoco
import numpy as np
import numpy.typing as npt

from sb3_bomrl.envs.model_tasks import ModelTask

Array = npt.NDArray[np.float64]

_GEOMETRY = ("body_pos", "body_ipos", "jnt_pos", "geom_pos", "geom_size", "geom_rbound", "geom_aabb")
"""Fields of the model that follow from the lengths of the limbs, besides masses and inertias."""


class ModelParameters:
    """
    The fields of a planar model of capsules as its tasks change them.

    Every value is the model's own times the task's multiplier. Where lengths are changed, limbs are first stretched
    along their capsules, with joints and attached limbs moving along, and mass and inertia follow at the same density.

    The caller refreshes the fields that MuJoCo derives from these (``body_invweight0`` and others), by
    ``mj_setConst``. ``stat``, which only scales tolerances and pictures, stays that of the base model.

    :param path: the model's XML file
    :param names: the changed quantities, keys of the tasks
    """

    def __init__(self, path: str, names: tuple[str, ...]) -> None:
        self._spec = _without_materials(mujoco.MjSpec.from_file(path))
        self._base = self._spec.copy().compile()
        self._lowest = _lowest_point(self._base)
        self._stretches = "segment_length" in names
        multiplied = tuple(name for name in names if name != "segment_length")
        self._multiplied = multiplied
        self.fields: tuple[str, ...] = multiplied
        """The fields that :meth:`values` gives, of every task."""
        if self._stretches:
            self.fields += tuple(name for name in ("body_mass", "body_inertia") if name not in multiplied) + _GEOMETRY

    def values(self, tasks: list[ModelTask]) -> tuple[dict[str, Array], Array]:
        """
        Compute the model's fields, and how much higher than the base model each task's body stands.

        :param tasks: in canonical form
        :return: fields, (n_tasks, \\*shape) each, and the lift, (n_tasks,)
        """
        models = [self._stretched(task["segment_length"]) if self._stretches else self._base for task in tasks]
        values = {name: np.stack([getattr(model, name) for model in models]) for name in self.fields}
        for name in self._multiplied:
            values[name] *= np.array([task[name] for task in tasks])
        lift = [self._lowest - _lowest_point(model) if self._stretches else 0.0 for model in models]
        return values, np.array(lift)

    def _stretched(self, lengths: list[float]) -> mujoco.MjModel:
        """The base model with limbs of other lengths, compiled."""
        spec = self._spec.copy()
        for body, length in zip(spec.bodies, lengths, strict=True):
            if body.id != 0:
                _stretch(body, length, 1.0 if body.parent.id == 0 else lengths[body.parent.id])
        return spec.compile()


def _stretch(body: mujoco.MjsBody, length: float, parent_length: float) -> None:
    """Stretch a body's geoms and joints around its origin; its hinge moves along with its parent."""
    anchor = np.array(body.joints[-1].pos)  # the hinge; a root's slides come before it
    body.pos = parent_length * (np.array(body.pos) + anchor) - length * anchor
    for joint in body.joints:
        joint.pos = length * np.array(joint.pos) if joint.type == mujoco.mjtJoint.mjJNT_HINGE else joint.pos
    for geom in body.geoms:
        radius, half_length, depth = geom.size
        geom.pos, geom.size = length * np.array(geom.pos), [radius, length * half_length, depth]


def _lowest_point(model: mujoco.MjModel) -> float:
    """Height of the lowest point of the capsules in the initial state."""
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    capsules = np.flatnonzero(model.geom_type == mujoco.mjtGeom.mjGEOM_CAPSULE)
    rise = np.abs(data.geom_xmat[capsules, 8]) * model.geom_size[capsules, 1]
    return float((data.geom_xpos[capsules, 2] - rise - model.geom_size[capsules, 0]).min())


def _without_materials(spec: mujoco.MjSpec) -> mujoco.MjSpec:
    """Drop textures, which take ten times as long to compile as the rest."""
    for geom in spec.geoms:
        geom.material = ""
    for material in list(spec.materials):
        spec.delete(material)
    for texture in list(spec.textures):
        spec.delete(texture)
    return spec
