"""Policies and critics over chunks of actions."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from command_line import genpolicy, jobs, tried
from small import ALGORITHMS, begun, random_transitions, shrink
from tiny import only_run, plain_words, records

from genpolicy.algo.actor import ActionQueue
from genpolicy.algo.algorithm import assemble
from genpolicy.api import Served, load_policy
from genpolicy.config.schema import build, locate
from genpolicy.config.setting_groups import Chunk
from genpolicy.dataset.sequences import Sequences
from genpolicy.dataset.transitions import Transitions
from genpolicy.errors import UserError
from genpolicy.evaluation.evaluator import Evaluator
from genpolicy.runs.phases import recipe
from genpolicy.training import setup

STEPS, BEST, DISCOUNT = 6, 0.3, 0.9
SMALL = ("network.hidden=[64,64]", "critic.hidden=[64,64]", "critic.discount=0.9", "tuned=none", "env=multi-goal")

FAST = ("solver.steps=5", "critic.target_rate=0.05", "algo.lr=1e-3", "critic.lr=1e-3")


def chain(episodes: int = 400) -> Transitions:
    """Episodes of six steps, 1 - (a - .3)^2 for each: the best action at every state is .3."""
    draw = np.random.default_rng(0)
    step = np.tile(np.arange(STEPS), episodes)
    action = draw.uniform(-1, 1, (len(step), 1))
    arrays = {
        "observation": np.eye(STEPS + 1)[step],
        "action": action,
        "reward": 1 - (action[:, 0] - BEST) ** 2,
        "next_observation": np.eye(STEPS + 1)[step + 1],
        "terminated": step == STEPS - 1,
    }
    return Transitions.of(arrays, ends=torch.from_numpy(step == STEPS - 1), source="chain")


@pytest.mark.slow
@pytest.mark.parametrize(
    "words", [("algo=qc", "select.num_candidates=8"), ("algo=qc_fql", "algo.policy_hidden=[64,64]", "algo.alpha=0.03")]
)
@pytest.mark.parametrize("seed", [0])
def test_chunks_of_two_reach_the_optimum_of_a_chain(words, seed):
    updates = 500
    [(job, _)] = jobs(*SMALL, *words, "chunk.length=2", *FAST)
    algorithm = assemble(job.config, STEPS + 1, -torch.ones(1), torch.ones(1), seed)
    found = Sequences.of_transitions(chain(), 2, 2, DISCOUNT, masked=False)
    generator = torch.Generator().manual_seed(seed)
    [phase] = algorithm.phases
    phase.steps = updates
    for step in range(updates):
        phase.update(found.sample(128, generator), generator, step)
    states = torch.eye(STEPS + 1)[:STEPS]
    values = [sum(DISCOUNT**k for k in range(STEPS - step)) for step in range(STEPS)]
    q = algorithm.q(states, torch.full((STEPS, 2), BEST)).detach()
    acted = torch.stack([algorithm.act(states, generator) for _ in range(20)])
    torch.testing.assert_close(q, torch.tensor(values), rtol=0, atol=0.25)
    assert (acted - BEST).square().mean() < 0.1  # of the data's actions it is .42


def test_a_queue_plays_what_was_chosen():
    asked = []

    def choose(observation):
        asked.append(observation)
        return torch.arange(6.0).repeat(len(observation), 1) + 10 * len(asked)

    queue = ActionQueue(choose, Chunk(length=3, execute=2))
    played = [queue(torch.zeros(4, 5))[0].tolist() for _ in range(4)]
    assert played == [[10, 11], [12, 13], [20, 21], [22, 23]]
    queue(torch.zeros(4, 5))
    queue.reset()
    assert queue(torch.zeros(2, 5)).tolist() == [[40, 41]] * 2
    assert len(asked) == 4


@pytest.mark.parametrize("words", [("chunk.length=3",), ("critic.steps=3",)])
@pytest.mark.parametrize("name", ALGORITHMS)
def test_each_algorithm_takes_chunks_and_sums_of_rewards_or_says_why_not(name, words):
    words = [f"algo={name}", "tuned=none", "network=mlp", "env=multi-goal", *words]
    result, started = tried(*words)
    if result.code:
        assert "takes single steps, as its" in result.err
        return
    [(job, _)] = started
    shrink(job.config)
    algorithm = assemble(job.config, 2, -torch.ones(2), torch.ones(2))
    chunk, masked = job.config.chunk.length, algorithm.masks and algorithm.objective.masks
    ends = torch.arange(32) % 8 == 7
    data = Sequences.of_transitions(replace(random_transitions(), ends=ends), 3, chunk, DISCOUNT, masked)
    generator = torch.Generator().manual_seed(0)
    for phase in algorithm.phases:
        source = begun(phase, data)
        for step in (phase.steps // 2, phase.steps // 2 + 1):
            metrics = phase.update(source.sample(8, generator), generator, step)
            assert all(torch.isfinite(metric) for metric in metrics.values())
    assert algorithm.act(torch.zeros(5, 2), generator).shape == (5, 2 * chunk)
    if algorithm.critic is not None:
        assert algorithm.critic.horizon == 3


@pytest.mark.parametrize("name", ["qc", "fql", "gfp"])
def test_losses_that_are_masked_take_nothing_behind_the_end_of_an_episode(name):
    """At the noise end, where the flow is not shown the data's actions either."""
    [(job, _)] = jobs(f"algo={name}", "tuned=none", "network=mlp", "env=multi-goal", "chunk.length=3")
    if not locate(job.config.algo._target_).masks:
        return
    shrink(job.config)
    algorithm = assemble(job.config, 2, -torch.ones(2), torch.ones(2))
    data = Sequences.of_transitions(replace(random_transitions(), ends=torch.arange(32) % 8 == 7), 3, 3, DISCOUNT, True)
    batch = data.rows(data.starts)
    columns = {column: batch[column].float() for column in batch.shapes}
    columns["action"] = torch.where(columns["valid_action"] != 0, columns["action"], 0.0)
    for column in ("reward", "next_observation"):
        columns[column] = columns[column] * columns["valid"].view(-1, *[1] * (columns[column].dim() - 1))
    for update in algorithm.phases[0].updates.values():
        draws = update.drawn(batch, torch.Generator().manual_seed(0), 0.5)
        draws |= {"t": torch.full_like(draws["t"], algorithm.behaviour.t_max)} if "t" in draws else {}
        losses = [update.loss(each, draws)[0] for each in (batch, Transitions.side_by_side(columns))]
        torch.testing.assert_close(*losses)


def test_a_run_of_chunks_is_evaluated_and_its_policy_plays_them(tmp_path):
    words = plain_words(tmp_path, "chunk.length=3", "chunk.execute=2", "dataset.held_out=0.2", "budget=0.1")
    result = genpolicy(*words)
    assert result.code == 0, result.err
    run = only_run(tmp_path)
    final = {metric: value for metric, _, value in records(run) if metric.startswith("final/")}
    assert final["final/log_prob_per_action"] == pytest.approx(final["final/log_prob"] / 3)
    result = genpolicy("mode=eval", f"checkpoint={run}", "chunk.execute=1", "eval.final_episodes=2")
    assert (result.code, "chunk.execute=1" in result.out) == (0, True)
    result = genpolicy("mode=eval", f"checkpoint={run}", "chunk.execute=4")
    assert (result.code, result.err) == (1, "genpolicy: chunk.execute=4: at most chunk.length=3\n")
    policy = load_policy(run)
    assert (policy.chunk_length, policy.action_size) == (3, 1)
    observation = np.zeros((4, 3), np.float32)
    chunks = policy.chunk(observation, seed=1)
    assert chunks.shape == (4, 3, 1)
    played = [policy.act(observation, seed=1) for _ in range(3)]
    assert np.array_equal(np.stack(played, 1), np.concatenate([chunks[:, :2], chunks[:, :1]], 1))
    with pytest.raises(UserError, match="4 chunks of actions are being played"):
        policy.act(observation[0])
    policy.reset()
    assert policy.act(observation[0], seed=1).shape == (1,)
    sampled = policy.sample(observation, 5, seed=1)
    assert sampled.shape == (4, 5, 3, 1)
    assert policy.log_prob(observation, sampled[:, 0]).shape == policy.q(observation, sampled[:, 0]).shape == (4,)
    with pytest.raises(UserError, match="must be"):
        policy.log_prob(observation, sampled[:, 0, 0])
    single = load_policy(run, "chunk.execute=1")
    for _ in range(2):
        np.testing.assert_array_equal(single.act(observation, seed=1), chunks[:, 0])
    with pytest.raises(UserError, match=r"chunk\.execute=4: at most chunk\.length=3"):
        load_policy(run, "chunk.execute=4")
    served = Served(load_policy(run))
    assert served.predict(observation).shape == (4, 1)
    assert served.predict(observation[:2], {"reset": True}).shape == (2, 1)


def test_likelihoods_are_those_of_chunks_of_one_episode():
    """Also where an algorithm draws chunks that go over the end of one, and leaves them out of its losses."""
    [(job, _)] = jobs(*SMALL, "algo=qc", "chunk.length=3", "dataset.held_out=0.2", "dataset.episodes=20")
    task = build(job.config.env)
    data = setup.load(job.config, task, torch.device("cpu"))
    evaluator = Evaluator(task, data, setup.fresh_algorithm(job.config, task, data.device), job.config)
    assert not data.sample(1000, torch.Generator().manual_seed(0))["valid"].all()
    assert evaluator.recorded["valid"].all()
    assert evaluator.held_out["valid"].all()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("algo=qc chunk.length=2 chunk.execute=3", "chunk.execute=3: at most chunk.length=2"),
        ("algo=qc chunk.length=2 critic.steps=2", "critic.steps=2: a chunk is one step of the critic; legal: 1"),
        ("algo=qc select=none", "select: Q-chunking chooses among several actions; legal: "),
        ("algo=awr chunk.length=2", "chunk.length=2: this algo takes single steps, as its returns are summed"),
    ],
)
def test_what_does_not_go_with_chunks_is_refused(words, reason):
    result, _ = tried("env=multi-goal", "tuned=none", *words.split())
    assert result.code == 1
    assert reason in result.err


def test_phases_of_other_sequences_are_not_shared():
    made = []
    for words in ((), ("chunk.length=2",), ("critic.steps=2",)):
        [(job, _)] = jobs("algo=gmpg", "tuned=none", "env=multi-goal", "network=mlp", *words)
        algorithm = assemble(job.config, 2, -torch.ones(2), torch.ones(2))
        made.append(recipe(job.config, algorithm.phases, "behaviour"))
    assert ("sequences" in made[0], made[1]["sequences"]) == (False, {"length": 2, "chunk": 2})
    assert made[2]["sequences"] == {"length": 2, "chunk": 1}
