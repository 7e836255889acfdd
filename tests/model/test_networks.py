"""Backbones over the actions of a chunk: the diffusion transformer and the temporal U-net."""

import itertools
from dataclasses import replace
from unittest import mock

import pytest
import torch
from command_line import genpolicy, jobs
from gaussian import make_policy
from small import random_transitions
from tiny import only_run, plain_words, records
from torch import nn
from torch._dynamo.utils import counters

from genpolicy.algo.algorithm import assemble
from genpolicy.algo.update import imitation
from genpolicy.dataset.sequences import Sequences
from genpolicy.dataset.transitions import Transitions
from genpolicy.model.flow import exact_divergence
from genpolicy.model.path import GVP
from genpolicy.network.dit import DiT
from genpolicy.network.unet1d import Convolution, Doubling, UNet1D
from genpolicy.objective.flow_matching import FlowMatching
from genpolicy.solver.fixed import RK4
from genpolicy.training.vectorised import VectorisedPhase

STEPS, ACTION, OBSERVATION = 3, 2, 2
SMALL = {DiT: {"width": 8, "blocks": 2, "heads": 2}, UNet1D: {"hidden": [16, 16]}}
WORDS = {"dit": "network.width=8 network.blocks=1 network.heads=2", "unet1d": "network.hidden=[16,16]"}


def made(cls, steps=STEPS, observation=OBSERVATION, size=0.3, **more):
    """A small network in float64, moved away from where it begins, which is in places 0."""
    torch.manual_seed(0)
    sizes = {"action_size": steps * ACTION, "observation_size": observation, "chunk_length": steps}
    network = cls(**sizes, **SMALL[cls] | more).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(size * torch.randn_like(parameter))
    return network


def given(steps=STEPS, observation=OBSERVATION, size=5):
    torch.manual_seed(1)
    shape = {"dtype": torch.float64}
    return (
        torch.randn(size, steps * ACTION, **shape),
        torch.rand(size, **shape),
        torch.randn(size, observation, **shape),
    )


@pytest.mark.parametrize("cls", SMALL)
@pytest.mark.parametrize(("times", "observation", "input_size"), itertools.product((0, 1, 2), (0, 2), (None, 0)))
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_shapes(cls, times, observation, input_size, steps):
    network = made(cls, steps, observation, num_times=times, input_size=input_size)
    x, t, seen = given(steps, observation)
    t = t if times == 1 else t[:, None].expand(-1, times)
    assert network(x, t, seen).shape == (5, steps * ACTION)
    assert network.input_size == network.action_size == steps * ACTION
    rows = torch.cat([network(x[i : i + 1], t[i : i + 1], seen[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(network(x, t, seen), rows)


def test_a_transformers_tokens_have_places_and_nothing_else_tells_them_apart():
    network, (x, t, observation) = made(DiT, 5), given(5)
    order = [3, 0, 4, 1, 2]
    plain, moved = network(x, t, observation), x.unflatten(1, (5, ACTION))[:, order].flatten(1)
    assert not torch.allclose(network(moved, t, observation), plain.unflatten(1, (5, ACTION))[:, order].flatten(1))
    with torch.no_grad():
        network.place.copy_(network.place[order])
    found = network(moved, t, observation).unflatten(1, (5, ACTION))
    torch.testing.assert_close(found, plain.unflatten(1, (5, ACTION))[:, order])


def test_a_transformer_begins_at_0_and_its_blocks_shut():
    torch.manual_seed(0)
    network = DiT(action_size=4, observation_size=2, chunk_length=2).double()
    x, t, observation = torch.randn(3, 4).double(), torch.rand(3).double(), torch.randn(3, 2).double()
    assert (network(x, t, observation) == 0).all()
    tokens, condition = torch.randn(3, 2, 128).double(), torch.randn(3, 128).double()
    assert torch.equal(network.transformer[0](tokens, condition), tokens)


def test_the_attention_is_torchs():
    block, x = made(DiT).transformer[0], torch.randn(5, 4, 8).double()
    theirs = nn.MultiheadAttention(8, 2, batch_first=True).double()
    with torch.no_grad():
        for ours, their in ((block.project.weight, theirs.in_proj_weight), (block.project.bias, theirs.in_proj_bias)):
            their.copy_(ours)
        theirs.out_proj.load_state_dict(block.mix.state_dict())
        torch.testing.assert_close(block.attention(x), theirs(x, x, x)[0])


@pytest.mark.parametrize(
    ("kernel", "stride", "steps"), [(3, 1, 5), (3, 2, 5), (3, 2, 4), (1, 1, 4), (5, 1, 2), (3, 2, 1)]
)
def test_a_convolution_is_torchs(kernel, stride, steps):
    convolution, x = Convolution(3, 4, kernel, stride), torch.randn(2, 3, steps)
    torch.testing.assert_close(convolution(x), nn.Conv1d.forward(convolution, x))


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_a_doubling_is_torchs_and_a_matrix_product(steps):
    """Not a kernel of cuDNN, which rounds to 10 bits on GPUs unless told otherwise, densities too."""
    doubling, x = Doubling(3, 4), torch.randn(2, 3, steps)
    expected = nn.ConvTranspose1d.forward(doubling, x)
    with mock.patch("torch.nn.functional.conv_transpose1d", side_effect=AssertionError):
        torch.testing.assert_close(doubling(x), expected)


@pytest.mark.parametrize(("hidden", "reach"), [([16], 9), ([16, 16], 4 + 2 * (8 + 2) + 5)])
def test_a_unet_sees_steps_nearby(hidden, reach):
    """Without its normalisation, which is over all steps: each convolution of three reaches one step further.

    Of one level there are 4 in the first blocks, 4 in the middle and 1 at the end, all of single steps.
    """
    steps = 64
    with mock.patch("torch.nn.GroupNorm", new=nn.Identity):  # whatever it is given
        network = made(UNet1D, steps, hidden=hidden, size=0.1)
    x, t, observation = given(steps, size=1)
    middle = slice(steps // 2 * ACTION, (steps // 2 + 1) * ACTION)
    jacobian = torch.func.jacrev(lambda x: network(x, t, observation)[0, middle])(x)[:, 0]
    seen = jacobian.unflatten(1, (steps, ACTION)).abs().amax((0, 2)).nonzero()[:, 0] - steps // 2
    assert -reach <= seen.min() <= -3
    assert 3 <= seen.max() <= reach
    if len(hidden) == 1:
        assert seen.tolist() == list(range(-reach, reach + 1))


@pytest.mark.parametrize("cls", SMALL)
def test_exact_divergences_and_their_gradients_are_those_of_differences(cls):
    network, (x, t, observation) = made(cls), given()
    time, units, h = t[0], torch.eye(x.shape[1], dtype=torch.float64), 1e-5

    def field(time, x):
        return network(x, time.expand(len(x)), observation)

    def divergence(x):
        return exact_divergence(field, time, x)[1]

    differences = [
        (field(time, x + h * unit) - field(time, x - h * unit))[:, i] / (2 * h) for i, unit in enumerate(units)
    ]
    torch.testing.assert_close(divergence(x), sum(differences), rtol=1e-4, atol=1e-4)
    point = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(divergence(point).sum(), point)
    differences = [(divergence(x + h * unit) - divergence(x - h * unit)) / (2 * h) for unit in units]
    torch.testing.assert_close(gradient, torch.stack(differences, 1), rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_the_likelihood_of_a_trained_policy_is_the_gaussians():
    """Of two actions of one chunk, which depend on each other; after 400 updates."""
    mean, covariance = torch.tensor([0.2, -0.3]), torch.tensor([[0.25, 0.15], [0.15, 0.16]])
    gaussian = torch.distributions.MultivariateNormal(mean, covariance)
    torch.manual_seed(0)
    network = DiT(action_size=2, observation_size=0, chunk_length=2, width=32, blocks=2)
    policy, generator = make_policy(GVP(), network, likelihood=RK4(steps=16)), torch.Generator().manual_seed(0)
    update = imitation(policy, FlowMatching(), 3e-3, schedule="cosine")
    shapes = {"observation": torch.Size([0]), "action": torch.Size([2])}
    for step in range(400):
        update(Transitions(gaussian.sample((256,)), shapes), generator, step / 400)
    action = gaussian.sample((500,))
    with torch.no_grad():
        found = policy.log_prob(torch.zeros(500, 0), action)
    assert (found.mean() - gaussian.log_prob(action).mean()).abs() < 0.05
    assert (found - gaussian.log_prob(action)).abs().mean() < 0.15


def chunked(name: str, *words: str, seeds: int = 1):
    """Algorithms of one command line with chunks of four actions, and their data."""
    [(job, _)] = jobs("env=multi-goal", "tuned=none", "chunk.length=4", f"network={name}", *WORDS[name].split(), *words)
    found = []
    for seed in range(seeds):
        torch.manual_seed(seed)
        found.append(assemble(job.config, 2, -torch.ones(2), torch.ones(2)))
    data = replace(random_transitions(), ends=torch.arange(32) % 8 == 7)
    return found, Sequences.of_transitions(data, 4, 4, 0.99, masked=found[0].masks and found[0].objective.masks)


@pytest.mark.parametrize("name", WORDS)
def test_seeds_together_are_those_alone(name):
    alone, data = chunked(name, "algo=bc", seeds=2)
    together, _ = chunked(name, "algo=bc", seeds=2)
    common = VectorisedPhase(together, 0)
    own, shared = ([torch.Generator().manual_seed(seed) for seed in range(2)] for _ in range(2))
    for step in range(5):
        for algorithm, generator in zip(alone, own, strict=True):
            algorithm.phases[0].update(data.sample(16, generator), generator, step)
        common([data.sample(16, generator) for generator in shared], shared, step)
    for one, other in zip(alone, together, strict=True):
        torch.testing.assert_close(dict(other.named_parameters()), dict(one.named_parameters()), rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", WORDS)
def test_an_update_is_one_graph(name, monkeypatch):
    original = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, mode, dynamic: original(f, backend="aot_eager", dynamic=dynamic))
    torch._dynamo.reset()
    counters.clear()
    [algorithm], data = chunked(name, "algo=bc")
    [phase], generator = algorithm.phases, torch.Generator().manual_seed(0)
    phase.compile("default")
    phase.update(data.sample(16, generator), generator, 0)
    assert counters["stats"]["unique_graphs"] == 1
    assert not counters["graph_break"]
    torch._dynamo.reset()


@pytest.mark.parametrize("name", WORDS)
@pytest.mark.parametrize("algo", ["qc", "td3_bc", "ofql", "idql"])
def test_chunked_algorithms_train(name, algo):
    small = ["critic.hidden=[8]"] + (["solver.steps=2"] if algo in ("qc", "idql") else [])
    [algorithm], data = chunked(name, f"algo={algo}", *small)
    generator, before = torch.Generator().manual_seed(0), algorithm.policy.network.state_dict()
    before = {name: value.clone() for name, value in before.items()}
    for phase in algorithm.phases:
        for step in range(8):  # the first ones open a transformer's blocks
            metrics = phase.update(data.sample(16, generator), generator, step)
            assert all(torch.isfinite(value) for value in metrics.values())
    changed = [not torch.equal(value, before[name]) for name, value in algorithm.policy.network.named_parameters()]
    assert sum(changed) > len(changed) / 2
    assert algorithm.act(torch.zeros(5, 2), generator).shape == (5, 8)


@pytest.mark.parametrize("name", WORDS)
def test_a_run_of_chunks(name, tmp_path):
    words = [word for word in plain_words(tmp_path) if not word.startswith("network.")]
    result = genpolicy(*words, "chunk.length=4", "budget=0.1", f"network={name}", *WORDS[name].split())
    assert result.code == 0, result.err
    assert "final/log_prob" in {metric for metric, _, _ in records(only_run(tmp_path))}


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (
            "network=unet1d",
            "network: convolves over the actions of a chunk; legal: chunk.length=2 and more, or network=dit|",
        ),
        ("network=unet1d chunk.length=2 network.kernel=2", "network.kernel=2: must be odd"),
        ("network=unet1d chunk.length=2 network.hidden=[20]", "network.hidden=[20]: legal: multiples of 8"),
        ("network=dit network.heads=3", "network.heads=3: must divide network.width=128"),
    ],
)
def test_what_is_refused(words, reason):
    result = genpolicy(*words.split())
    assert (result.code, result.err.count("\n")) == (1, 1)
    assert result.err.startswith(f"genpolicy: {reason}")
