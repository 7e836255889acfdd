"""The multi-goal toy: its data, its simulator, and what is said about ways."""

import numpy as np
import pytest
import torch
from command_line import genpolicy
from tiny import events, only_run

from genpolicy.config.setting_groups import Chunk
from genpolicy.dataset.multi_goal import MultiGoalData
from genpolicy.env.multi_goal import GOALS, MultiGoal, coverage, demonstrations, squared_distance
from genpolicy.evaluation import toys
from genpolicy.evaluation.rollout import rollout

TASK = MultiGoal(name="multi-goal", max_episode_steps=20, reference_min=None, reference_max=None, url=None)


def test_the_demonstrations_cover_the_goals_evenly():
    positions, actions = demonstrations(1000, 20)
    assert (positions.shape, actions.shape) == ((21, 1000, 2), (20, 1000, 2))
    np.testing.assert_allclose(positions[:-1] + actions, positions[1:])
    found = coverage(positions)
    assert found["goals"] == 4
    assert found["reached"] == 1
    assert found["balance"] > 0.99
    assert found["end_spread"] == pytest.approx(0.14, abs=0.02)  # sqrt(2) * the noise of one step


def test_the_transitions_are_those_of_the_simulator(tmp_path):
    data = MultiGoalData(episodes=50, directory=tmp_path).load(TASK)
    assert data.size == 50 * 19
    np.testing.assert_allclose(data.observation + data.action, data.next_observation, atol=1e-5)
    np.testing.assert_allclose(data.reward, -squared_distance(data.next_observation.numpy()), rtol=1e-4, atol=1e-4)
    assert not data.terminated.any()
    followed = data.followed()  # by the next step of the same walk
    assert data.ends.tolist() == 50 * [*[False] * 18, True]
    assert torch.equal(followed, ~data.ends)
    env = TASK.simulate()
    start, _ = env.reset(seed=0)
    position, reward, terminated, *_ = env.step(np.array([0.5, -0.25]))
    np.testing.assert_allclose(position, start + np.array([0.5, -0.25]), atol=1e-6)
    assert reward == pytest.approx(-squared_distance(position.astype(float)), rel=1e-5)
    assert not terminated


def test_the_best_policy_earns_what_the_data_do():
    def act(observation):
        position = observation.numpy()
        goal = GOALS[np.square(position[:, None] - GOALS).sum(-1).argmin(-1)]
        gap = goal - position
        step = gap * np.minimum(1, 0.5 / np.maximum(np.linalg.norm(gap, axis=-1, keepdims=True), 1e-9))
        return observation.new_tensor(step)

    best = rollout(TASK, act, 50, seed=0)
    data = MultiGoalData(episodes=200, directory=".").load(TASK).behaviour
    assert (best.lengths == 20).all()
    assert data.return_mean == pytest.approx(best.returns.mean(), rel=0.1)


def test_what_is_said_about_ways():
    still = np.zeros((21, 8, 2))
    assert coverage(still) == {"goals": 0, "reached": 0, "balance": 0, "end_spread": 5, "way_spread": 0}
    trajectories = np.linspace(0, 1, 21)[:, None, None] * GOALS[[0, 0, 0, 1]]
    found = coverage(trajectories)
    assert (found["goals"], found["reached"], found["end_spread"], found["way_spread"]) == (2, 1, 0, 0)
    assert found["balance"] == pytest.approx((0.75 * np.log(4 / 3) + 0.25 * np.log(4)) / np.log(4))
    aside = trajectories + [0, 0.3] * (np.arange(21) > 0)[:, None, None]
    assert coverage(aside)["end_spread"] == pytest.approx(0.3)
    assert coverage(aside)["way_spread"] == pytest.approx(0.3 * np.sqrt(20 / 21))


def test_ways_are_drawn_of_a_policy_that_plays_chunks(monkeypatch, tmp_path):
    drawn = {}
    monkeypatch.setattr("genpolicy.evaluation.figures.draw_trajectories", lambda shown, *more: drawn.update(shown))
    steps = torch.tensor([[0.5, 0.0], [0.0, 0.25], [9.0, 9.0]])  # of which the first two are played

    class Walker:
        action_low = torch.zeros(6)

        def act(self, observation, generator):
            return steps.flatten().expand(len(observation), -1)

    toys.draw(TASK, Walker(), Chunk(length=3, execute=2), tmp_path)
    moved = np.diff(drawn["policy"][:5], axis=0)
    np.testing.assert_allclose(moved, np.broadcast_to(steps[[0, 1, 0, 1], None], moved.shape), atol=1e-12)


@pytest.mark.slow
def test_a_run_draws_its_ways_measures_them_and_shows_the_trade_off_of_steps(tmp_path):
    result = genpolicy(
        f"paths.outputs={tmp_path}", f"paths.data={tmp_path}", "tracking.uri=none", "env=multi-goal", "algo=gtp",
        "algo.steps=30", "network.hidden=[16]", "critic.hidden=[16]", "eval.steps=[1,2]", "eval.final_episodes=5",
        "eval.episodes=2", "eval.per_phase=1", "eval.log_prob_actions=20",
    )  # fmt: skip
    assert result.code == 0, result.err
    run = only_run(tmp_path)
    assert {path.name for path in (run / "figures").iterdir()} == {"trajectories.png", "steps.png"}
    metrics = {(name, event["step"]): value for event in events(run) for name, value in event["metrics"].items()}
    assert {"final/goals", "final/reached", "final/balance", "final/end_spread", "final/way_spread"} <= {
        name for name, _ in metrics
    }
    for steps in (1, 2):
        assert metrics["steps/ms_per_action", steps] > 0
        assert ("steps/return_mean", steps) in metrics
        assert ("steps/log_prob", steps) in metrics
    assert "2 steps" in result.out
    again = genpolicy("mode=eval", f"checkpoint={run}", "eval.steps=[3]", "eval.final_episodes=5")
    assert again.code == 0, again.err
    assert "3 steps" in again.out
    assert {path.suffix for path in run.glob("evaluation-*")} == {".json", ".png"}


@pytest.mark.slow
def test_a_consistency_model_says_that_it_has_no_density(tmp_path):
    result = genpolicy(
        f"paths.outputs={tmp_path}", f"paths.data={tmp_path}", "tracking.uri=none", "env=swiss-roll",
        "algo=consistency_ac", "algo.steps=20", "network.hidden=[16]", "critic.hidden=[16]", "eval.final_episodes=5",
        "eval.episodes=2", "eval.per_phase=1",
    )  # fmt: skip
    assert result.code == 0, result.err
    (line,) = [line for line in result.out.splitlines() if "trained policy" in line]
    assert line.split()[-4:-2] == ["no", "density"]
    assert line.split()[-1] == "ms"
    run = only_run(tmp_path)
    assert not any("log_prob" in name for event in events(run) for name in event["metrics"])
    assert {path.name for path in (run / "figures").iterdir()} == {
        "samples.png",
        "value.png",
        "density.png",
    }  # the exact one
