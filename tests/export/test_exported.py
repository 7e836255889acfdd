"""Every algorithm's policy as a graph: what it takes, and that it does what the policy does."""

from unittest import mock

import numpy as np
import pytest
import torch
from command_line import jobs
from small import ALGORITHMS, shrink

from genpolicy.algo.algorithm import assemble
from genpolicy.errors import UserError
from genpolicy.export.graph import FORMATS, Graph, given, trace
from genpolicy.export.parity import compare


def configured(*words):
    [(job, _)] = jobs("tuned=none", "network=mlp", "env=multi-goal", *words)
    shrink(job.config)
    return job.config


def actor_of(config):
    torch.manual_seed(0)
    return assemble(config, 2, -2 * torch.ones(2), 2 * torch.ones(2), 0).actor().eval().requires_grad_(False)


def graph_of(config, format="torch_export", batch=None):
    actor = actor_of(config)
    with torch.no_grad():
        actor.scaling.mean += torch.tensor([3.0, -1.0])
        actor.scaling.std *= 5
    return actor, FORMATS[format](trace(actor, config.chunk.length, batch), 1)


def observations(count=1000):
    return 3 + 5 * torch.randn(count, 2, generator=torch.Generator().manual_seed(1))


# The others are in the slow test, and the policy of a flow in tests/modes/test_export.py.
QUICK = {
    "algo=td3_bc": ("GaussianPolicy", ["observation"]),
    "algo=td3_bc observation_parts=[1,1]": ("GaussianPolicy", ["observation"]),
    "algo=qc_fql chunk.length=3": ("OneStepPolicy", ["observation", "noise"]),
    "algo=gtp": ("TrajectoryPolicy", ["observation", "noise"]),
    "algo=dtql": ("TanhGaussianPolicy", ["observation", "noise", "choice"]),
}


@pytest.mark.parametrize("words", QUICK)
def test_a_graph_does_what_the_policy_does(words):
    config, (name, inputs) = configured(*words.split()), QUICK[words]
    actor, graph = graph_of(config)
    assert type(actor.policy).__name__ == name
    assert list(graph.inputs) == inputs
    found = compare(actor, graph, observations(), None)
    assert found.observations == 1000
    assert found.share < 1e-5
    assert found.ties <= 1
    seen = given(actor, observations(7), torch.Generator().manual_seed(2))
    action = graph({name: seen[name].numpy() for name in graph.inputs})
    assert action.shape == ((7, 3, 2) if config.chunk.length == 3 else (7, 2))
    assert len(np.unique(action)) > 7


@pytest.mark.slow
def test_every_algorithm_s_policy_is_exported():
    """One of those with the same classes of policy and solver, and one of each class of policy as ONNX."""
    alike = {}
    for name in ALGORITHMS:
        actor = actor_of(configured(f"algo={name}"))
        solver = getattr(actor.policy, "solver", None)  # selections are in the quick tests
        alike.setdefault((type(actor.policy), type(solver)), name)
    as_onnx = {kind: name for (kind, *_), name in reversed(alike.items())}
    assert {"GuidedPolicy", "EditedPolicy", "EndPolicy", "ConsistencyPolicy"} <= {kind.__name__ for kind in as_onnx}
    for name in alike.values():
        actor, graph = graph_of(configured(f"algo={name}"), "onnx" if name in as_onnx.values() else "torch_export")
        found = compare(actor, graph, observations(), None)
        assert found.share < 1e-4, name
        assert found.ties <= 3, name


class Wrong(Graph):
    """Another candidate than the policy's at the first of the observations."""

    runtime, suffix, inputs = "nothing", "", dict.fromkeys(("observation", "noise"))

    def __init__(self, actor):
        self.actor = actor

    def __call__(self, inputs):
        observation, noise = (torch.from_numpy(inputs[name]) for name in self.inputs)
        chosen = self.actor(observation, noise)
        each = [self.actor(observation[:1], noise[:1, [number] * 3]) for number in range(3)]
        return torch.cat([max(each, key=lambda action: (action - chosen[:1]).norm()), chosen[1:]]).numpy()

    def content(self, about):
        return b""


def test_another_candidate_is_a_difference_unless_their_values_are_the_same():
    actor = actor_of(configured("algo=ifql"))
    found = compare(actor, Wrong(actor), observations(20), None)
    assert found.share > 1e-3
    assert found.ties == 0
    with torch.no_grad():
        for parameter in actor.critic.parameters():
            parameter.zero_()
    found = compare(actor, Wrong(actor), observations(20), None)
    assert found.share == found.largest == 0
    assert found.ties == 1


def test_what_torch_cannot_trace_is_said():
    actor = actor_of(configured("algo=fql"))

    def actions(policy, noise, observation):
        return noise[:, 0] if noise.sum() > 0 else -noise[:, 0]

    with mock.patch.object(type(actor.policy), "actions", actions):
        assert actor(observations(2), actor.draw_noise(2)).shape == (2, 2)
        with pytest.raises(UserError, match=r"^mode=export: torch cannot trace this policy \(\w+: [^\n]+\)$"):
            trace(actor, 1, None)
