"""Environments whose pictures are known: a lamp that is brighter with every step."""

import itertools

import gymnasium
import numpy as np

HEIGHT, WIDTH, STEPS = 45, 67, 10  # odd, which H.264 does not take
_ANYWHERE = itertools.count()


class Glow(gymnasium.Env):
    """Pays what it is told plus a number drawn at the start; a step lasts 0.1 s."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 99}  # noqa: RUF012
    observation_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    dt = 0.1

    def __init__(self, render_mode=None, moody=False, dark=False, blind=False):
        self.render_mode, self.moody, self.dark, self.blind = render_mode, moody, dark, blind
        self.number, self.extra = 0, 0.0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.number, self.extra = 0, next(_ANYWHERE) if self.moody else self.np_random.normal()
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.number += 1
        return np.zeros(1, np.float32), float(action[0]) + self.extra, False, False, {}

    def render(self):
        if self.blind:
            raise gymnasium.error.DependencyNotInstalled("pygame is not installed")
        if self.dark and self.number:
            raise RuntimeError("there is\nno light")
        if self.render_mode == "rgb_array":
            return np.full((HEIGHT, WIDTH, 3), 20 * self.number, np.uint8)
        return None


for name, known in {"Glow": {}, "Moody": {"moody": True}, "Dark": {"dark": True}, "Blind": {"blind": True}}.items():
    gymnasium.register(f"{name}-v0", Glow, max_episode_steps=STEPS, kwargs=known)
