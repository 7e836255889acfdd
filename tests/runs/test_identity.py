"""What makes another run: all that trained weights depend on, and nothing else."""

import functools

import pytest
import torch
from command_line import genpolicy, jobs
from omegaconf import OmegaConf
from small import ALGORITHMS, begun, random_transitions, sizes
from tiny import only_run, same, undrawn, words

from genpolicy.algo.algorithm import assemble
from genpolicy.config.schema import locate
from genpolicy.runs import checkpoint
from genpolicy.runs.identity import identity

ALWAYS = {
    "env.family",
    "seed",
    "seeds",
    "mode",
    "study",
    "device",
    "threads",
    "compile",
    "overwrite",
    "checkpoint",
    "sweep",
    "follow",
}
ALWAYS |= {"log_every", "checkpoint_seconds", "paths", "eval", "check", "collect", "inspect", "report", "tracking"}
ALWAYS |= {"launch", "search", "genpolicy", "select", "likelihood", "env.reference_min", "env.reference_max"}
ALWAYS |= {"phases", "init", "export"}
# Without chunks, or online training:
ALWAYS |= {"chunk.execute", "online.start", "online.updates", "online.offline_ratio", "online.noise", "online.random"}
ALWAYS |= {"online.simulators", "online.offline_ratio_end"}
# What else training does not use, by algorithm.
FREE = {
    "bc": {"solver", "critic", "model.divergence"},
    "gmpo": {"solver", "model.divergence"},
    "idql": {"solver", "model.divergence"},
    "sfbc": {"model.divergence"},  # its critic takes samples of the behaviour model
    "edp": {"model.divergence"},
    "srpo": {"solver", "model.divergence"},
    "gmpg": {"solver.recompute", "algo.chunk"},
    "gmpg_matching": {"solver.recompute", "algo.chunk", "model.divergence"},
    "qgpo": {"solver.recompute", "algo.guidance_scale", "model.divergence"},
    "diffusion_ql": {"model.divergence"},
    "td3_bc": {"solver"},  # its model has no flow
    "awr": {"solver", "critic"},
}


def leaves(node, path=()):
    for key, value in node.items():
        if isinstance(value, dict):
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key), value


@functools.cache
def composed(name):
    own = ["model.path.steps=3"] if name == "bdpo" else []  # whose solver takes the steps of its chain
    ((job, _),) = jobs(f"algo={name}", "tuned=none", "network=mlp", "env=multi-goal", "solver.steps=3", *own)
    return job.config


@pytest.mark.slow
@pytest.mark.parametrize("name", FREE)
def test_of_every_setting_it_is_known_whether_it_makes_another_run(name):
    plain = OmegaConf.to_container(composed(name))
    changed = OmegaConf.create(plain)
    own, found, expected = identity(changed), set(), set()
    for path, value in leaves(plain):
        if path[-1] == "_target_":
            continue
        node = changed
        for part in path[:-1]:
            node = node[part]
        dotted = [".".join(path[: length + 1]) for length in range(len(path))]
        node[path[-1]] = f"not {value}"
        if identity(changed) == own:
            found.add(dotted[-1])
        node[path[-1]] = value
        if not (ALWAYS | FREE[name]).isdisjoint(dotted):
            expected.add(dotted[-1])
    assert identity(changed) == own
    assert found == expected
    assert len(expected) > 50


def updated(config) -> dict:
    """The weights after two updates of each phase: GMPG's first knows nothing of its densities' error."""
    config = config.copy()
    for key, size in sizes(config).items():
        if not key.startswith(("solver", "select", "likelihood")):
            OmegaConf.update(config, key, size)
    torch.manual_seed(0)
    algorithm, data = assemble(config, 2, -torch.ones(2), torch.ones(2)), random_transitions()
    generator = torch.Generator().manual_seed(0)
    for phase in algorithm.phases:
        source = begun(phase, data)
        for step in (phase.steps // 2, phase.steps // 2 + 1):
            phase.update(source.sample(8, generator), generator, step)
    return {name: value for name, value in algorithm.state_dict().items() if not name.startswith("_extra")}


@pytest.mark.slow
@pytest.mark.parametrize("name", ALGORITHMS)
def test_what_makes_another_run_makes_other_weights_and_nothing_else_does(name):
    config = composed(name)
    changes = [("solver.steps", 2), ("likelihood.steps", 2)]
    if "guidance_scale" in config.algo:
        changes.append(("algo.guidance_scale", 2.0))
    if "divergence" in config.model:
        changes.append(("model.divergence", "hutchinson"))
    if config.algo._target_ != "genpolicy.algo.bc.BC":
        kinds = ("Greedy", "Softmax" if locate(config.algo._target_).selects else "NoSelection")
        changes += [("select", {"_target_": f"genpolicy.select.selection.{kind}"}) for kind in kinds]
    weights = updated(config)
    for key, value in changes:
        changed = config.copy()
        OmegaConf.update(changed, key, value, merge=False)
        assert same(updated(changed), weights) == (identity(changed) == identity(config)), (key, value)


def test_the_default_task_of_ogbench_is_one_run_by_name_and_by_number():
    """Its identity is that of runs that were made without the number."""
    tasks = ("env.task=null", "env.task=1", "env.task=2", "env.task=3")
    found = [jobs("env=ogbench-cube-double-play", task)[0][0].config for task in tasks]
    assert [config.env.task for config in found] == [None, 1, None, 3]
    assert [identity(config) for config in found].count(identity(found[0])) == 2


def test_number_length_and_kind_of_evaluations_change_no_weight(tmp_path):
    few = ("eval.per_phase=1", "eval.episodes=1", "eval.final_episodes=1", "likelihood=euler", "seed=3")
    many = (
        "eval.per_phase=7",
        "eval.episodes=5",
        "eval.final_episodes=3",
        "eval.steps=[1,3]",
        "select=softmax",
        "seed=3",
    )
    many += ("eval.log_prob_actions=50", "likelihood=heun", "solver=euler")
    saved = []
    for number, more in enumerate((few, many)):
        short = ("algo.critic_steps=30", "algo.policy_steps=30", "eval.log_prob_actions=20", *more)
        with undrawn():
            result = genpolicy(*dict.fromkeys(words(tmp_path / str(number), *short)))
        assert result.code == 0, result.err
        saved.append(checkpoint.load(only_run(tmp_path / str(number)) / "last.pt"))
    assert same(saved[0]["algorithm"], saved[1]["algorithm"])
    assert same(saved[0]["generators"], saved[1]["generators"])


ACTING = [
    ("algo=gmpo", ("solver.steps=3", "solver.steps=4", "solver=euler"), 3),
    ("algo=gmpo", ("select=none", "select=greedy", "select=softmax"), 3),
    ("algo=fql", ("select=none", "select=softmax"), 2),
    ("algo=srpo", ("solver.steps=3", "solver.steps=4"), 1),  # its policy takes one step
    ("algo=iql", ("solver=euler", "solver=rk4"), 1),  # and a Gaussian none
    ("algo=gmpo", ("likelihood.steps=3", "likelihood.steps=4"), 1),
    ("algo=qc chunk.length=4", ("chunk.execute=null", "chunk.execute=4", "chunk.execute=1"), 2),
]


@pytest.mark.parametrize(("algo", "changes", "count"), ACTING)
def test_what_a_policy_acts_by_makes_another_run_where_it_learns_of_its_own_episodes(algo, changes, count):
    """As the collected transitions depend on it; offline only evaluations do."""
    common = [*algo.split(), "tuned=none", "env=multi-goal", "network=mlp"]
    for online, expected in ((["online.steps=100", "online.start=10"], count), ([], 1)):
        found = [jobs(*common, *online, change)[0][0].config for change in changes]
        assert len({identity(config) for config in found}) == expected
