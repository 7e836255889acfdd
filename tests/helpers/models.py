"""Compiled MuJoCo models, compared."""

import mujoco
import numpy as np

LOOKS = ("name", "cam", "tex", "mat_", "light", "bvh", "geom_rgba", "buffer", "signature")  # no physics
PLACES = ("npaths", "mesh_pathadr")  # of the files that it was read from


def assert_equal_physics(left: mujoco.MjModel, right: mujoco.MjModel) -> None:
    """Every number of the two that a simulation depends on is the same."""
    compared = 0
    for owner in (lambda model: model, lambda model: model.opt):
        for name in dir(owner(left)):
            value = getattr(owner(left), name)
            numeric = isinstance(value, np.ndarray | int | float)
            physical = not name.startswith(("_", *LOOKS)) and name not in PLACES
            if numeric and physical and not any(part in name for part in ("cam", "names", "buffer")):
                np.testing.assert_array_equal(value, getattr(owner(right), name), err_msg=name)
                compared += 1
    assert compared > 200
