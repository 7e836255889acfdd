"""Actions and likelihoods of the papers' network, beside their matrix products."""

import pytest
import torch

from genpolicy.solver.fixed import AB2, RK4, Euler, Midpoint

SAMPLERS = {"midpoint_8": Midpoint(steps=8), "ab2_4": AB2(steps=4), "euler_32": Euler(steps=32)}
LIKELIHOODS = {
    "rk4_16": (RK4(steps=16), False),
    "rk4_6": (RK4(steps=6), False),
    "rk4_6_hutchinson": (RK4(steps=6), True),
}


@pytest.fixture(scope="module")
def algorithm(made):
    return made("algo=gmpo", "model=gvp")


@pytest.mark.parametrize("what", [*SAMPLERS, "products"])
@pytest.mark.parametrize("batch", [1, 10, 1000])
def test_actions(row, products, algorithm, transitions, device, batch, what):
    observation, generator = transitions(batch).observation, torch.Generator(device).manual_seed(0)
    algorithm.policy.solver = SAMPLERS.get(what, SAMPLERS["ab2_4"])
    measure = row if what != "products" else lambda *given: products(*given, batch)
    measure(f"{batch} actions", lambda: algorithm.act(observation, generator), 5 if batch > 100 else 50)


@pytest.mark.parametrize("what", ["two_jumps", "one_evaluation"])
def test_jumps(row, made, transitions, device, what):
    gtp, generator = made("algo=gtp", "network=mlp", "solver.steps=2"), torch.Generator(device).manual_seed(0)
    observation, x = transitions(1).observation, torch.randn(1, 3, device=device)

    @torch.no_grad()
    def evaluation():
        gtp.policy.raw(x, torch.ones(1, device=device), observation)

    act = {"two_jumps": lambda: gtp.act(observation, generator), "one_evaluation": evaluation}[what]
    row("1 action of GTP", act, 300)


@pytest.mark.parametrize("what", [*LIKELIHOODS, "products"])
def test_likelihood(row, products, algorithm, transitions, device, what):
    data, generator = transitions(1000), torch.Generator(device).manual_seed(0)
    policy = algorithm.policy
    policy.likelihood, hutchinson = LIKELIHOODS.get(what, LIKELIHOODS["rk4_6"])
    policy.divergence = "hutchinson" if hutchinson else "exact"
    measure = row if what != "products" else lambda *given: products(*given, 1000)
    measure("likelihood of 1,000 actions", lambda: algorithm.log_prob(data.observation, data.action, generator), 3)
