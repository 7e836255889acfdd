"""A problem with a known answer: Gaussian behaviour, quadratic Q.

Behaviour N(m, S), Q = -(a - c)' P (a - c) / 2: the optimum mu exp(beta Q) is N(m*, S*) with
S*^-1 = S^-1 + beta P and m* = S* (S^-1 m + beta P c).
"""

import torch
from gaussian import PATHS as NAMED
from small import begun
from torch import nn

from genpolicy.dataset.scaling import Scaling
from genpolicy.dataset.transitions import Transitions
from genpolicy.model.ddpm import DDPM
from genpolicy.model.generative import GenerativePolicy
from genpolicy.model.path import OTCFM
from genpolicy.network.mlp import MLP
from genpolicy.objective.flow_matching import FlowMatching
from genpolicy.solver.fixed import RK4, Midpoint

LEVELS = 10
PATHS = NAMED | {"ddpm": lambda: DDPM(steps=LEVELS)}
MEAN, COVARIANCE = torch.tensor([0.2, -0.3]), torch.tensor([[0.25, 0.1], [0.1, 0.16]])
BEST, CURVATURE = torch.tensor([0.5, 0.4]), torch.tensor([[2.0, 0.4], [0.4, 1.2]])


def optimum(beta):
    precision = torch.linalg.inv(COVARIANCE)
    covariance = torch.linalg.inv(precision + beta * CURVATURE)
    return covariance @ (precision @ MEAN + beta * CURVATURE @ BEST), covariance


class QuadraticCritic(nn.Module):
    """The known Q, with the interface of a learned critic."""

    lr, next_actions, lagged_target, uses_next_action_of_data = 1e-3, None, False, False

    def __init__(self):
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(()))

    def q_min(self, observation, action):
        gap = action - BEST.to(action)
        return -0.5 * ((gap @ CURVATURE.to(action)) * gap).sum(-1)

    def q(self, observation, action):
        return self.q_min(observation, action)[None]

    q_of_target = q

    def v(self, observation):
        return torch.full((len(observation),), -1.0)

    def advantage(self, observation, action):
        return self.q_min(observation, action) - self.v(observation)

    def draw(self, batch, generator, progress):
        return {}

    def loss(self, batch, draws=None):
        return self.nothing * batch.reward, {}

    def losses(self):
        return {"": (self, self.loss)}

    def update_target(self):
        pass


def data(seed, size=20_000):
    generator = torch.Generator().manual_seed(seed)
    action = MEAN + torch.randn(size, 2, generator=generator) @ torch.linalg.cholesky(COVARIANCE).T
    nothing = torch.zeros(size, 0)
    return Transitions.of(
        {
            "observation": nothing.numpy(),
            "action": action.numpy(),
            "reward": torch.zeros(size).numpy(),
            "next_observation": nothing.numpy(),
            "terminated": torch.ones(size).numpy(),
        }
    )


def make(cls, path, seed, objective=None, solver=None, **settings):
    """An algorithm with a small network, without observations, for any action. path: a name of `PATHS`."""
    torch.manual_seed(seed)
    objective = objective or FlowMatching()
    policy = GenerativePolicy(
        path=OTCFM(coupling_size=32) if path == "otcfm" else PATHS[path](),  # small, as it is cubic
        network=MLP(hidden=[64, 64], action_size=2, observation_size=0),
        prediction=objective.prediction,
        solver=solver or Midpoint(steps=6),
        likelihood=RK4(steps=16),
    )
    anywhere = torch.full((2,), torch.inf)
    scaling = Scaling(0, -anywhere, anywhere)
    return cls(policy=policy, objective=objective, critic=QuadraticCritic(), scaling=scaling, **settings)


def train(algorithm, transitions, seed):
    """Every phase but the critic's, the learning rate annealed to zero so that the end is an optimum."""
    generator = torch.Generator().manual_seed(seed)
    for phase in algorithm.phases:
        if phase.name == "critic":
            continue
        source = begun(phase, transitions)
        (update,) = phase.updates.values()
        update.schedule = "cosine"
        for step in range(phase.steps):
            if phase.refresh and step and step % phase.refresh == 0:
                source = begun(phase, transitions)
            metrics = phase.update(source.sample(phase.batch_size, generator), generator, step)
    return metrics


def whitened(samples, mean, covariance):
    """Distance of the mean of samples, and the extreme eigenvalues of their covariance, in units of a Gaussian's."""
    whiten = torch.linalg.inv(torch.linalg.cholesky(covariance))
    eigenvalues = torch.linalg.eigvalsh(whiten @ torch.cov(samples.T) @ whiten.T)
    return (whiten @ (samples.mean(0) - mean)).norm(), eigenvalues.min(), eigenvalues.max()
