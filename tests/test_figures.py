"""The figures of two-dimensional policies: what is in them, read back from the files."""

import numpy as np
import torch
from gaussian import PATHS, GaussianNetwork, make_policy
from matplotlib.image import imread
from torch import nn

from genpolicy.figures import draw_plane
from genpolicy.solver.fixed import RK4


class Critic(nn.Module):
    def __init__(self):
        super().__init__()
        self.slope = nn.Parameter(torch.ones(()))

    def q_min(self, observation, action):
        return self.slope * action[:, 0]


class Algorithm:
    def __init__(self):
        path = PATHS["gvp"]()
        networks = [GaussianNetwork(path, torch.tensor([x, 0.0]), 0.04 * torch.eye(2)) for x in (-1.0, 1.0)]
        for network in networks:
            network.register_parameter("unused", nn.Parameter(torch.zeros(())))
        self.behaviour, self.policy = (
            make_policy(path, network, solver=RK4(steps=8), likelihood=RK4(steps=8)) for network in networks
        )
        self.critic, self.act, self.action_low = Critic(), self.policy.act, torch.zeros(2)


def test_the_figures_show_each_policy_where_it_is(tmp_path):
    rng = np.random.default_rng(0)
    action = rng.normal(0, 0.3, (500, 2)).astype(np.float32)
    written = draw_plane(Algorithm(), action, action[:, 0], lambda a: a[..., 0], 2.0, tmp_path / "figures")
    assert {path.name for path in written} == {"samples.png", "trajectories.png", "density.png", "value.png"}
    density = imread(tmp_path / "figures" / "density.png")[..., :3].sum(-1)
    height, width = density.shape
    # Two panels of one width, left of the colour bar; the behaviour's mass lies left in its panel, the policy's right.
    panel = density[height // 3 : 2 * height // 3, : int(0.82 * width)]
    panel = np.where(panel > 2.99, 0, panel)  # the white paper
    left, right = np.array_split(panel, 2, axis=1)
    assert left[:, : left.shape[1] // 2].sum() > 2 * left[:, left.shape[1] // 2 :].sum()
    assert right[:, right.shape[1] // 2 :].sum() > 2 * right[:, : right.shape[1] // 2].sum()
