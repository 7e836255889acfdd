"""Updates and actions beside those of CORL, FQL's and IDQL's repositories: in turn, in processor time of one thread.

    python tests/benchmarks/peers.py --checkouts=<folder of CORL, fql and IDQL> --jax=<python with jax> [<row> ...]

prints a line a row: median milliseconds, and in brackets the median of a side's time over ours; "products" are matrix
products of as many operations as ours alone, "by hand" is what our policy does in as few calls of torch as that
takes, and "exported" what `mode=export` makes of it, run by ONNX Runtime. Each side is a process that waits while
another one is measured. Python with jax needs flax, optax, distrax and ml_collections.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import subprocess
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

OBSERVATION, ACTION = 11, 3  # Hopper's
SMALL = ("network.hidden=[256,256]", "critic.hidden=[256,256]")
# By name: what is measured ("update", or a number of observations to act at), the words of our command, the peers.
ROWS: dict[str, tuple[str | int, tuple[str, ...], tuple[str, ...]]] = {
    "iql": ("update", ("algo=iql", *SMALL), ("corl_iql", "fql_iql")),
    "td3_bc": ("update", ("algo=td3_bc", *SMALL), ("corl_td3_bc",)),
    "fql_2x256": (
        "update",
        ("algo=fql", *SMALL, "algo.policy_hidden=[256,256]", "critic.layer_norm=false"),
        ("fql_fql_small",),
    ),
    "fql_4x512": ("update", ("algo=fql",), ("fql_fql",)),
    "ifql_4x512": ("update", ("algo=ifql",), ("fql_ifql",)),
    "idql": ("update", ("algo=idql", "algo.critic_batch_size=256", "algo.behaviour_batch_size=256"), ("idql_idql",)),
    "iql_act_1": (1, ("algo=iql", *SMALL), ("corl_iql", "fql_iql")),
    "fql_act_1": (1, ("algo=fql",), ("fql_fql",)),
    "ifql_act_1": (1, ("algo=ifql",), ("fql_ifql",)),
    "idql_act_1": (1, ("algo=idql",), ("idql_idql",)),
    "iql_act_1000": (1000, ("algo=iql", *SMALL), ("corl_iql", "fql_iql")),
    "fql_act_1000": (1000, ("algo=fql",), ("fql_fql",)),
}
ONE_NETWORK = ("iql_act_1", "fql_act_1", "iql_act_1000", "fql_act_1000")  # what these rows' policies are
BATCH, TURN_MS = 256, 100.0


def batch(size: int = BATCH) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    return {
        "observations": draw.standard_normal((size, OBSERVATION), dtype=np.float32),
        "actions": draw.uniform(-1, 1, (size, ACTION)).astype(np.float32),
        "rewards": draw.standard_normal(size, dtype=np.float32),
        "next_observations": draw.standard_normal((size, OBSERVATION), dtype=np.float32),
        "masks": np.ones(size, np.float32),
    }


def ours(row: str, what: str = "ours") -> Callable[[], Any]:
    """One of our updates or actions, "exported" ones, or "products" of 256 or 512 rows and columns of as many
    operations."""
    import torch
    from command_line import jobs
    from torch.utils.flop_counter import FlopCounterMode

    from genpolicy.algo.algorithm import assemble
    from genpolicy.dataset.transitions import Transitions
    from genpolicy.export.graph import OnnxGraph, trace
    from genpolicy.export.parity import playing
    from genpolicy.system import process

    torch.set_num_threads(1)
    process.keep_freed_memory()  # as the command does
    kind, words, _ = ROWS[row]
    [(job, _)] = jobs("env=hopper-medium-v2", "tuned=none", *words)
    torch.manual_seed(0)
    algorithm = assemble(job.config, OBSERVATION, -torch.ones(ACTION), torch.ones(ACTION))
    generator, steps = torch.Generator().manual_seed(0), itertools.count()
    if kind == "update":
        data = {name.removesuffix("s"): value for name, value in batch().items() if name != "masks"}
        transitions = Transitions.of(data | {"terminated": np.zeros(BATCH)})
        for phase in algorithm.phases:
            phase.compile(job.config.compile)

        def call() -> None:
            step = next(steps)
            for phase in algorithm.phases:
                phase.update(transitions, generator, step)

    else:
        array = batch(int(kind))["observations"]
        if what == "exported":
            return playing(OnnxGraph(trace(algorithm.actor(), 1, len(array)), 1), array)
        observation = torch.from_numpy(array)

        def call() -> None:
            algorithm.act(observation, generator)

    if what == "ours":
        return call
    rounds = 2  # of which one moves a delayed policy
    with FlopCounterMode(display=False) as counter:
        for _ in range(rounds):
            call()
    rows = BATCH if kind == "update" else int(kind) * algorithm.selection.num_candidates
    side = 256 if set(SMALL) <= set(words) else 512
    left, right = torch.randn(rows, side), torch.randn(side, side)
    repetitions = max(1, round(counter.get_total_flops() / rounds / (2 * rows * side * side)))
    out = left @ right
    return lambda: [torch.mm(left, right, out=out) for _ in range(repetitions)]


def by_hand(row: str) -> Callable[[], Any]:
    """Actions of our policy of one network, without a module or a check."""
    import torch
    from torch.nn import functional

    ours(row)  # for threads and memory
    kind, words, _ = ROWS[row]
    sizes, gaussian = (256, 256) if set(SMALL) <= set(words) else (512,) * 4, "algo=iql" in words
    inputs = OBSERVATION + (0 if gaussian else ACTION)
    layers = [torch.nn.Linear(*pair) for pair in itertools.pairwise((inputs, *sizes, ACTION))]
    weights = [(layer.bias.detach(), layer.weight.detach().t()) for layer in layers]
    observation, high = torch.from_numpy(batch(int(kind))["observations"]), torch.ones(ACTION)
    low, mean, std = -high, torch.zeros(OBSERVATION), torch.ones(OBSERVATION)
    noise, generator = torch.empty(int(kind), ACTION), torch.Generator().manual_seed(0)

    def act() -> torch.Tensor:
        with torch.no_grad():
            x = (observation - mean) / std
            x = x if gaussian else torch.cat([noise.normal_(generator=generator), x], -1)
            for bias, weight in weights[:-1]:
                x = torch.addmm(bias, x, weight)
                x = x.relu_() if gaussian else functional.gelu(x, approximate="tanh")
            bias, weight = weights[-1]
            x = torch.addmm(bias, x, weight)
            return x.tanh_() if gaussian else x.clamp_(low, high)

    return act


def corl(name: str, kind: str | int) -> Callable[[], Any]:
    import torch

    torch.set_num_threads(1)
    for module in ("d4rl", "gym", "wandb", "pyrallis"):
        sys.modules[module] = mock.MagicMock()
    adam, data = torch.optim.Adam, {key: torch.from_numpy(value) for key, value in batch().items()}
    given = [data["observations"], data["actions"], data["rewards"][:, None], data["next_observations"]]
    given.append(1 - data["masks"][:, None])
    if name == "iql":
        from algorithms.offline import iql as reference

        q, v = reference.TwinQ(OBSERVATION, ACTION), reference.ValueFunction(OBSERVATION)
        actor = reference.GaussianPolicy(OBSERVATION, ACTION, 1.0)
        parts = [part for module in (actor, q, v) for part in (module, adam(module.parameters(), lr=3e-4))]
        agent = reference.ImplicitQLearning(1.0, *parts)
    else:
        from algorithms.offline import td3_bc as reference

        actor, *critics = (
            reference.Actor(OBSERVATION, ACTION, 1.0),
            *(reference.Critic(OBSERVATION, ACTION) for _ in range(2)),
        )
        parts = [part for module in (actor, *critics) for part in (module, adam(module.parameters(), lr=3e-4))]
        agent = reference.TD3_BC(1.0, *parts)
    if kind == "update":
        return lambda: agent.train(given)
    observation = torch.from_numpy(batch(int(kind))["observations"])
    actor.eval()

    def act() -> None:  # its own function takes one observation
        with torch.no_grad():
            found = actor(observation)
            (found if torch.is_tensor(found) else found.mean).clamp(-1, 1).numpy()

    return act


def updating(agent: Any, data: dict) -> Callable[[], None]:
    """Updates of a JAX agent on one batch, each waited for."""
    import jax

    def update() -> None:
        nonlocal agent
        agent, info = agent.update(data)
        jax.block_until_ready(info)

    return update


def fql(name: str, kind: str | int) -> Callable[[], Any]:
    import importlib

    import jax

    name, _, small = name.partition("_")
    reference = importlib.import_module(f"agents.{name}")
    config = reference.get_config()
    if name == "iql" or small:
        config.update(actor_hidden_dims=(256, 256), value_hidden_dims=(256, 256), layer_norm=False)
    data = {key: jax.numpy.asarray(value) for key, value in batch().items()}
    cls = {"fql": "FQLAgent", "iql": "IQLAgent", "ifql": "IFQLAgent"}[name]
    agent = getattr(reference, cls).create(0, data["observations"][:1], data["actions"][:1], config)
    if kind == "update":
        return updating(agent, data)
    observation, keys = jax.numpy.asarray(batch(int(kind))["observations"]), jax.random.PRNGKey(0)
    if name == "ifql":  # which chooses for one observation
        observation = observation[0]
    return lambda: jax.block_until_ready(agent.sample_actions(observation, seed=keys))


def idql(name: str, kind: str | int) -> Callable[[], Any]:
    import jax

    class Box:
        def __init__(self, size: int):
            self.shape = (size,)

        def sample(self) -> np.ndarray:
            return np.zeros(self.shape, np.float32)

    for module in ("gym", "gym.spaces", "gym.utils", "d4rl", "mjrl", "dmcgym", "wandb"):
        sys.modules[module] = mock.MagicMock()
    sys.modules["jaxrl5.networks.pixel_multiplexer"] = mock.MagicMock()
    for module in ("jaxrl5.agents", "jaxrl5.data", "jaxrl5.agents.ddpm_iql_simple"):  # without their other learners
        sys.modules[module] = package = types.ModuleType(module)
        package.__path__ = [str(Path(sys.path[0], *module.split(".")))]
    from jaxrl5.agents.ddpm_iql_simple import ddpm_iql_learner as learner

    agent = learner.DDPMIQLLearner.create(
        0, Box(OBSERVATION), Box(ACTION), actor_dropout_rate=0.1, actor_layer_norm=True, decay_steps=10**6, N=64
    )
    data = {key: jax.numpy.asarray(value) for key, value in batch().items()}
    if kind == "update":
        return updating(agent, data)
    observation = batch(1)["observations"][0]
    return lambda: jax.block_until_ready(agent.eval_actions(observation)[0])


PEERS = {"corl": ("CORL", corl), "fql": ("fql", fql), "idql": ("IDQL", idql)}


def serve(side: str, row: str) -> None:
    """For each line, a number of calls: the milliseconds of processor time that one takes."""
    if side in ("ours", "products", "exported"):
        call = ours(row, side)
    elif side == "by hand":
        call = by_hand(row)
    else:
        family, _, name = side.partition("_")
        call = PEERS[family][1](name, ROWS[row][0])
    for line in sys.stdin:
        begun, count = time.process_time(), int(line)
        for _ in range(count):
            call()
        print((time.process_time() - begun) / count * 1e3, flush=True)


class Side:
    def __init__(self, side: str, row: str, asked: argparse.Namespace):
        family, helpers = side.partition("_")[0], Path(__file__).resolve().parents[1] / "helpers"
        folder = [str(Path(asked.checkouts).resolve() / PEERS[family][0])] if family in PEERS else [str(helpers)]
        python = asked.jax if family in ("fql", "idql") else sys.executable
        flags = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
        env = os.environ | {"OMP_NUM_THREADS": "1", "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
        env["PYTHONPATH"] = os.pathsep.join(folder)
        code = f"import sys; sys.path[:0] = {[*folder, str(Path(__file__).parent)]!r}; import peers; "
        self.process = subprocess.Popen(
            [python, "-W", "ignore", "-c", f"{code}peers.serve({side!r}, {row!r})"],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, count: int) -> float:
        self.process.stdin.write(f"{count}\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkouts", required=True)
    parser.add_argument("--jax", default=sys.executable)
    parser.add_argument("--rounds", type=int, default=11, help="turns of each side")
    parser.add_argument("rows", nargs="*")
    asked = parser.parse_args()
    for row in asked.rows or ROWS:
        kind, _, peers = ROWS[row]
        names = ["ours", "products", *(["by hand"] if row in ONE_NETWORK else [])]
        names += [*(["exported"] if isinstance(kind, int) else []), *peers]
        sides = {name: Side(name, row, asked) for name in names}
        counts = {}
        for name, side in sides.items():
            side(20)  # compiles
            counts[name] = 2 * max(1, round(TURN_MS / 2 / side(10)))
        found = [{name: side(counts[name]) for name, side in sides.items()} for _ in range(asked.rounds)]
        told = [f"{name} {statistics.median(each[name] for each in found):.3g} ms" for name in names]
        for number, name in enumerate(names[1:], 1):
            told[number] += f" ({statistics.median(each[name] / each['ours'] for each in found):.2f})"
        print(f"{row}: {', '.join(told)}", flush=True)
        for side in sides.values():
            side.process.stdin.close()
            side.process.wait()


if __name__ == "__main__":
    main()
