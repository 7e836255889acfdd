"""Training in the simulator after the data: what is added, what is drawn, and that a stopped run is the same."""

import copy
import itertools
import math
from dataclasses import replace
from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest
import torch
from command_line import genpolicy, jobs, tried
from composed import task
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom
from small import ALGORITHMS, random_transitions, shrink
from tiny import only_run, plain_words, records, same

from genpolicy.algo.actor import Actor
from genpolicy.algo.algorithm import Algorithm, assemble
from genpolicy.algo.phase import Phase
from genpolicy.algo.update import Update
from genpolicy.dataset.sequences import Sequences
from genpolicy.dataset.transitions import Transitions
from genpolicy.errors import UserError
from genpolicy.runs import checkpoint
from genpolicy.runs.run import find_runs
from genpolicy.system.signals import Interrupted
from genpolicy.training.final import FinalEvaluations
from genpolicy.training.online import Collector, Player, Replay, remark_rewards, require_room
from genpolicy.training.setup import shorten
from genpolicy.training.vectorised import VectorisedPhase

ONLINE = ("online.steps=60", "online.start=23", "eval.per_phase=2", "eval.episodes=2", "eval.final_episodes=2")
FROM_NOTHING = ("env=gym", "env.id=Pendulum-v1", "env.max_episode_steps=5", "dataset=none", "tuned=none", *ONLINE)
FROM_NOTHING += ("network.hidden=[16]", "critic.hidden=[16]", "algo.batch_size=16", "tracking.uri=none")
RLPD = ("algo=rlpd", "algo.batch_size=16", "critic.ensemble=3", "online.updates=2", "online.random=30")
CHUNKS = ("algo=qc", "algo.steps=10", "algo.batch_size=16", "chunk.length=3", "chunk.execute=2", "solver.steps=2")
CHUNKS += ("select.num_candidates=3", "online.offline_ratio=0.5")
ANNEALED = ("online.offline_ratio=0.9", "online.offline_ratio_end=0.1")


def words(folder, *more: str) -> list[str]:
    """A run of Pendulum's, of episodes of five steps, which a time limit ends."""
    plain = plain_words(folder, "algo.critic_steps=6", "algo.policy_steps=12")
    if any(word.startswith("algo=") for word in more):
        plain = [word for word in plain if not word.startswith("algo")]
    return [*plain, *ONLINE, *more]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The runs that stopped ones are compared with, by their further words."""
    made = {}

    def made_once(*more: str):
        if more not in made:
            folder = tmp_path_factory.mktemp("whole")
            result = genpolicy(*words(folder, *more))
            assert result.code == 0, result.err
            made[more] = only_run(folder)
        return made[more]

    return made_once


def test_transitions_of_the_policy_are_added_and_both_policies_are_evaluated(undisturbed):
    run = undisturbed()
    logged = records(run)
    names = {metric for metric, _, _ in logged}
    assert {"offline/return_mean", "final/return_mean", "online/episode_return", "online/environment_steps"} <= names
    steps = [value for metric, _, value in logged if metric == "online/environment_steps"]
    assert (steps[0] > 23, steps[-1]) == (True, 60)
    saved = checkpoint.load(run / "last.pt")
    assert saved["state"]["results"].keys() >= {"offline", "final"}
    assert "online" not in saved  # once trained, a run needs its buffer no more


def test_what_is_added_is_what_the_simulator_gave(tmp_path, monkeypatch):
    replays, real = [], Replay.__init__

    def kept(self, *given):
        real(self, *given)
        replays.append(self)

    monkeypatch.setattr(Replay, "__init__", kept)
    result = genpolicy(*words(tmp_path, "scaling.observation=none", "dataset.held_out=0.2"))
    assert result.code == 0, result.err
    [replay] = replays
    rows = replay.transitions.rows(slice(replay.offline, replay.offline + 60))
    assert rows.size == 60
    follows = (rows.observation[1:] == rows.next_observation[:-1]).all(1)
    assert follows.tolist() == [(number + 1) % 5 != 0 for number in range(59)]
    assert not rows.terminated.any()  # a time limit is no termination
    assert rows.action.abs().max() <= 1  # in [-1, 1], where Pendulum's own reach to 2
    angle, speed = torch.atan2(rows.observation[:, 1], rows.observation[:, 0]), rows.observation[:, 2]
    expected = -(angle**2 + 0.1 * speed**2 + 0.001 * (2 * rows.action[:, 0]) ** 2)
    torch.testing.assert_close(rows.reward, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("env", "words", "said"),
    [
        ("maze2d-umaze-v1", {}, True),
        ("kitchen-mixed-v0", {}, True),
        ("maze2d-umaze-v1", {"as_recorded": True}, False),
        ("maze2d-umaze-v1", {"size": 0}, False),
        ("hopper-medium-v2", {}, False),
    ],
)
def test_own_data_of_a_task_with_two_rules_of_rewards_are_remarked_on(env, words, said, capsys):
    known = SimpleNamespace(**{"as_recorded": False, "size": 9, "source": f"/data/{env}.hdf5"} | words)
    remark_rewards(task(env), known, known)
    told = capsys.readouterr().err
    assert told.startswith(f"/data/{env}.hdf5: transitions that are added online") == said
    assert told.count("\n") == said


class InPlace(gymnasium.Env):
    """Adds an action to its one observation, and clears the action."""

    observation_space = action_space = gymnasium.spaces.Box(-9.0, 9.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        self.place = np.zeros(1, np.float32)
        return self.place, {}

    def step(self, action):
        self.place += action
        action[:] = 0
        return self.place, 0.0, False, False, {}


def test_a_simulator_may_write_into_what_it_gave_and_was_given():
    player, action = Player(InPlace()), np.ones(1, np.float32)
    player.begin(0, 0)
    before = player.observation
    player.step(action)
    assert (before.item(), player.observation.item(), action.item()) == (0, 1, 1)
    assert player.state_dict()["actions"].tolist() == [[1]]


def stopped_at(moments, command, monkeypatch, error=None, updates=Update) -> None:
    """Runs a command, stopped at the updates of these numbers, to its end. updates: the class whose calls they are."""
    import os
    import signal

    for moment in moments:
        calls, real = [], updates.__call__

        def disturbed(update, *arguments, moment=moment, calls=calls, real=real):
            calls.append(1)
            if len(calls) == moment:
                if error is not None:
                    raise error
                os.kill(os.getpid(), signal.SIGTERM)
            return real(update, *arguments)

        with monkeypatch.context() as patch:
            patch.setattr(updates, "__call__", disturbed)
            assert genpolicy(*command).code == (143 if error is None else 1)
    result = genpolicy(*command)
    assert result.code == 0, result.err


def assert_same(run, other) -> None:
    first, second = (checkpoint.load(path / "last.pt") for path in (run, other))
    for name in ("algorithm", "generators"):
        assert same(first[name], second[name])
    assert first["state"]["results"] == second["state"]["results"]


@pytest.mark.parametrize("more", [(), CHUNKS, (*CHUNKS, "online.simulators=3"), RLPD, ANNEALED])
def test_a_stopped_run_is_the_same_to_the_bit(more, undisturbed, tmp_path, monkeypatch):
    stopped_at([25, 9, 14], words(tmp_path, *more), monkeypatch)
    assert_same(undisturbed(*more), only_run(tmp_path))


@pytest.mark.parametrize("moment", [10, 40])  # before the first update, and between two
def test_a_run_that_is_stopped_before_it_plays_again_keeps_what_it_has(moment, undisturbed, tmp_path, monkeypatch):
    def interrupted(self, *given):
        raise Interrupted(15)

    command, steps, real = words(tmp_path), [], Collector.advance

    def advance(self, generator):
        steps.append(1)
        if len(steps) == moment:
            raise Interrupted(15)
        return real(self, generator)

    with monkeypatch.context() as patch:
        patch.setattr(Collector, "advance", advance)
        assert genpolicy(*command).code == 143
    with monkeypatch.context() as patch:
        patch.setattr(Collector, "__init__", interrupted)
        assert genpolicy(*command).code == 143
    stopped_at([], command, monkeypatch)
    assert_same(undisturbed(), only_run(tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), CHUNKS])
def test_a_run_that_dies_at_twenty_moments_is_the_same_to_the_bit(more, undisturbed, tmp_path, monkeypatch):
    """Each time it goes on from what it saved last, which may be some updates before."""
    moments = np.random.default_rng(0).integers(2, 9, 20).tolist()
    command = words(tmp_path, *more, "checkpoint_seconds=0.02")
    stopped_at(moments, command, monkeypatch, error=RuntimeError("lost"))
    assert_same(undisturbed(*more), only_run(tmp_path))


@pytest.mark.parametrize("more", [(), ANNEALED])
def test_runs_of_several_seeds_are_trained_together(more, undisturbed, tmp_path):
    result = genpolicy(*words(tmp_path, *more, "seeds=0,1"))
    assert result.code == 0, result.err
    [together] = [path for path in tmp_path.rglob("seed0") if path.is_dir()]
    found, alone = (checkpoint.load(run / "last.pt") for run in (together, undisturbed(*more)))
    for name, value in alone["algorithm"].items():
        if torch.is_tensor(value):
            torch.testing.assert_close(found["algorithm"][name], value, rtol=1e-3, atol=1e-3)


def test_seeds_that_are_stopped_together_are_the_same_to_the_bit(tmp_path, monkeypatch):
    made = []
    for name, moments in {"whole": [], "stopped": [30, 12, 9]}.items():
        folder = tmp_path / name
        folder.mkdir()
        stopped_at(moments, words(folder, *ANNEALED, "seeds=0,1"), monkeypatch, updates=VectorisedPhase)
        made.append(sorted(find_runs(folder)))
    assert [len(runs) for runs in made] == [2, 2]
    for run, other in zip(*made, strict=True):
        assert_same(run, other)


def test_each_simulator_plays_its_episodes_to_the_end(tmp_path):
    result = genpolicy(*words(tmp_path, "online.simulators=2", "scaling.observation=none", "online.start=30"))
    assert result.code == 0, result.err
    logged = records(only_run(tmp_path))
    assert [value for metric, _, value in logged if metric == "online/environment_steps"][-1] == 60
    refused = genpolicy(*words(tmp_path, "online.simulators=7"))
    assert refused.err.endswith("online.simulators=7: must divide online.steps=60\n")


def test_a_run_of_given_parts_begins_online(undisturbed, tmp_path):
    given = [f"init.{part}={undisturbed()}" for part in ("policy", "critic")]
    result = genpolicy(*words(tmp_path, *given))
    assert result.code == 0, result.err
    saved = checkpoint.load(only_run(tmp_path) / "last.pt")
    assert saved["state"]["updates"] == 37
    trained = checkpoint.load(undisturbed() / "last.pt")["state"]["results"]["final"]
    found = saved["state"]["results"]["offline"]
    assert found["log_prob"] == pytest.approx(trained["log_prob"], abs=1e-5)


def test_without_data_training_begins_online(tmp_path):
    result = genpolicy(*FROM_NOTHING, "algo=td3_bc", "online.noise=0.1", f"paths.outputs={tmp_path}")
    assert result.code == 0, result.err
    saved = checkpoint.load(only_run(tmp_path) / "last.pt")
    assert (saved["state"]["results"].keys() & {"offline", "final"}, saved["state"]["updates"]) == ({"final"}, 37)


@pytest.mark.parametrize(("wrong", "said"), [("reward", "reward nan"), ("observation", "observation with a NaN")])
def test_what_a_simulator_gives_wrongly_is_its_own_error_and_not_the_policy_s(wrong, said, tmp_path, monkeypatch):
    real = Player.step

    def step(player, action):
        terminated, truncated, reward = real(player, action)
        if len(player.actions) < 4:
            return terminated, truncated, reward
        player.observation[0] = math.nan if wrong == "observation" else 0.0
        return terminated, truncated, math.nan if wrong == "reward" else reward

    monkeypatch.setattr(Player, "step", step)
    result = genpolicy(*FROM_NOTHING, "algo=td3_bc", "online.noise=0.1", f"paths.outputs={tmp_path}")
    assert result.code == 1
    assert f"the environment gives the {said}" in result.err
    assert "in step 3 of the episode of seed" in result.err


def test_what_is_killed_before_the_first_update_or_in_the_final_evaluation_has_a_checkpoint(tmp_path, monkeypatch):
    command = [*FROM_NOTHING, "algo=td3_bc", "online.noise=0.1", "checkpoint_seconds=0", f"paths.outputs={tmp_path}"]

    def killed(owner, name, after: int = 0):
        real, calls = getattr(owner, name), itertools.count()

        def call(*arguments):
            if next(calls) == after:
                raise OSError("killed")
            return real(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(owner, name, call)
            assert genpolicy(*command).code == 1
        return checkpoint.load(only_run(tmp_path) / "last.pt")

    assert len(killed(Collector, "advance", 10)["online"]["replay"]["rows"]) == 10
    assert len(killed(FinalEvaluations, "make")["online"]["replay"]["rows"]) == 60
    assert genpolicy(*command).code == 0
    assert "online" not in checkpoint.load(only_run(tmp_path) / "last.pt")


def test_more_transitions_than_memory_holds_are_refused_before_anything_is_trained():
    with pytest.raises(UserError, match=r"^online.steps=1000000000000: so many transitions take .* GiB of memory"):
        require_room(Transitions.of({"observation": np.zeros((1, 3)), "reward": np.zeros(1)}), 10**12)


def test_first_actions_can_be_uniform(tmp_path, monkeypatch):
    played, real = [], Player.step

    def kept(self, action):
        played.append(action.item())
        return real(self, action)

    monkeypatch.setattr(Player, "step", kept)
    monkeypatch.setattr(Actor, "explore", lambda self, observation, *given: torch.full((1, 1), 0.25))
    result = genpolicy(*FROM_NOTHING, "algo=td3_bc", "online.random=20", f"paths.outputs={tmp_path}")
    assert result.code == 0, result.err
    first = np.array(played[:20])
    assert (np.abs(first).max() <= 2, 0.8 < first.std() < 1.5) == (True, True)  # in [-2, 2], where it is 1.15
    assert played[20:] == [0.25] * 40


@pytest.mark.parametrize("more", [("algo.pretrain=false",), ("algo.pretrain=true",), ("dataset=none",)])
def test_rlpd_begins_online_and_moves_its_policy_once_a_step(more, tmp_path):
    given = words(tmp_path, *RLPD, "algo.steps=6", "online.updates=3", "online.offline_ratio=0.5", *more)
    if "dataset=none" in more:
        given = [word for word in given if not word.startswith("dataset.")]
    result = genpolicy(*given)
    assert result.code == 0, result.err
    saved = checkpoint.load(only_run(tmp_path) / "last.pt")
    before = 6 if "algo.pretrain=true" in more else 0
    assert ("offline" in saved["state"]["results"], saved["state"]["updates"]) == (before > 0, before + 3 * 37)
    counts = {}
    for update, state in saved["algorithm"]["_extra_state"]["online"].items():
        counts[update] = max(int(moments["step"]) for moments in state["state"].values())
    assert counts == {"critic": before + 3 * 37, "actor": before // 3 + 37}


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 6), st.booleans()), min_size=1, max_size=6),
    st.integers(1, 4),
    st.booleans(),
    st.booleans(),
)
def test_a_replay_buffer_is_data_to_which_rows_were_added(episodes, length, masked, shared):
    """Batches are as of one data set of all rows, but none goes over from the data into what was added."""
    draw = np.random.default_rng(0)
    lengths = [5, *(steps for steps, _ in episodes)]
    rows = sum(lengths)
    ends = np.isin(np.arange(rows), np.cumsum(lengths) - 1)
    ending = dict(zip((np.cumsum(lengths) - 1).tolist(), [False, *(ended for _, ended in episodes)], strict=True))
    terminated = np.array([ending.get(row, False) for row in range(rows)])
    arrays = {
        "observation": np.arange(rows)[:, None],
        "action": draw.uniform(-1, 1, (rows, 1)),
        "reward": draw.standard_normal(rows),
        "next_observation": np.arange(rows)[:, None] + 1,
        "terminated": terminated,
    }

    def made(stop: int) -> Transitions:
        transitions = Transitions.of(
            {name: column[:stop] for name, column in arrays.items()}, ends=torch.from_numpy(ends[:stop]), source="rows"
        )
        if length == 1:
            return transitions
        return Sequences.of_transitions(transitions, length, length, 0.9, masked)

    replay = Replay(made(5), rows - 5, None, shared=shared)
    for row in range(5, rows):
        replay.add({name: column[row].astype(np.float32) for name, column in arrays.items()}, bool(ends[row]))
        if row == 7:  # a restart changes nothing
            state, replay = replay.state_dict(), Replay(made(5), rows - 5, None, shared=shared)
            replay.load_state_dict(state)
    whole = made(rows)
    starts = replay.starts.index_select(0, torch.arange(replay.offline_starts + replay.added_starts))
    if length == 1:
        assert starts.tolist() == list(range(rows))
        return
    over = [start for start in whole.starts.tolist() if start < 5 < start + length] if masked else []
    assert sorted(starts.tolist()) == sorted(set(whole.starts.tolist()) - set(over))
    found, expected = replay.transitions.rows(starts), whole.rows(starts)
    assert torch.equal(found.table, expected.table)
    replay.ratio = 0.5, 0.5
    halves = replay.sample(20, torch.Generator().manual_seed(0)).observation[:, 0]
    if replay.added_starts:
        assert ((halves[:10] >= 5).all(), (halves[10:] < 5).all()) == (True, True)


@given(
    seed=st.integers(0, 1000), length=st.sampled_from([1, 3]), masked=st.booleans(), simulators=st.sampled_from([2, 3])
)
@settings(deadline=None, max_examples=30)
def test_simulators_side_by_side_add_what_each_would_alone(seed, length, masked, simulators):
    draw, share = np.random.default_rng(seed), 8
    rows = simulators * share
    columns = {"observation": np.arange(rows)[:, None], "action": draw.uniform(-1, 1, (rows, 1))}
    columns |= {"reward": draw.standard_normal(rows), "next_observation": np.arange(rows)[:, None] + 1}
    columns["terminated"] = draw.random(rows) < 0.2
    ends = columns["terminated"] | (draw.random(rows) < 0.2)

    def made(size: int) -> Transitions:
        data = {name: column[:size] for name, column in columns.items()}
        transitions = Transitions.of(data, ends=torch.from_numpy(ends[:size]), source="rows")
        return Sequences.of_transitions(transitions, length, length, 0.9, masked) if length > 1 else transitions

    replay, found = Replay(made(0), rows, None, simulators), []
    for step in range(share):
        for simulator in range(simulators):
            number = share * simulator + step
            row = {name: column[number].astype(np.float32) for name, column in columns.items()}
            replay.add(row, bool(ends[number]), simulator)
    batch = replay.transitions.rows(replay.starts[: replay.added_starts])
    for simulator in range(simulators):
        alone = Replay(made(0), rows, None)
        for number in range(share * simulator, share * (simulator + 1)):
            row = {name: column[number].astype(np.float32) for name, column in columns.items()}
            alone.add(row, bool(ends[number]))
        found.append(alone.transitions.rows(alone.starts[: alone.added_starts]).table)
    expected = torch.cat(found)
    assert batch.size == len(expected) == replay.added_starts
    order, wanted = batch.table[:, 0].argsort(stable=True), expected[:, 0].argsort(stable=True)
    assert torch.equal(batch.table[order], expected[wanted])


def filled(offline: int, added: int, ratio: tuple[float, float] | None) -> Replay:
    """A replay buffer whose rows have their numbers as observations."""
    names = ("observation", "action", "reward", "next_observation", "terminated")
    columns = dict.fromkeys(names, torch.zeros(offline)) | {"observation": torch.arange(offline) * 1.0}
    replay = Replay(Transitions.side_by_side(columns), added, ratio)
    for number in range(offline, offline + added):
        replay.add(dict.fromkeys(names, 0.0) | {"observation": float(number)}, ended=False)
    return replay


@pytest.mark.parametrize("scaling", ["space", "none"])
def test_noise_is_in_units_of_half_the_range_of_actions(scaling):
    [(job, _)] = jobs("algo=td3_bc", "tuned=none", "network=mlp", "env=multi-goal", f"scaling.action={scaling}")
    algorithm = assemble(job.config, 2, -torch.ones(2), torch.tensor([1.0, 99.0]), 0)
    noisy, plain = (algorithm.explore(torch.zeros(4000, 2), torch.Generator(), noise) for noise in (0.1, 0.0))
    torch.testing.assert_close((noisy - plain).std(0), torch.tensor([0.1, 5.0]), rtol=0.05, atol=0)


@pytest.mark.parametrize(("name", "spread"), [("td3_bc", 0.0), ("iql", 0.1)])
def test_exploration_samples_a_policy_whose_std_is_its_own(name, spread):
    """That of TD3+BC is fitted for a log-likelihood only: it explores by its mean and by `online.noise`."""
    [(job, _)] = jobs(f"algo={name}", "tuned=none", "network=mlp", "env=multi-goal")
    algorithm = assemble(job.config, 2, -torch.ones(2), torch.ones(2), 0)
    algorithm.policy.log_std.data.fill_(np.log(0.1))
    found = algorithm.explore(torch.zeros(4000, 2), torch.Generator())
    torch.testing.assert_close(found.std(0), torch.full((2,), spread), rtol=0.05, atol=1e-6)


def test_rows_are_added_to_a_table_on_another_device_than_the_host():
    """A transition is partly there, partly on the host: such as its reward."""
    columns = {"observation": torch.zeros(4, 2), "reward": torch.zeros(4), "terminated": torch.zeros(4)}
    replay = Replay(Transitions.side_by_side(columns).to("meta"), 3, None)
    replay.add({"observation": torch.zeros(2, device="meta"), "reward": 1.0, "terminated": 0.0}, ended=True)
    assert replay.added == 1


@given(st.integers(1, 30), st.integers(1, 30), st.floats(0, 1), st.floats(0, 1), st.sampled_from([0.0, 0.25, 0.5, 1.0]))
@settings(deadline=None, max_examples=50)
def test_the_share_of_the_data_in_a_batch_is_annealed(offline, added, begin, end, progress):
    """To a whole number of rows; the rows of either source are alike."""
    replay = filled(offline, added, (begin, end))
    replay.progress = progress
    drawn = replay.sample(2000, torch.Generator().manual_seed(0)).observation
    of_data = (drawn < offline).sum().item()
    assert abs(of_data - 2000 * ((1 - progress) * begin + progress * end)) < 0.51
    assert within_chance((drawn == 0).sum().item(), of_data, 1 / offline)
    assert within_chance((drawn == offline).sum().item(), 2000 - of_data, 1 / added)


def test_seeds_that_are_trained_together_share_the_rows_of_the_data(tmp_path, monkeypatch):
    """And draw the batches that they would draw of copies."""
    drawn, replays, real = [], [], Replay.sample

    def kept(self, batch_size, generator):
        state = generator.get_state()
        batch = real(self, batch_size, generator)
        whole = replace(
            self.transitions, table=torch.cat([self.transitions.table.first, self.transitions.table.second])
        )
        copied = copy.copy(self)
        copied.transitions, copied.starts = whole, torch.cat([self.starts.first, self.starts.second])
        again = real(copied, batch_size, torch.Generator().set_state(state))
        drawn.append(torch.equal(batch.table, again.table))
        replays.append(self)
        return batch

    monkeypatch.setattr(Replay, "sample", kept)
    result = genpolicy(*words(tmp_path, "seeds=0,1,2"))
    assert result.code == 0, result.err
    assert (len(drawn), all(drawn), len(set(replays))) == (3 * 37, True, 3)
    assert len({replay.transitions.table.first.data_ptr() for replay in replays}) == 1
    assert len({replay.transitions.table.second.data_ptr() for replay in replays}) == 3


@given(st.integers(1, 30), st.integers(1, 30))
@settings(deadline=None, max_examples=20)
def test_without_a_ratio_data_and_added_transitions_are_drawn_alike(offline, added):
    drawn = filled(offline, added, None).sample(2000, torch.Generator().manual_seed(0)).observation
    assert within_chance((drawn < offline).sum().item(), 2000, offline / (offline + added))


def within_chance(count: int, draws: int, chance: float) -> bool:
    """Whether a binomial of so many draws gives a count as far out more often than once in a million times."""
    low, high = binom.interval(1 - 1e-6, draws, chance)
    return low <= count <= high


def test_a_run_begins_and_ends_with_the_shares_it_was_given(tmp_path, monkeypatch):
    shares, real = {}, Replay.sample

    def kept(self, batch_size, generator):
        batch = real(self, batch_size, generator)
        data = {tuple(row.tolist()) for row in self.transitions.rows(torch.arange(self.offline)).table}
        of_data = sum(tuple(row.tolist()) in data for row in batch.table)
        shares.setdefault(generator.initial_seed(), []).append(of_data / batch_size)
        return batch

    monkeypatch.setattr(Replay, "sample", kept)
    result = genpolicy(*words(tmp_path, *ANNEALED, "seeds=0,1"))
    assert result.code == 0, result.err
    assert len(shares) == 2
    for each in shares.values():
        expected = 0.9 - 0.8 * np.arange(37) / 37
        assert np.abs(np.array(each) - expected).max() <= 0.5 / 32 + 1e-9


@pytest.mark.parametrize("name", ALGORITHMS)
def test_each_algorithm_goes_on_online_or_says_why_not(name):
    online = ("online.steps=9", "online.start=2")
    result, _ = tried(f"algo={name}", "tuned=none", "network=mlp", "env=multi-goal", *online)
    if result.code:
        assert "learns of data that do not grow, as it" in result.err
        return
    algorithm, generator = small_algorithm(f"algo={name}", *online), torch.Generator().manual_seed(0)
    for phase in algorithm.phases:
        assert (phase.prepare, phase.refresh) == (None, None)
    online, data = algorithm.online_phase(4), random_transitions()
    assert online.start is None
    counted = {name: update.count for name, update in online.updates.items()}
    for step in range(2):
        metrics = online.update(data.sample(8, generator), generator, step)
        assert all(torch.isfinite(metric) for metric in metrics.values())
    assert all(update.count > counted[name] for name, update in online.updates.items())
    trained = [update.optimizer for update in online.updates.values()]
    assert len(set(trained)) == len(trained)  # once on a batch
    assert set(trained) == {update.optimizer for phase in algorithm.phases for update in phase.updates.values()}
    assert algorithm.explore(torch.zeros(5, 2), generator, 0.1).shape == (5, 2)


def small_algorithm(*words: str) -> Algorithm:
    [(job, _)] = jobs(*words, "tuned=none", "network=mlp", "env=multi-goal")
    shrink(job.config)
    return assemble(job.config, 2, -torch.ones(2), torch.ones(2))


@pytest.mark.parametrize(("name", "rates"), [("meanflow_ql", {"actor": 1e-5, "critic": 3e-4}), ("dac", 3e-4)])
def test_online_the_learning_rate_is_what_its_schedule_ended_at_or_the_whole_one_if_that_is_0(name, rates):
    """The policy's of MeanFlowQL falls to a tenth, where its authors' code leaves it online."""
    algorithm, generator = small_algorithm(f"algo={name}"), torch.Generator().manual_seed(0)
    online = algorithm.online_phase(4)
    online.update(random_transitions().sample(8, generator), generator, 0)
    found = {name: update.optimizer.param_groups[0]["lr"] for name, update in online.updates.items()}
    assert found == pytest.approx(rates if isinstance(rates, dict) else dict.fromkeys(found, rates))


def begun_online(*words: str, given: tuple[str, ...] = ()) -> tuple[Algorithm, Phase]:
    """An algorithm that is trained online alone, and its phase. given: its parts that are taken from other runs."""
    words = (*words, "tuned=none", "network=mlp", "env=multi-goal", "dataset=none", "online.steps=9", "online.start=2")
    [(job, _)] = jobs(*words)
    shrink(job.config)
    job.config.init.digests = dict.fromkeys(given, "")
    algorithm = shorten(assemble(job.config, 2, -torch.ones(2), torch.ones(2)), job.config)
    [phase] = algorithm.phases
    return algorithm, phase


@pytest.mark.parametrize(("given", "rate", "progress"), [((), 1e-4, 3 / 7), (("policy", "critic"), 1e-5, 1.0)])
def test_from_nothing_no_schedule_has_ended(given, rate, progress):
    _, phase = begun_online("algo=meanflow_ql", given=given)
    generator = torch.Generator().manual_seed(0)
    phase.update(random_transitions().sample(8, generator), generator, 0)
    assert phase.updates["actor"].optimizer.param_groups[0]["lr"] == pytest.approx(rate)
    assert phase.progress(3) == progress


def test_from_nothing_a_policy_begins_as_the_behaviour_model_that_is_given():
    algorithm, phase = begun_online("algo=gmpg", given=("behaviour",))
    with torch.no_grad():
        for parameter in algorithm.behaviour.parameters():
            parameter += 1.0
    phase.start()
    assert same(algorithm.policy.state_dict(), algorithm.behaviour.state_dict())


def test_meanflow_qls_alpha_changes_online_too():
    """As in its authors' code, which counts its updates on."""
    algorithm, generator = small_algorithm("algo=meanflow_ql", "algo.factor=1"), torch.Generator().manual_seed(0)
    online, data = algorithm.online_phase(9), random_transitions()
    alphas = [online.update(data.sample(8, generator), generator, step)["actor_alpha"].item() for step in range(6)]
    assert alphas[:3] == [10.0] * 3  # one loss to compare with is too few
    assert 10.0 not in alphas[3:]


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ("online.steps=10 online.start=10", "online.start=10: must be below online.steps=10"),
        (
            "online.steps=10 online.start=1 online.offline_ratio_end=0",
            "online.offline_ratio_end=0: needs an online.offline_ratio to begin with",
        ),
        ("dataset=none", "dataset=none: gives nothing to train on; give online.steps as well"),
        ("dataset=none online.steps=9 online.start=1 dataset.held_out=0.5", "no episodes to hold out"),
        ("dataset=none online.steps=9 online.start=1 dataset.reward=standardize", "takes constants from data"),
        ("dataset=none online.steps=9 online.start=1 scaling.action=data", "takes the range of data"),
        (
            "dataset=none algo=rlpd online.steps=20 online.start=3 online.simulators=2 critic.steps=3",
            "online.start=3: without data, critic.steps=3 needs as many steps of an episode before the first update; "
            "give 4 or more",
        ),
        (
            "dataset=none algo=qc env.max_episode_steps=4 online.steps=20 online.start=9 chunk.length=5",
            "chunk.length=5: no episode of multi-goal has so many steps, but at most 4",
        ),
        ("env.max_episode_steps=1", "env.max_episode_steps=1: the data are without each episode's last step"),
        ("env=swiss-roll algo=qc chunk.length=2", "chunk.length=2: an episode of swiss-roll is one action"),
        (
            "dataset=none algo=dsrl algo.frozen=true online.steps=9 online.start=1",
            "algo.frozen=true: dataset=none trains no flow before it; legal: false, or init.behaviour=RUN",
        ),
        ("algo=awr online.steps=9 online.start=1", "this algo learns of data that do not grow, as its returns"),
    ],
)
def test_what_cannot_be_is_refused(more, reason):
    result, _ = tried("env=multi-goal", "tuned=none", *more.split())
    assert (result.code, result.err.count("\n")) == (1, 1)
    assert reason in result.err


def test_a_frozen_flow_is_steered_as_it_is(tmp_path):
    """Also online, and that of another run."""
    small = ["algo=dsrl", "algo.frozen=true", "algo.behaviour_steps=8", "algo.steps=6", "algo.batch_size=16"]
    small += ["algo.behaviour_batch_size=16", "algo.policy_hidden=[16]", "critic.ensemble=2", "solver.steps=2"]
    result = genpolicy(*words(tmp_path, *small))
    assert result.code == 0, result.err
    run = only_run(tmp_path)
    saved = checkpoint.load(run / "last.pt")["algorithm"]
    counts = {}
    for phase, state in saved["_extra_state"].items():
        counts[phase] = max(int(moments["step"]) for moments in state["state"].values())
    assert counts == {"behaviour": 8, "training": 6 + 37, "online": 6 + 37}  # of one optimiser
    assert genpolicy(*words(tmp_path, *small, "seed=1", f"init.behaviour={run}")).code == 0
    [other] = [path for path in find_runs(tmp_path) if path != run]
    found = checkpoint.load(other / "last.pt")["algorithm"]
    flow = [name for name in saved if name.startswith("behaviour.")]
    assert all(torch.equal(found[name], saved[name]) for name in flow)
    assert not torch.equal(found["policy.network.layers.0.weight"], saved["policy.network.layers.0.weight"])
