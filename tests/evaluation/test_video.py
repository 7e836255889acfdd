"""Videos of episodes: decoded, they show what was played; making one changes nothing, nor does failing to."""

import gc
import importlib
import io
import json
from pathlib import Path

import av
import mujoco
import numpy as np
import pytest
import torch
from command_line import genpolicy
from composed import task
from glow import STEPS
from tiny import only_run, records, same

from genpolicy.config import plugins
from genpolicy.env.camera import HEIGHT, WIDTH
from genpolicy.env.gym import Gym
from genpolicy.errors import UserError
from genpolicy.evaluation import video
from genpolicy.evaluation.evaluator import Evaluator
from genpolicy.evaluation.rollout import Episode, rollout
from genpolicy.evaluation.video import encoded, film
from genpolicy.runs import checkpoint


def decoded(file) -> tuple[list[np.ndarray], float]:
    """The pictures of a video, and how many a second."""
    with av.open(file) as container:
        (stream,) = container.streams
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)], float(stream.average_rate)


def test_a_file_holds_its_pictures():
    noise = np.random.default_rng(0).integers(0, 40, (30, 50, 3))
    given = [np.clip(noise + 8 * number, 0, 255).astype(np.uint8) for number in range(20)]
    assert_shown(encoded(iter(given), 12.5), given, 12.5)
    assert_shown(encoded((picture[:-1, :-1] for picture in given), 25.0), [p[:-2, :-2] for p in given], 25.0)


def assert_shown(content: bytes, given: list[np.ndarray], rate: float) -> None:
    shown, found = decoded(io.BytesIO(content))
    assert found == pytest.approx(rate)
    assert [picture.shape for picture in shown] == [picture.shape for picture in given]
    for picture, expected in zip(shown, given, strict=True):
        assert picture.mean() == pytest.approx(expected.mean(), abs=4)


def test_pictures_are_encoded_as_they_come():
    """No more than what the encoder looks ahead is held at once."""
    held, most = set(), 0

    class Noted(np.ndarray):
        def __del__(self):
            held.discard(id(self))

    def pictures():
        nonlocal most
        for _ in range(300):
            picture = np.zeros((64, 64, 3), np.uint8).view(Noted)
            held.add(id(picture))
            most = max(most, len(held))
            yield picture

    assert len(decoded(io.BytesIO(encoded(pictures(), 30.0)))[0]) == 300
    assert most < 10


def test_the_same_pictures_are_the_same_film_on_any_processor(monkeypatch):
    x, y = np.meshgrid(np.arange(160), np.arange(120))

    def film() -> bytes:
        discs = [(np.hypot(x - 20 - 4 * number, y - 60) < 20) * 200 + x % 7 * 3 + number for number in range(25)]
        return encoded((np.stack([disc] * 3, -1).astype(np.uint8) for disc in discs), 10.0)

    usual = film()
    assert film() == usual
    monkeypatch.setattr(video, "REPEATABLE", f"{video.REPEATABLE}:asm=0")  # none of the processor's own instructions
    assert film() == usual


@pytest.fixture
def headless(monkeypatch):
    """As on a machine of a cluster, whatever this one is."""
    for name in ("MUJOCO_GL", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MUJOCO_GL", "")  # what is set in its place is taken back, too


def can_draw() -> bool:
    """Whether this machine has EGL, with a GPU or without; where it has not, the tests expect to be told so."""
    try:
        context = importlib.import_module("mujoco.egl").GLContext(8, 8)
    except Exception:
        return False
    context.free()
    return True


SHOWN = {"hopper-medium-v2": 25, "halfcheetah-random-v2": 20, "maze2d-umaze-v1": 25, "antmaze-umaze-v2": 10}
SHOWN |= {"pen-human-v1": 25, "kitchen-mixed-v0": 12.5, "dmc-cheetah-run": 25, "gym": 20}


@pytest.mark.slow
@pytest.mark.parametrize("name", SHOWN)
def test_every_family_of_simulators_can_be_seen(name, tmp_path, headless):
    played = Gym(id="HalfCheetah-v5", max_episode_steps=8, **NO_SCORES) if name == "gym" else task(name)
    played.max_episode_steps = 8
    draw = torch.Generator().manual_seed(0)

    def act(observation):
        return torch.rand(len(observation), played.action_size, generator=draw) * 2 - 1

    alone = rollout(played, act, 2, seed=3)
    draw.manual_seed(0)
    if not can_draw():
        with pytest.raises(UserError, match=r"eval\.video: the episode cannot be drawn"):
            film(played, alone.first, tmp_path / "episode.mp4")
        return
    film(played, alone.first, tmp_path / "episode.mp4")
    again = rollout(played, act, 2, seed=3)
    np.testing.assert_array_equal(again.returns, alone.returns)
    shown, rate = decoded(tmp_path / "episode.mp4")
    every = round(1 / (rate * SECONDS[name]))
    assert rate == pytest.approx(SHOWN[name])
    assert len(shown) == 1 + -(-len(alone.first.actions) // every)
    height, width = (480, 480) if name == "gym" else (HEIGHT, WIDTH)
    assert {picture.shape for picture in shown} == {(height, width, 3)}
    first, last = (picture.astype(float) for picture in (shown[0], shown[-1]))
    assert first.std() > 10  # something is there
    assert np.abs(last - first).max() > 40  # and moves


NO_SCORES = {"name": "gym", "reference_min": None, "reference_max": None, "url": None}
SECONDS = {"hopper-medium-v2": 0.008, "halfcheetah-random-v2": 0.05, "maze2d-umaze-v1": 0.01, "antmaze-umaze-v2": 0.1}
SECONDS |= {"pen-human-v1": 0.01, "kitchen-mixed-v0": 0.08, "dmc-cheetah-run": 0.01, "gym": 0.05}


def test_drawing_does_not_touch_the_simulation(headless):
    """Not even what MuJoCo computes on the way, of which some simulators make rewards."""
    if not can_draw():
        return
    found = task("antmaze-umaze-v2")
    env = found.visible()
    env.reset(seed=0)
    env.step(np.full(8, 0.5, np.float32))
    names = ("qpos", "qvel", "qacc", "qacc_warmstart", "ctrl", "time", "xpos", "xmat", "xipos", "geom_xpos", "cinert")
    names += ("subtree_com", "cvel", "cacc", "cfrc_ext", "qfrc_actuator", "qfrc_constraint", "actuator_force", "energy")
    before = {name: np.copy(getattr(env.data, name)) for name in names}
    behind = before["geom_xpos"]
    camera = found.camera(env)
    camera.picture()
    camera.close()
    for name in names:
        np.testing.assert_array_equal(getattr(env.data, name), before[name], err_msg=name)
    mujoco.mj_forward(env.model, env.data)
    assert np.abs(env.data.geom_xpos - behind).max() > 1e-6  # else there was nothing to disturb


def glow(kind: str) -> Gym:
    plugins.permit([f"env.id=glow:{kind}-v0"])
    return Gym(id=f"glow:{kind}-v0", max_episode_steps=None, **NO_SCORES)


def first(played: Gym) -> Episode:
    return rollout(played, lambda o: torch.full((len(o), 1), 0.25), 3, seed=7).first


def test_what_is_seen_is_the_first_episode(tmp_path):
    episode = first(glow("Glow"))
    film(glow("Glow"), episode, tmp_path / "figures" / "episode.mp4")
    shown, rate = decoded(tmp_path / "figures" / "episode.mp4")
    assert rate == 10  # of the steps' length, not of render_fps
    assert [round(picture.mean() / 20) for picture in shown] == list(range(STEPS + 1))
    assert [path.name for path in (tmp_path / "figures").iterdir()] == ["episode.mp4"]


def test_what_cannot_be_drawn_is_said_before_training(tmp_path):
    """Such as Pendulum without pygame."""
    words = ["env=gym", "env.id=glow:Blind-v0", "dataset=npz", f"dataset.path={tmp_path}/none.npz", "network=mlp"]
    for run in ([], ["-m", "seed=0,1"]):
        result = genpolicy(*words, *run, "eval.video=true", f"paths.outputs={tmp_path / 'outputs'}")
        assert result.code == 1
        reason = "genpolicy: eval.video: glow:Blind-v0 cannot be drawn (pygame is not installed); leave eval.video out"
        assert result.err.startswith(reason)
        assert result.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_an_episode_that_is_not_repeated_is_not_shown(tmp_path):
    with pytest.raises(UserError, match=r"Moody-v0 does not repeat an episode of the same start and actions"):
        film(glow("Moody"), first(glow("Moody")), tmp_path / "episode.mp4")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("backend", ["nothing", "disable"])
def test_a_machine_that_cannot_draw_is_told_in_a_line(backend, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("MUJOCO_GL", backend)
    played = task("maze2d-umaze-v1")
    played.max_episode_steps = 3
    episode = rollout(played, lambda o: torch.zeros(len(o), 2), 1, seed=0).first
    with pytest.raises(
        UserError, match=rf"cannot be drawn \(.*{backend}.*\); .*MUJOCO_GL=egl\|osmesa\|glfw"
    ) as refusal:
        film(played, episode, tmp_path / "episode.mp4")
    assert "\n" not in str(refusal.value)
    assert not list(tmp_path.iterdir())
    gc.collect()
    assert capfd.readouterr().err == ""


def train(folder: Path, kind: str, *more: str):
    """The result of a run in one of the lamp's rooms, and its folder."""
    rng = np.random.default_rng(0)
    zero = np.zeros((50, 1))
    np.savez(folder / "data.npz", obs=zero, next_obs=zero, action=rng.uniform(-1, 1, (50, 1)), reward=zero, done=zero)
    words = ["env=gym", f"env.id=glow:{kind}-v0", "dataset=npz", f"dataset.path={folder / 'data.npz'}", "network=mlp"]
    words += ["algo=idql", "network.hidden=[8]", "critic.hidden=[8]", "algo.behaviour_steps=5", "algo.critic_steps=5"]
    words += ["eval.per_phase=1", "eval.episodes=2", "eval.final_episodes=3", "eval.log_prob_actions=5"]
    words += ["tracking.uri=none", f"paths.outputs={folder / 'outputs'}"]
    result = genpolicy(*words, *more)
    assert result.code == 0, result.err
    return result, only_run(folder / "outputs")


@pytest.mark.slow
def test_a_run_with_a_video_is_the_run_without(tmp_path):
    runs = []
    for name, more in {"without": (), "with": ("eval.video=true",)}.items():
        (tmp_path / name).mkdir()
        runs.append(train(tmp_path / name, "Glow", *more)[1])
    without, filmed = runs
    assert not (without / "figures").exists()
    shown, _ = decoded(filmed / "figures" / "episode.mp4")
    assert len(shown) == STEPS + 1
    assert records(without) == records(filmed)
    left, right = (checkpoint.load(path / "last.pt") for path in runs)
    assert same(left["algorithm"], right["algorithm"])
    assert same(left["state"]["results"], right["state"]["results"])
    told = genpolicy("mode=eval", f"checkpoint={without}", "eval.final_episodes=3", "eval.video=true")
    assert told.code == 0, told.err
    (kept,) = without.glob("evaluation-*.mp4")
    assert str(kept) in told.out
    assert (kept.with_suffix(".json")).exists()
    assert [round(picture.mean() / 20) for picture in decoded(kept)[0]] == list(range(STEPS + 1))


def test_a_video_that_fails_costs_no_results(tmp_path):
    result, run = train(tmp_path, "Dark", "eval.video=true")
    lines = [line for line in result.err.splitlines() if line.startswith("no video: ")]
    assert len(lines) == 1
    assert lines[0].startswith("no video: eval.video: the episode cannot be drawn (RuntimeError: there is no light); ")
    assert "trained policy" in result.out
    assert json.loads((run / "status.json").read_text())["state"] == "finished"
    told = genpolicy("mode=eval", f"checkpoint={run}", "eval.final_episodes=3", "eval.video=true")
    assert told.code == 1
    assert told.err.startswith("genpolicy: eval.video: the episode cannot be drawn (RuntimeError: there is no light); ")
    assert told.err.count("\n") == 1
    (kept,) = run.glob("evaluation-*.json")
    assert len(json.loads(kept.read_text())["returns"]) == 3
    assert "policy" in told.out


def test_a_run_that_was_killed_while_it_drew_says_that_there_is_no_video(tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Evaluator, "film", killed)
        with pytest.raises(AssertionError):
            train(tmp_path, "Dark", "eval.video=true")
    result, _ = train(tmp_path, "Dark", "eval.video=true")
    assert result.err.count("no video: the run was stopped while it was drawn; mode=eval ") == 1


@pytest.mark.parametrize("env", ["swiss-roll", "multi-goal"])
def test_toys_have_no_video(env):
    result = genpolicy(f"env={env}", "eval.video=true")
    assert result.code == 1
    assert result.err == f"genpolicy: eval.video: env={env} has figures, but no video; leave eval.video out\n"
