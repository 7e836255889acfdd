"""GMPG's losses beside GenerativeRL's, by solvers of many steps, and their slopes along directions of the weights.

The gradient of theirs is not compared: it leaves out how a point on the way depends on the weights and on the action
(`x_t = x[0].detach()`), and points elsewhere than the loss falls, of which the fixture has the slopes, too.
"""

import copy
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
    for number, slope in enumerate(arrays["gmpg/slopes"]):
        way = network(directions(arrays, number), "0", "guided", "policy")
        torch.testing.assert_close(along(algorithm, way) / bits, slope, rtol=1e-3, atol=1e-3)


def along(algorithm, way):
    """The slope of the loss in a direction, by the gradients of the parameters."""
    named = dict(algorithm.named_parameters())
    return sum((named[name].grad * value).sum() for name, value in way.items())


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
    # Ours, of these: the cost is of Q - V, and centred; the weights' mean is 1.
    advantage = q - algorithm.critic.v(observation)
    weight = (algorithm.beta * advantage).exp().clamp(max=2.0)
    assert 0 < (weight == 2.0).sum() < len(weight)
    weight, cost = weight / weight.mean(), log_pi - log_mu - algorithm.beta * advantage
    draws["cost_probe"] = draws["probe"]  # as theirs, where ours are two
    with torch.no_grad():
        draws |= algorithm.derive(batch, draws)
    found, _ = algorithm.loss(batch, draws)
    torch.testing.assert_close(found, weight * (cost - (weight * cost).mean()) * log_pi, rtol=1e-9, atol=0.0)
    found.mean().backward()
    gradients = {name: value.grad.clone() for name, value in algorithm.policy.named_parameters() if value.requires_grad}
    algorithm.policy.zero_grad()
    log_pi = algorithm.policy.log_prob(observation, action, solver=solver, probe=probe)
    (weight * (cost - (weight * cost).mean()) * log_pi).mean().backward()
    for name, value in gradients.items():
        torch.testing.assert_close(value, dict(algorithm.policy.named_parameters())[name].grad, rtol=1e-9, atol=1e-12)


def test_the_loss_with_matching_is_that_of_its_equation():
    """Theirs, -beta min Q of sampled actions plus the matching loss, by hand; its slopes by differences.

    As committed their training fails before its first step (the loss is a tuple), and the matching loss in it is that
    of the behaviour model, of which the policy's parameters are no part.
    """
    algorithm, batch, draws, arrays = begun("gmpg_matching")
    beta = algorithm.beta
    action, draw = torch.linspace(-0.9, 0.9, 3 * batch.size).view(-1, 3).double(), torch.Generator().manual_seed(0)
    batch = Transitions(torch.cat([batch.observation, action], 1), batch.shapes)
    t, noise = (torch.rand(batch.size, generator=draw), torch.randn(batch.size, 3, generator=draw))
    t, noise = 0.05 + 0.9 * t.double(), noise.double()
    given = {"action_noise": draws["noise"], "t": t, "noise": noise}

    def loss():
        return algorithm.loss(batch, given)[0].mean()

    angle = (math.pi / 2 * t)[:, None]  # alpha = cos, sigma = sin of it
    point, velocity = angle.cos() * action + angle.sin() * noise, angle.cos() * noise - angle.sin() * action
    with torch.no_grad():
        found = algorithm.policy.velocity(point, t, batch.observation)
    matching = 0.5 * (found - math.pi / 2 * velocity).square().sum(-1)
    total, metrics = loss(), algorithm.loss(batch, given)[1]
    torch.testing.assert_close(-2.0 * metrics["q"], arrays["gmpg/q"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(total, matching.mean() - beta * metrics["q"], rtol=1e-9, atol=0.0)
    total.backward()
    named = dict(algorithm.named_parameters())
    for number in (0, 1):
        way = network(directions(arrays, number), "0", "guided", "policy")
        ends = []
        for step in (1e-5, -2e-5):
            with torch.no_grad():
                for name, value in way.items():
                    named[name].add_(step * value)
                ends.append(loss())
        with torch.no_grad():
            for name, value in way.items():
                named[name].add_(1e-5 * value)
        torch.testing.assert_close(along(algorithm, way), (ends[0] - ends[1]) / 2e-5, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["gmpg", "gmpg_reinforce", "gmpg_matching"])
def test_the_policy_begins_as_the_behaviour_model_and_adam_moves_it(name):
    """Adam with 1e-4 throughout, no weight decay, no limit of the gradient and no moving average."""
    algorithm, batch, _, _ = begun(name, "solver.steps=2")
    phase = algorithm.phases[2]
    phase.start()
    policy, own = (dict(part.named_parameters()) for part in (algorithm.policy, algorithm.behaviour))
    assert all(torch.equal(policy[key], own[key]) for key in own)
    assert algorithm.policy.target is None
    free = {key: value for key, value in policy.items() if value.requires_grad}
    expected = copy.deepcopy(free)
    adam = torch.optim.Adam(expected.values(), lr=1e-4)
    update, generator = phase.updates[""], torch.Generator().manual_seed(0)
    for step in range(2):
        draws = update.drawn(batch, generator, step / 2)
        gradients = torch.autograd.grad(algorithm.loss(batch, draws)[0].mean(), free.values())
        for value, gradient in zip(expected.values(), gradients, strict=True):
            value.grad = gradient
        adam.step()
        update.step(batch, draws, step / 2)
        for key, value in expected.items():
            torch.testing.assert_close(free[key], value, rtol=1e-10, atol=1e-12)
