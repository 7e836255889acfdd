"""Pictures of MuJoCo simulations, drawn off screen, with or without a GPU and a display."""

import importlib
import os
import sys
from collections.abc import Iterable
from typing import Any

import mujoco
import numpy as np

WIDTH, HEIGHT = 640, 480
MARK = {"size": np.full(3, 0.5), "rgba": np.array([0.1, 0.8, 0.2, 0.6], np.float32)}


def look(model: mujoco.MjModel, camera: str | int | None = None, **free: Any) -> mujoco.MjvCamera:
    """A camera of the model, by name or number, or a free one: lookat [3], distance, azimuth, elevation (degrees)."""
    found = mujoco.MjvCamera()
    mujoco.mjv_defaultFreeCamera(model, found)
    if camera is not None:
        found.type, found.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, model.camera(camera).id
    for name, value in free.items():
        setattr(found, name, value)
    return found


def canvas() -> Any:
    """What OpenGL draws on, as one of MuJoCo's GLContext classes; raises what they raise where that cannot be had.

    MUJOCO_GL says which: egl, osmesa or glfw. If it is unset, it is set for the simulators that draw themselves, too:
    to EGL where there is no display. MuJoCo reads it when it is imported, but for its own Renderer only.
    """
    seen = sys.platform != "linux" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if not os.environ.get("MUJOCO_GL"):
        os.environ["MUJOCO_GL"] = "glfw" if seen else "egl"
    return importlib.import_module(f"mujoco.{os.environ['MUJOCO_GL'].lower()}").GLContext(WIDTH, HEIGHT)


class Camera:
    """Draws a simulation through one camera, without touching it. marks: places [3] shown as green balls."""

    def __init__(
        self,
        model: mujoco.MjModel,
        data: mujoco.MjData,
        camera: mujoco.MjvCamera,
        marks: Iterable[np.ndarray] = (),
    ):
        self._model, self._data, self._camera, self._marks = model, data, camera, tuple(marks)
        self._context = canvas()
        self._context.make_current()
        model.vis.global_.offwidth, model.vis.global_.offheight = WIDTH, HEIGHT
        self._drawing = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._drawing)
        self._scene, self._option = mujoco.MjvScene(model, maxgeom=10_000), mujoco.MjvOption()
        for costly in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            self._scene.flags[costly] = False  # most of the time on a CPU
        self._copy = mujoco.MjData(model)

    def picture(self) -> np.ndarray:
        """The simulation as it is now, uint8 [HEIGHT, WIDTH, 3]."""
        # Some of what is seen, such as where bodies are, lags behind the state; bringing it up to date in the data
        # themselves could change the simulation.
        mujoco.mj_copyData(self._copy, self._model, self._data)
        mujoco.mj_forward(self._model, self._copy)
        every = mujoco.mjtCatBit.mjCAT_ALL
        mujoco.mjv_updateScene(self._model, self._copy, self._option, None, self._camera, every, self._scene)
        for place in self._marks:
            mark = self._scene.geoms[self._scene.ngeom]
            mujoco.mjv_initGeom(mark, mujoco.mjtGeom.mjGEOM_SPHERE, pos=place, mat=np.eye(3).ravel(), **MARK)
            self._scene.ngeom += 1
        whole, pixels = mujoco.MjrRect(0, 0, WIDTH, HEIGHT), np.empty((HEIGHT, WIDTH, 3), np.uint8)
        self._context.make_current()
        mujoco.mjr_render(whole, self._scene, self._drawing)
        mujoco.mjr_readPixels(pixels, None, whole, self._drawing)
        return pixels[::-1]

    def close(self) -> None:
        """Frees the memory."""
        self._drawing.free()
        self._context.free()
