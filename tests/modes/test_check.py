"""What `mode=check` says of errors."""

import gymnasium
import numpy as np

from genpolicy.env.replay import Replay, replay
from genpolicy.env.task import Task
from genpolicy.modes.check import _verdict


def replayed(parts: np.ndarray) -> Replay:
    no = np.zeros(len(parts), dtype=bool)
    return Replay(parts, np.zeros(len(parts)), no, no)


def test_the_parts_that_are_off_are_named():
    parts = np.zeros((10, 5))
    parts[:4, 2], parts[0, 0] = 1.0, 0.5
    told = _verdict(replayed(parts), 1e-3, "")
    assert "4 transitions (40.00%) are not within 0.001: a score here is not the same as" in told
    assert "part 2 in 40.00%, part 0 in 10.00% of the transitions; all others in 0.00%" in told


def test_what_float32_rounds_of_a_part_that_never_changes_is_no_error():
    """The std of a float32 column of one value is not 0, but some 1e-6 of the value."""

    class Line(gymnasium.Env):
        observation_space, action_space = gymnasium.spaces.Box(-9, 9, (2,)), gymnasium.spaces.Box(-1, 1, (1,))

        def set_state(self, qpos, _):
            self.x = qpos[0]

        def step(self, action):
            return np.array([self.x + 1, -288.01]), 0.0, False, False, {}

    class LineTask(Task):
        def simulate(self):
            return Line()

    seen = np.array([[x, -288.01] for x in range(299)], np.float32)
    arrays = {"observation": seen, "next_observation": seen + np.float32([1, 0]), "action": np.zeros((299, 1))}
    arrays |= {"reward": np.zeros(299), "terminated": np.zeros(299, bool)}
    states = {"qpos": seen[:, :1], "qvel": seen[:, :1]}
    line = LineTask(name="line", max_episode_steps=9)
    assert replay(line, arrays, states, np.arange(9)).observation.max() < 1e-4


def test_data_without_the_whole_state_accuse_no_simulator():
    told = _verdict(replayed(np.ones((2, 3))), 1e-3, "the forces of contacts")
    assert "or that is because the data do not record the forces of contacts." in told
    assert "a score here" not in told
    assert "All within" in _verdict(replayed(np.zeros((2, 3))), 1e-3, "the forces of contacts")
