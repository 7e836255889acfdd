"""A component that lacks a part of its contract fails when it is made, not after an hour of training."""

import pytest
import torch
from small import random_transitions

from genpolicy.algo.algorithm import Algorithm
from genpolicy.critic.critic import Critic
from genpolicy.critic.double_q import DoubleQ
from genpolicy.critic.planned import PlannedReturns
from genpolicy.env.task import Task
from genpolicy.model.policy import Policy
from genpolicy.objective.objective import Objective
from genpolicy.solver.solver import ODESolver


def test_a_critic_without_a_loss():
    class Lazy(Critic):
        next_actions = None

    with pytest.raises(TypeError, match="abstract method loss"):
        Lazy(observation_size=1, action_size=1)


def test_a_critic_that_does_not_say_whose_actions_it_takes():
    with pytest.raises(TypeError, match="Lazy must say whose next_actions its loss takes"):

        class Lazy(Critic):
            pass


def test_advantages_are_of_every_critic_that_learns_v():
    critic = DoubleQ(observation_size=2, action_size=1, expectile=0.7)
    observation, action = torch.randn(5, 2), torch.randn(5, 1)
    expected = critic.q(observation, action).amin(0) - critic.v(observation)
    torch.testing.assert_close(critic.advantage(observation, action), expected)


def test_the_loss_of_planned_returns_is_the_sum_over_the_q_functions_or_their_mean():
    batch = random_transitions()
    batch = batch.extended(planned=batch.reward)
    torch.manual_seed(0)
    critic = PlannedReturns(observation_size=2, action_size=2, ensemble=2)
    added, _ = critic.loss(batch)
    critic.q_loss_mean = True
    torch.testing.assert_close(critic.loss(batch)[0], added / 2)


@pytest.mark.parametrize("base", [Algorithm, Objective, ODESolver, Policy, Task])
def test_others_have_abstract_parts_too(base):
    with pytest.raises(TypeError, match="abstract method"):
        type("Lazy", (base,), {})()
