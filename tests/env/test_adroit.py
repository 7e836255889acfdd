"""The Adroit tasks against D4RL's own code and model files, stepped side by side."""

import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import d4rl_package
import gymnasium
import mujoco
import numpy as np
import pytest
from composed import task
from d4rl_package import d4rl
from models import assert_equal_physics

SUITE = Path(d4rl.__file__).parent / "hand_manipulation_suite"
ROBOTS = {"pen": (45, 24, 100), "door": (39, 28, 200), "hammer": (46, 26, 200), "relocate": (39, 30, 200)}


class Named:
    """mujoco_py's names for what mujoco has."""

    def __init__(self, owner):
        self.owner = owner

    def __getattr__(self, name):
        if name.endswith("_name2id"):
            kind = getattr(mujoco.mjtObj, f"mjOBJ_{name.removesuffix('_name2id').upper()}")
            return lambda known: mujoco.mj_name2id(self.owner, kind, known)
        return getattr(self.owner, name.removeprefix("body_") if name in ("body_xpos", "body_xquat") else name)


class MujocoEnv:
    """What D4RL's hands need of mjrl's environment, on mujoco."""

    def __init__(self, path, frame_skip):
        model = mujoco.MjModel.from_xml_path(str(path))
        data = mujoco.MjData(model)
        mujoco.mj_forward(model, data)
        self.model, self.data, self.frame_skip = Named(model), Named(data), frame_skip
        self.sim = SimpleNamespace(model=self.model, data=self.data, forward=lambda: mujoco.mj_forward(model, data))
        self.sim.reset = lambda: mujoco.mj_resetData(model, data)
        self.sim.step = lambda: mujoco.mj_step(model, data)
        self.action_space = gymnasium.spaces.Box(-1, 1, (model.nu,))
        self.init_qpos, self.init_qvel = data.qpos.copy(), data.qvel.copy()
        self.np_random = np.random.default_rng(0)
        self.step(np.zeros(model.nu))

    def do_simulation(self, control, frames):
        self.data.ctrl[:] = control
        for _ in range(frames):
            self.sim.step()

    def set_state(self, qpos, qvel):
        self.data.qpos[:], self.data.qvel[:] = qpos, qvel
        self.sim.forward()

    def reset(self):
        self.sim.reset()
        self.sim.forward()
        return self.reset_model()


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    """D4RL's folder without an attribute of its models that MuJoCo no longer knows, and that moves nothing."""
    copied = tmp_path_factory.mktemp("suite")
    for file in SUITE.rglob("*"):
        target = copied / file.relative_to(SUITE)
        if file.suffix == ".xml":
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(re.sub(r' apirate="[^"]*"', "", file.read_text()))
        elif file.suffix in (".py", ".stl", ".png"):
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(file) if file.suffix != ".py" else target.write_text(file.read_text())
    return copied


@pytest.fixture(params=ROBOTS)
def robot(request):
    return request.param


@pytest.fixture
def hands(robot, suite, monkeypatch):
    """D4RL's environment of a task, and ours."""
    module = ModuleType("mjrl.envs.mujoco_env")
    module.MujocoEnv = MujocoEnv
    envs, viewer = ModuleType("mjrl.envs"), ModuleType("mujoco_py")
    envs.mujoco_env, viewer.MjViewer = module, None
    for name, stub in {"mjrl": ModuleType("mjrl"), "mjrl.envs": envs, "mujoco_py": viewer}.items():
        monkeypatch.setitem(sys.modules, name, stub)
    theirs = d4rl_package.load_file(suite / f"{robot}_v0.py")
    theirs = getattr(theirs, f"{robot.capitalize()}EnvV0")()
    return theirs, task(f"{robot}-human-v1").simulate()


def test_the_compiled_model_is_d4rls(hands):
    theirs, ours = hands
    theirs.model.body_pos[0] = 0  # D4RL's door moves the world itself once, which MuJoCo does not look at
    assert_equal_physics(theirs.model.owner, ours.unwrapped.model)


# What is done to a start, so that every term of the reward is met; and the highest reward that then must be seen.
SCENES = {
    "pen": ([{}, {"turned": 90}, {"turned": 67}, {"OBJTz": -0.15}], 50),
    "door": ([{}, {"door_hinge": 0.6}, {"door_hinge": 1.2}, {"door_hinge": 1.5}], 15),
    "hammer": ([{}, {"OBJTz": 0.2}, {"nail_dir": 0.075}, {"nail_dir": 0.09}], 90),
    "relocate": ([{}, {"OBJTz": 0.1}, {"at_goal": 0.0}, {"at_goal": 0.07}], 25),
}


def arrange(theirs, robot, scene):
    model, data = theirs.model.owner, theirs.data.owner
    for name, value in scene.items():
        if name == "turned":  # from upright to the pen's own direction, in degrees
            half = np.deg2rad(value) / 2
            model.body("target").quat[:] = [np.cos(half), 0, np.sin(half), 0]
        elif name == "at_goal":
            for number, axis in enumerate("xyz"):
                gap = model.site("target").pos[number] - model.body("Object").pos[number]
                data.joint(f"OBJT{axis}").qpos[:] = gap + value * (axis == "x")
        else:
            data.joint(name).qpos[:] = value
    theirs.sim.forward()


def test_a_step_is_d4rls(robot, hands):
    """From D4RL's starts, and with things where they earn: the same observations, rewards and ends."""
    theirs, ours = hands
    rng, rewards, falls = np.random.default_rng(0), [], 0
    scenes, highest = SCENES[robot]
    for scene in scenes:
        theirs.reset()
        ours.reset()
        arrange(theirs, robot, scene)
        mirror(theirs, ours)
        np.testing.assert_allclose(ours.unwrapped._get_obs(), theirs.get_obs(), atol=1e-12)
        for step in range(60):
            action = rng.uniform(-1.2, 1.2, size=ours.action_space.shape)
            observation, reward, ended, _ = theirs.step(action)
            ours_observation, ours_reward, terminated, truncated, _ = ours.step(action)
            np.testing.assert_allclose(ours_observation, observation, atol=1e-9, err_msg=f"{scene} {step}")
            assert ours_reward == pytest.approx(reward, abs=1e-9)
            assert (terminated, truncated) == (ended, False)
            rewards.append(reward)
            if terminated:
                falls += 1
                break
    assert max(rewards) > highest
    assert (falls > 0) == (robot == "pen")


def mirror(theirs, ours):
    """Puts ours where theirs is: the state, and where the model has its objects and goals."""
    one, other = theirs.model.owner, ours.unwrapped.model
    for name in ("body_pos", "body_quat", "site_pos"):
        getattr(other, name)[:] = getattr(one, name)
    ours.unwrapped.set_state(theirs.data.qpos.copy(), theirs.data.qvel.copy())


@pytest.mark.slow
def test_starts_are_distributed_as_d4rls(hands):
    theirs, ours = hands
    ours.reset(seed=0)
    drawn = [np.array([reset() for _ in range(2000)]) for reset in (theirs.reset, lambda: ours.reset()[0])]
    levels = np.linspace(0.05, 0.95, 7)
    one, other = (np.quantile(starts, levels, axis=0) for starts in drawn)
    np.testing.assert_allclose(one, other, atol=0.1)
    np.testing.assert_allclose(np.ptp(drawn[0], axis=0), np.ptp(drawn[1], axis=0), atol=0.05)
    assert (np.ptp(drawn[1], axis=0) > 0.05).any()
    seeded = [ours.reset(seed=3)[0] for _ in range(2)]
    np.testing.assert_array_equal(*seeded)


def test_sizes_and_limits_are_d4rls(robot):
    found = task(f"{robot}-expert-v1")
    assert (found.observation_size, found.action_size, found.max_episode_steps) == ROBOTS[robot]
    source = (SUITE / "__init__.py").read_text()
    limits = re.search(r"^MAX_STEPS = (.*)$", source, re.MULTILINE).group(1)
    assert f"'{robot}': {found.max_episode_steps}" in limits
