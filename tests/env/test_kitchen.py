"""The Kitchen tasks against D4RL's own code and model files, stepped side by side."""

import collections
import shutil
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from composed import task
from d4rl_package import d4rl, load

from genpolicy.dataset.d4rl import D4RL
from genpolicy.env.kitchen import AMPLITUDES, DONE_WITHIN, HIGHEST, LOWEST, NOISE, SPEED, START, THINGS

pytestmark = pytest.mark.filterwarnings("ignore:.*precision lowered")
SUITE = Path(d4rl.__file__).parent / "kitchen"
CLASSES = {
    "complete": "KitchenMicrowaveKettleLightSliderV0",
    "partial": "KitchenMicrowaveKettleLightSliderV0",
    "mixed": "KitchenMicrowaveKettleBottomBurnerLightV0",
}


class NoNoise:
    """A generator whose numbers are all zero."""

    def uniform(self, low, high, size):
        return np.zeros(size)


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    """D4RL's module of kitchens, with the one model file that MuJoCo no longer reads mended."""
    copied = tmp_path_factory.mktemp("suite")
    for name in ("adept_envs/franka/assets", "adept_models", "third_party"):
        shutil.copytree(SUITE / name, copied / name)
    kettle = copied / "adept_models/kitchen/assets/kettle_asset.xml"
    text = kettle.read_text().replace('<default class="kettle">', '<default><default class="kettle">')
    kettle.write_text(text.replace("    </default>\n</mujocoinclude>", "    </default></default>\n</mujocoinclude>"))
    with pytest.MonkeyPatch.context() as patch:
        for name, function in {"termcolor": "cprint", "click": "echo"}.items():
            module = ModuleType(name)
            setattr(module, function, lambda *_, **__: None)
            patch.setitem(sys.modules, name, module)
        patch.setattr(collections, "Mapping", collections.abc.Mapping, raising=False)
        patch.setenv("MUJOCO_GL", "disable")
        franka = "d4rl.kitchen.adept_envs.franka"
        envs, kitchen, robot = load(
            "d4rl.kitchen.kitchen_envs", f"{franka}.kitchen_multitask_v0", f"{franka}.robot.franka_robot"
        )
        model = copied / "adept_envs/franka/assets/franka_kitchen_jntpos_act_ab.xml"
        patch.setattr(kitchen.KitchenV0, "MODEl", str(model))
        read = robot.read_config_from_node  # whose arrays of one number NumPy no longer takes for a number
        patch.setattr(robot, "read_config_from_node", lambda *words: np.squeeze(read(*words)))
        yield envs


@pytest.fixture(params=CLASSES)
def kitchens(request, suite):
    """D4RL's environment of a task, and ours, both without noise."""
    theirs = getattr(suite, CLASSES[request.param])()
    ours = task(f"kitchen-{request.param}-v0").simulate()
    ours.reset(seed=0)
    theirs.np_random = ours._np_random = NoNoise()
    return theirs, ours


def test_steps_are_d4rls(kitchens):
    theirs, ours = kitchens
    rng = np.random.default_rng(0)
    observation = theirs.reset()
    np.testing.assert_allclose(ours.reset()[0], observation, atol=1e-12)
    for step in range(60):
        if step % 12 == 0:
            action = rng.uniform(-1.2, 1.2, 9)
        observation, reward, done, _ = theirs.step(action)
        ours_observation, ours_reward, terminated, truncated, _ = ours.step(action)
        np.testing.assert_allclose(ours_observation, observation, atol=1e-7, err_msg=step)
        assert (ours_reward, terminated, truncated) == (reward, done, False)
    assert np.abs(observation[:9] - START[:9]).max() > 0.5


def test_things_done_are_counted_once_and_the_last_ends_the_episode(kitchens):
    theirs, ours = kitchens
    rewards = []
    for number in range(len(ours.things) + 1):
        theirs.reset()
        qpos = START.copy()
        for thing in ours.things[:number]:
            places, values = THINGS[thing]
            qpos[places] = values
        ours.reset(options={"qpos": qpos})
        theirs.sim.data.qpos[:] = qpos
        theirs.sim.forward()
        theirs._get_obs()
        for _ in range(3):
            _, reward, done, _ = theirs.step(np.zeros(9))
            _, ours_reward, terminated, _, _ = ours.step(np.zeros(9))
            assert (ours_reward, terminated) == (reward, done)
            rewards.append(reward)
        assert terminated == (number == 4)
    assert rewards[-3] >= 3
    assert rewards[-2:] == [0, 0]


def test_the_data_have_at_each_step_what_is_done():
    """D4RL labels them with `REMOVE_TASKS_WHEN_COMPLETE = False`; what they would earn is each thing once."""
    of = task("kitchen-complete-v0")
    env = D4RL(directory=".").simulate(of)
    qpos = START.copy()
    for thing in of.things[:3]:
        places, values = THINGS[thing]
        qpos[places] = values
    env.reset(seed=0)
    env.reset(options={"qpos": qpos})
    assert [env.step(np.zeros(9))[1] for _ in range(3)] == [3, 3, 3]
    recorded = np.array([0, 0, 1, 1, 2, 2, 0, 1, 1, 3, 3, 4], np.float32)  # the last row is of an unfinished episode
    assert of.returns(recorded, np.array([5, 10])).tolist() == [2, 3]
    paid = np.array([0, 1, 0, 1, 0, 0, 0, 1, 0, 2, 0], np.float32)
    assert of.returns(paid, np.array([5, 10])).tolist() == [2, 3]
    assert of.returns(paid, np.array([], int)).tolist() == []
    late = np.append(np.ones(of.max_episode_steps), [3, 3])
    assert of.returns(late, np.array([len(late) - 1])).tolist() == [1]


def test_constants_are_d4rls(kitchens, suite):
    theirs, ours = kitchens
    np.testing.assert_array_equal(theirs.robot.robot_pos_noise_amp, AMPLITUDES)
    np.testing.assert_array_equal(theirs.robot.robot_pos_bound[:9], np.stack([LOWEST, HIGHEST], axis=1))
    np.testing.assert_array_equal(theirs.init_qpos, START)
    assert theirs.robot_noise_ratio == NOISE
    assert theirs.act_amp.tolist() == [SPEED] * 9
    assert (np.abs(theirs.robot.robot_vel_bound[:9]) > SPEED).all()
    assert set(ours.things) == set(theirs.TASK_ELEMENTS)
    for thing, (places, values) in THINGS.items():
        assert suite.OBS_ELEMENT_INDICES[thing].tolist() == places
        assert suite.OBS_ELEMENT_GOALS[thing].tolist() == values
    assert suite.BONUS_THRESH == DONE_WITHIN
    assert (SUITE / "__init__.py").read_text().count("max_episode_steps=280") == 3
    assert task("kitchen-mixed-v0").max_episode_steps == 280


def test_noise_is_uniform_and_follows_from_the_seed():
    env = task("kitchen-complete-v0").simulate()
    noise = np.array([env.reset(seed=seed)[0][:30] - START for seed in range(500)]) / (NOISE * AMPLITUDES)
    assert np.abs(noise).max() <= 1 + 1e-9
    np.testing.assert_allclose(noise.std(0), 1 / np.sqrt(3), rtol=0.12)
    np.testing.assert_array_equal(env.reset(seed=7)[0], env.reset(seed=7)[0])
