"""GMPG's losses beside GenerativeRL's, by solvers of many steps, and their slopes along directions of the weights.

The gradient of theirs is not compared: it leaves out how a point on the way depends on the weights and on the action
(`x_t = x[0].detach()`), and points elsewhere than the loss falls, of which the fixture has the slopes, too.
"""

import math

import pytest
import torch
from parity import made, put
from parity_generative_rl import SIZES, critic, frequencies, network
from parity_torch import doubles

from genpolicy.dataset.transitions import Transitions

WORDS = (*SIZES, "critic.hidden=[12,12]", "model.path.t_min=1e-5", "solver=rk4", "solver.steps=20", "solver.power=1")


def begun(name, *words):
    """The algorithm as the reference began, a batch of its observations, its draws, and the fixture's arrays."""
    about, arrays = doubles("gmpg")
    arrays["batch/actions"] = torch.zeros(1, 3)
    beta = about["settings"]["beta"] * about["settings"]["bits"]
    assert about["settings"]["bits"] == pytest.approx(3 * math.log(2))
    algorithm = made(f"algo={name}", *WORDS, f"algo.beta={beta}", *words)
    put(algorithm, network(arrays, "0", "guided", "policy") | network(arrays, "0", "base", "behaviour"))
    put(algorithm, critic(arrays, "0", target=False))
    frequencies(algorithm.policy.network, arrays, "guided")
    frequencies(algorithm.behaviour.network, arrays, "base")
    observation = arrays["observation"]
    shapes = {"observation": observation.shape[1:], "action": torch.Size([3])}
    batch = Transitions(torch.cat([observation, torch.zeros(len(observation), 3).to(observation)], 1), shapes)
    return algorithm, batch, {"noise": arrays["noise"], "probe": arrays["probe"]}, arrays


def test_the_loss_and_its_slopes():
    algorithm, batch, draws, arrays = begun("gmpg", "algo.estimator=full", "algo.hutchinson=true")
    loss, metrics = algorithm.loss(batch, draws)
    bits, beta = 3 * math.log(2), 2.0
    torch.testing.assert_close(-beta * metrics["q"], arrays["gmpg/q"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(metrics["kl"] / bits, arrays["gmpg/log_p"] + arrays["gmpg/log_mu"], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(loss.mean() / bits, arrays["gmpg/loss"], rtol=1e-4, atol=1e-4)
    loss.mean().backward()
    named = dict(algorithm.named_parameters())
    for number, slope in enumerate(arrays["gmpg/slopes"]):
        way = network(directions(arrays, number), "0", "guided", "policy")
        found = sum((named[name].grad * value).sum() for name, value in way.items()) / bits
        torch.testing.assert_close(found, slope, rtol=1e-3, atol=1e-3)


def directions(arrays, number):
    """By the names that the weights of "0/guided" have."""
    start = f"direction{number}/"
    return {f"0/guided/{key.removeprefix(start)}": value for key, value in arrays.items() if key.startswith(start)}


def test_the_terms_of_the_score_function_gradient():
    """Theirs is log pi times a cost that is not centred and a weight that is not divided by its mean."""
    algorithm, batch, draws, arrays = begun("gmpg_reinforce", "algo.hutchinson=true", "algo.weight_clamp=2")
    observation, bits, beta = batch.observation, 3 * math.log(2), 2.0
    with torch.no_grad():
        action = algorithm.behaviour.sample(observation, noise=draws["noise"])
        solver, probe = algorithm.policy.solver, draws["probe"]
        log_mu = algorithm.behaviour.log_prob(observation, action, solver=solver, probe=probe)
        log_pi = algorithm.policy.log_prob(observation, action, solver=solver, probe=probe)
        q = algorithm.critic.q_min(observation, action)
        weight = (beta * (q - algorithm.critic.v(observation))).exp().clamp(max=2.0) / 2.0
    torch.testing.assert_close(log_pi.mean() / bits, arrays["reinforce/log_p"], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(-log_mu.mean() / bits, arrays["reinforce/log_mu"], rtol=1e-4, atol=1e-4)
    loss = (-beta * q + (log_pi - log_mu) / bits) * log_pi / bits * weight
    torch.testing.assert_close(loss, arrays["reinforce/loss"], rtol=1e-3, atol=1e-3)
