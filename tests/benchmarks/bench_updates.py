"""Updates of each kind: beside their matrix products, a plain perceptron of as many parameters, and d3rlpy's."""

import itertools

import numpy as np
import pytest
import torch
from small import ALGORITHMS, begun
from torch import nn

from genpolicy.algo import compilation
from genpolicy.algo.compilation import CUDA_GRAPHS, WARM_UP
from genpolicy.solver.fixed import Midpoint
from genpolicy.training.state import State
from genpolicy.training.vectorised import VectorisedPhase

RESIDUAL = 1_626_883  # parameters of the papers' network at Hopper's sizes


@pytest.fixture(scope="module")
def updates(made):
    """The updates by name, of (batch, generator)."""
    gmpo, gmpg, joint = made("algo=gmpo", "model=gvp"), made("algo=gmpg", "model=gvp"), made("algo=gtp", "network=mlp")
    found = {phase.name: phase.update for phase in gmpg.phases}
    found = {"behaviour": found["behaviour"], "critic": found["critic"], "gmpo": gmpo.phases[-1].update}
    found |= {
        "gtp": joint.phases[0].update,
        "diffusion_bc": made("algo=bc", "model=edm", "network=mlp").phases[0].update,
    }
    return found


@pytest.fixture(scope="module")
def generator(device):
    return torch.Generator(device).manual_seed(0)


def perceptron(device):
    """One update of a perceptron of four hidden layers with as many parameters as the papers' network."""
    width = next(width for width in range(1024) if 30 * width + 3 * width * (width + 1) + 3 * width >= RESIDUAL)
    sizes = [30, width, width, width, width]
    layers = [layer for pair in itertools.pairwise(sizes) for layer in (nn.Linear(*pair), nn.SiLU())]
    network = nn.Sequential(*layers, nn.Linear(width, 3)).to(device)
    optimizer = torch.optim.Adam(network.parameters(), fused=True)

    def update(x):
        optimizer.zero_grad()
        network(x).square().mean().backward()
        optimizer.step()

    return update


@pytest.fixture(scope="module")
def mode(device):
    """How an update is compiled: on a GPU as CUDA graphs."""
    return "reduce-overhead" if device.type == "cuda" else "default"


def cuda_graphs(device):
    """The mode of CUDA graphs, for a GPU."""
    if device.type != "cuda":
        pytest.skip("CUDA graphs need a GPU")
    return CUDA_GRAPHS


@pytest.mark.parametrize("what", ["behaviour", "gmpo", "perceptron", "products"])
@pytest.mark.parametrize("batch", [256, 1024, 4096])
def test_regression(row, products, updates, transitions, generator, device, batch, what):
    group, rounds, data = f"update of the policy by regression, batch {batch}", 12800 // batch + 3, transitions(batch)
    if what == "perceptron":
        x, update = torch.randn(batch, 30, device=device), perceptron(device)
        row(group, lambda: update(x), rounds)
    elif what == "products":
        products(group, lambda: updates["behaviour"](data, generator, 0.0), rounds, batch)
    else:
        row(group, lambda: updates[what](data, generator, 0.0), rounds)


@pytest.mark.parametrize("what", ["critic", "products"])
@pytest.mark.parametrize("batch", [256, 4096])
def test_critic(row, products, updates, transitions, generator, batch, what):
    data = transitions(batch)
    measure = row if what == "critic" else lambda *given: products(*given, batch, side=256)
    measure(f"update of the critic, batch {batch}", lambda: updates["critic"](data, generator, 0.0), 51200 // batch)


@pytest.mark.parametrize("what", ["update", "graphs", "passes"])
@pytest.mark.parametrize("name", ALGORITHMS)
def test_algorithm(row, passes, made, transitions, generator, device, name, what):
    """The last phase of each algorithm; as many updates as the rarest of them is made at one of."""
    *_, phase = made(f"algo={name}").phases
    if what == "graphs":
        phase.compile(cuda_graphs(device))
    data = begun(phase, transitions(256))
    count = max(update.every for update in phase.updates.values())
    measure = row if what != "passes" else lambda *given: passes(*given, 256)

    def updates():
        for step in range(count):
            phase.update(data, generator, step)

    if what == "graphs":
        for _ in range(WARM_UP + 1):  # which records them
            updates()
    measure(f"{count} x update of {name}, batch 256", updates, 10)


@pytest.mark.parametrize("what", ["whole", "beside_graphs"])
@pytest.mark.parametrize("name", ["iql", "td3_bc", "fql", "gmpo", "gtp", "rebrac", "diffusion_ql"])
def test_host(row, made, transitions, generator, monkeypatch, name, what):
    """100 updates of small networks, and what the host does for them beside CUDA graphs, their operations left out."""
    small = ["network.hidden=[8,8]", "critic.hidden=[8,8]", *(["algo.policy_hidden=[8,8]"] if name == "fql" else [])]
    *_, phase = made(f"algo={name}", "network=mlp", *small).phases
    if what == "beside_graphs":
        monkeypatch.setattr(compilation, "recorded", lambda function: ((lambda: None), function()))
        monkeypatch.setattr(compilation, "beside", lambda function: function())
        phase.compile(CUDA_GRAPHS)
    data, state, numbers = begun(phase, transitions(10_000)), State(), itertools.count()

    def updates():
        for number in itertools.islice(numbers, 100):
            state.accumulate(phase.update(data.sample(256, generator), generator, number))

    row(f"100 updates of {name} as the host makes them", updates, 9)


@pytest.mark.parametrize("what", ["exact", "exact_16_steps", "hutchinson", "products"])
def test_policy_gradient(row, products, made, transitions, generator, what):
    words = ["algo=gmpg", "model=gvp"] + (["algo.hutchinson=true"] if what == "hutchinson" else [])
    algorithm, data = made(*words), transitions(256)
    algorithm.policy.solver = Midpoint(steps=16 if what == "exact_16_steps" else 8)
    update = algorithm.phases[-1].update
    measure = row if what != "products" else lambda *given: products(*given, 256)
    measure("update of GMPG, batch 256, 8 midpoint steps", lambda: update(data, generator, 0), 3)


@pytest.mark.parametrize(
    "what", ["alone", "graphs", "compiled", "five_seeds", "five_seeds_graphs", "five_seeds_compiled"]
)
@pytest.mark.parametrize(("phase", "network"), [("critic", "mlp"), ("policy", "mlp"), ("policy", "residual")])
def test_compiled_and_at_once(row, made, mode, transitions, device, phase, network, what):
    """GMPO's updates as `compile=` and `seeds=0,1,2,3,4` make them, on a GPU also as CUDA graphs."""
    group = [made("algo=gmpo", "model=gvp", f"network={network}") for _ in range(5 if "five" in what else 1)]
    number, batches = ["critic", "policy"].index(phase), [transitions(256)] * len(group)
    generators = [torch.Generator(device).manual_seed(seed) for seed in range(len(group))]
    if "graphs" in what or "compiled" in what:
        for algorithm in group:
            algorithm.phases[number].compile(cuda_graphs(device) if "graphs" in what else mode)
    if len(group) > 1:
        common = VectorisedPhase(group, number)
    else:
        [algorithm] = group

        def common(batches, generators, step):
            algorithm.phases[number].update(*batches, *generators, step)

    for _ in range(WARM_UP + 1):
        common(batches, generators, 0)
    row(f"update of GMPO's {phase}, {network}, batch 256", lambda: common(batches, generators, 0), 30)


@pytest.mark.parametrize("what", ["update", "products", "action"])
@pytest.mark.parametrize("network", ["mlp", "residual", "dit", "unet1d"])
def test_backbone(row, products, made, transitions, generator, network, what):
    """BC of chunks of four actions, and one chunk that is played."""
    algorithm, data = made("algo=bc", "model=gvp", "chunk.length=4", f"network={network}"), transitions(256, 4)
    size = sum(parameter.numel() for parameter in algorithm.policy.parameters())
    [phase] = algorithm.phases
    if what == "action":
        row("one chunk of four actions", lambda: algorithm.act(data.observation[:1], generator), 10, parameters=size)
    else:
        measure = row if what == "update" else lambda *given: products(*given, 256)
        group = "update of BC, chunks of four actions, batch 256"
        measure(group, lambda: phase.update(data, generator, 0), 20)


@pytest.mark.parametrize("what", ["gtp", "diffusion_bc_and_critic"])
def test_trajectory(row, updates, transitions, generator, what):
    data, joint = transitions(256), updates["gtp"]
    if what == "gtp":
        row("update of GTP, batch 256", lambda: joint(data, generator, 1), 30)
    else:
        parts = updates["diffusion_bc"], joint.updates["critic"]
        row("update of GTP, batch 256", lambda: [part(data, generator, 0.5) for part in parts], 30)


@pytest.mark.parametrize("what", ["IQL", "TD3PlusBC"])
def test_peer(row, what):
    """d3rlpy's updates of critic and policy, from a batch that is ready; TD3+BC moves its policy at the second."""
    import d3rlpy  # installed by `make bench` alone

    draw = np.random.default_rng(0)
    numbers = [draw.standard_normal((1000, size)).astype("f") for size in (11, 3, 1)]
    data = d3rlpy.dataset.MDPDataset(*numbers, np.zeros(1000), timeouts=np.arange(1000) % 100 == 99)
    algorithm = getattr(d3rlpy.algos, f"{what}Config")().create(device="cpu:0")
    algorithm.build_with_dataset(data)
    batch = data.sample_transition_batch(256)
    row(f"two updates of {what}, batch 256", lambda: [algorithm.update(batch) for _ in range(2)], 60)


@pytest.mark.parametrize(("peer", "algo"), [("IQL", "iql"), ("TD3PlusBC", "td3_bc")])
def test_like_peer(row, made, transitions, generator, peer, algo):
    """The same with as many units here."""
    algorithm, data = made(f"algo={algo}", "network.hidden=[256,256]", "critic.hidden=[256,256]"), transitions(256)
    [phase] = algorithm.phases
    row(f"two updates of {peer}, batch 256", lambda: [phase.update(data, generator, step) for step in (0, 1)], 60)
