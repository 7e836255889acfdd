"""GMPG's estimators of the policy gradient beside adjoint matching (QAM): noise, error, cost, and what they learn.

    python tests/acceptance/policy_gradients.py [seconds]

On the Gaussian problem of `tests/helpers/tilted.py`, whose optimum mu exp(beta Q) is known. Every method starts from
the same behaviour model and is trained for as many `seconds` of processor time (8), by the best of four learning rates,
from four seeds; prints two tables, after some twenty minutes with the default.
"""

import math
import statistics
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))
import tilted

from genpolicy.algo.bc import BC
from genpolicy.algo.gmpg import GMPG
from genpolicy.algo.qam import QAM, _velocity
from genpolicy.solver.fixed import Midpoint

BETA, BATCH, ESTIMATES, RATES, SEEDS = 3.0, 64, 200, (5e-4, 1e-3, 2e-3, 5e-3), range(4)


class QAMWithoutSDE(QAM):
    """Adjoint matching at the states of the policy's ODE: what is left without the memoryless SDE."""

    def states(self, observation, noise):
        h, states = 1 / self.adjoint_steps, [noise[:, 0]]
        for t in self.times(observation):
            states.append(states[-1] + h * _velocity(self.flow, states[-1], t, observation))
        return states


METHODS = {
    "GMPG, path derivative, 4 midpoint steps": (GMPG, {"estimator": "path_derivative"}, 4),
    "GMPG, path derivative, 8": (GMPG, {"estimator": "path_derivative"}, 8),
    "GMPG, full, 4": (GMPG, {"estimator": "full"}, 4),
    "GMPG, full, 8": (GMPG, {"estimator": "full"}, 8),
    "lean adjoint, SDE of 10 steps (QAM)": (QAM, {"adjoint_steps": 10}, None),
    "lean adjoint, SDE of 20": (QAM, {"adjoint_steps": 20}, None),
    "lean adjoint, ODE of 10, no SDE": (QAMWithoutSDE, {"adjoint_steps": 10}, None),
    "lean adjoint, ODE of 20, no SDE": (QAMWithoutSDE, {"adjoint_steps": 20}, None),
}


class States:
    """A batch of `size` states, which are all the same: the problem has no observations."""

    def __init__(self, size, dtype=torch.float32):
        self.size, self.observation, self.action = (
            size,
            torch.zeros(size, 0, dtype=dtype),
            torch.zeros(size, 2, dtype=dtype),
        )


def behaviour(seed):
    """A flow fitted to the behaviour's actions."""
    fitted = tilted.make(BC, "icfm", seed, behaviour_steps=3000, behaviour_lr=3e-3)
    tilted.train(fitted, tilted.data(seed), seed)
    return fitted.policy


def method(name, flow, seed=0):
    """The algorithm of a method, whose policy and behaviour model are copies of a flow."""
    kind, settings, steps = METHODS[name]
    algorithm = tilted.make(kind, "icfm", seed, beta=BETA, **settings)
    for model in (algorithm.policy, algorithm.behaviour):
        model.load_state_dict(flow.state_dict(), strict=False)
        model.solver = Midpoint(steps=steps or 6)
    if kind is not GMPG:
        algorithm.behaviour.target.load_state_dict(flow.state_dict(), strict=False)
    return algorithm


def loss(algorithm, size, generator, dtype=torch.float32):
    """The method's loss [size] with draws of its own."""
    states = States(size, dtype)
    if isinstance(algorithm, GMPG):
        return algorithm.loss(states, algorithm.draw(states, generator, 0.0))[0]
    shape = size, algorithm.adjoint_steps, 2
    noise = torch.randn(shape, generator=generator, dtype=dtype)
    return algorithm.adjoint_loss(states.observation, noise)


def gradient(algorithm, size, generator, dtype=torch.float32):
    parameters = list(algorithm.policy.network.parameters())
    parts = torch.autograd.grad(loss(algorithm, size, generator, dtype).mean(), parameters, allow_unused=True)
    return torch.cat([part.flatten() for part in parts if part is not None])


def noise_and_cost(name, flow, policy, exact):
    """Noise to signal a sample, cosine to the exact gradient, float32's error, milliseconds of a batch of 256."""
    algorithm = method(name, flow)
    algorithm.policy.load_state_dict(policy.state_dict(), strict=False)
    generator = torch.Generator().manual_seed(1)
    found = torch.stack([gradient(algorithm, BATCH, generator) for _ in range(ESTIMATES)]).double()
    mean, variance = found.mean(0), found.var(0).sum()
    signal = mean.square().sum() - variance / ESTIMATES
    cosine = (mean @ exact) / (mean.norm() * exact.norm())
    single = gradient(algorithm, BATCH, torch.Generator().manual_seed(2)).double()
    draws = torch.Generator().manual_seed(2)
    double = method(name, flow)
    double.policy.load_state_dict(policy.state_dict(), strict=False)
    double = double.double()
    states = States(BATCH)
    if isinstance(algorithm, GMPG):
        noise = {"noise": algorithm.draw(states, draws, 0.0)["noise"].double()}
        value = double.loss(States(BATCH, torch.float64), noise)[0]
    else:
        noise = torch.randn(BATCH, algorithm.adjoint_steps, 2, generator=draws).double()
        value = double.adjoint_loss(torch.zeros(BATCH, 0, dtype=torch.float64), noise)
    parameters = list(double.policy.network.parameters())
    parts = torch.autograd.grad(value.mean(), parameters, allow_unused=True)
    precise = torch.cat([part.flatten() for part in parts if part is not None])
    times = []
    for _ in range(15):
        begin = time.process_time()
        gradient(algorithm, 256, generator)
        times.append(1000 * (time.process_time() - begin))
    noise = (variance * BATCH / signal).item() if signal > 0 else math.inf
    return noise, cosine.item(), ((single - precise).norm() / precise.norm()).item(), statistics.median(times)


def learned(name, flow, seconds, rate, seed):
    """KL in nats of the Gaussian with the policy's moments from the optimum, after so much time of training."""
    algorithm = method(name, flow, seed)
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(algorithm.policy.network.parameters(), rate)
    begin, updates = time.process_time(), 0
    while (spent := time.process_time() - begin) < seconds:
        optimiser.param_groups[0]["lr"] = rate * 0.5 * (1 + math.cos(math.pi * spent / seconds))
        optimiser.zero_grad()
        loss(algorithm, 128, generator).mean().backward()
        optimiser.step()
        updates += 1
    algorithm.policy.solver = Midpoint(steps=32)
    with torch.no_grad():
        action = algorithm.policy.sample(torch.zeros(100_000, 0), torch.Generator().manual_seed(9))
    mean, covariance = tilted.optimum(BETA)
    precision, found = torch.linalg.inv(covariance), torch.cov(action.T)
    gap = action.mean(0) - mean
    trace = torch.trace(precision @ found) - 2 - torch.logdet(found) + torch.logdet(covariance)
    return 0.5 * (trace + gap @ precision @ gap).item(), updates


def main(seconds):
    flows = {seed: behaviour(seed) for seed in SEEDS}
    flow = flows[0]
    middle = method("GMPG, path derivative, 8", flow)
    generator = torch.Generator().manual_seed(0)
    optimiser = torch.optim.Adam(middle.policy.network.parameters(), 2e-3)
    for _ in range(15):  # towards the optimum, and far from it
        optimiser.zero_grad()
        loss(middle, 128, generator).mean().backward()
        optimiser.step()
    print("| gradient of | at | noise / signal a sample | cosine to the exact | float32's error | ms a batch of 256 |")
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    for at, policy in {"the behaviour model": flow, "15 updates on": middle.policy}.items():
        precise = method("GMPG, path derivative, 8", flow)
        precise.policy.load_state_dict(policy.state_dict(), strict=False)
        precise = precise.double()
        precise.policy.solver = precise.behaviour.solver = Midpoint(steps=32)
        exact = gradient(precise, 8192, torch.Generator().manual_seed(5), torch.float64)
        for name in METHODS:
            noise, cosine, error, cost = noise_and_cost(name, flow, policy, exact)
            print(f"| {name} | {at} | {noise:.1f} | {cosine:.3f} | {error:.1e} | {cost:.1f} |", flush=True)
    print(f"\n| trained for {seconds:g} s | learning rate | updates | KL from the optimum in nats, four seeds |")
    print("| --- | ---: | ---: | --- |")
    for name in METHODS:
        runs = {rate: [learned(name, flows[seed], seconds, rate, seed) for seed in SEEDS] for rate in RATES}
        rate = min(runs, key=lambda rate: statistics.median(kl for kl, _ in runs[rate]))
        kls = ", ".join(f"{kl:.4f}" for kl, _ in runs[rate])
        print(f"| {name} | {rate:g} | {statistics.median(n for _, n in runs[rate]):.0f} | {kls} |", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 8.0)
