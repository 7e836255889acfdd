"""An episode of an evaluation as a video, drawn in a simulator of its own: the evaluation does not know of it."""

import contextlib
import io
import math
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import gymnasium
import numpy as np

from genpolicy.env.camera import Camera
from genpolicy.env.task import Task
from genpolicy.errors import UserError, one_line
from genpolicy.evaluation.rollout import Episode
from genpolicy.system.files import make_folder, write_atomically

FASTEST = 30.0  # pictures a second; where steps are shorter, not every one is drawn
USUAL = 30.0  # steps a second of an environment that does not say
# Of x264, so that the same pictures give the same bytes: it otherwise rounds as suits the processor, and weighs
# macroblocks (mbtree) by memory that it has not written.
REPEATABLE = "cpu-independent=1:mbtree=0"


def film(task: Task, episode: Episode, path: Path) -> None:
    """Plays an episode again and writes it as an MP4 file (H.264) that runs in real time.

    Pictures are encoded as they come: what is kept in memory is the file. Raises `UserError` if the episode cannot be
    drawn or encoded, or if the simulator does not repeat it.
    """
    try:
        with contextlib.closing(task.visible()) as env:
            content, earned = _played(task, env, episode)
    except Exception as error:  # whatever simulators, OpenGL's bindings and FFmpeg may raise
        raise UserError(
            f"eval.video: the episode cannot be drawn ({one_line(error)}); "
            "the environment variable MUJOCO_GL=egl|osmesa|glfw says what draws MuJoCo's simulators"
        ) from error
    if earned != episode.earned:
        raise UserError(
            f"eval.video: {task.name} does not repeat an episode of the same start and actions: its return was "
            f"{episode.earned:g} and is now {earned:g}"
        )
    make_folder(path.parent)
    write_atomically(path, content)


def _played(task: Task, env: gymnasium.Env, episode: Episode) -> tuple[bytes, float]:
    """The video of the episode, and its return."""
    earned = 0.0

    def pictures(camera: Camera) -> Iterator[np.ndarray]:
        nonlocal earned
        yield camera.picture()
        for number, action in enumerate(episode.actions, 1):
            earned += float(env.step(action)[1])
            if number % every == 0 or number == len(episode.actions):
                yield camera.picture()

    env.reset(seed=episode.seed)
    seconds = _seconds(env)
    every = max(1, math.ceil(round(1 / (FASTEST * seconds), 6)))
    with contextlib.closing(task.camera(env)) as camera:
        content = encoded(pictures(camera), 1 / (every * seconds))
    return content, earned


def encoded(pictures: Iterator[np.ndarray], rate: float) -> bytes:
    """An MP4 file of pictures, uint8 [H, W, 3], so many a second. An odd last row or column is left out.

    The same pictures give the same bytes, on any machine.
    """
    file, stream = io.BytesIO(), None
    with av.open(file, "w", format="mp4") as container:
        for picture in pictures:
            height, width = (size // 2 * 2 for size in picture.shape[:2])
            if stream is None:
                rate = Fraction(rate).limit_denominator(1000)
                stream = container.add_stream("libx264", rate=rate, options={"x264-params": REPEATABLE})
                stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"  # what browsers play
                stream.codec_context.thread_count = 1  # else as many as there are cores
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture[:height, :width]), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file.getvalue()


def _seconds(env: gymnasium.Env) -> float:
    """How long a step lasts in the simulated world."""
    step = getattr(env.unwrapped, "dt", None)
    return float(step or 1 / (env.metadata.get("render_fps") or USUAL))
