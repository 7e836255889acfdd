"""QGPO, ChenDRAG/CEP-energy-guided-diffusion: its own loops over ten batches, with weights and draws of our own."""

import functools
import sys
from unittest import mock

import numpy as np
import torch
from thu_tools import WRITER, gradients, loop, prefixed, rows, without
from torch import nn
from torch_tools import (
    ACTION,
    BATCH,
    OBSERVATION,
    UPDATES,
    Parameters,
    batches,
    checkout,
    drawing,
    narrow,
    normal,
    save,
    uniform,
)

path = checkout()
sys.path.insert(0, str(path / "Offline_RL_2D"))
without("d4rl", "gym", "sklearn", "sklearn.datasets", "sklearn.utils", "torch.utils.tensorboard")
without("tensorboard.backend.event_processing")
import train_behavior  # noqa: E402
import train_critic  # noqa: E402
import utils  # noqa: E402
from diffusion_SDE import model, schedule  # noqa: E402

SUPPORT, TIME, CONDITION = 4, 8, 8
marginal = functools.partial(schedule.marginal_prob_std, device="cpu")
schedule.marginal_prob_std = marginal
with mock.patch("sys.argv", ["train_critic.py", "--alpha", "3", "--q_alpha", "1", "--device", "cpu"]):
    args = utils.get_args()  # of their Readme.md
args.marginal_prob_std_fn, args.writer, args.save_model = marginal, WRITER, 0


def network() -> model.ScoreNet:
    """Their networks with layers of other widths."""
    with narrow(8):
        net = model.ScoreNet(OBSERVATION + ACTION, ACTION, marginal, TIME, args=args)
    net.pre_sort_condition = nn.Sequential(model.Dense(OBSERVATION, 4), model.SiLU())
    net.sort_t = nn.Sequential(nn.Linear(TIME + 4, CONDITION), model.SiLU(), nn.Linear(CONDITION, CONDITION))
    block = functools.partial(model.Residual_Block, t_dim=CONDITION)
    net.down_block1, net.down_block2, net.down_block3 = block(ACTION, 16), block(16, 8), block(8, 4)
    net.middle1, net.up_block3, net.up_block2, net.last = block(4, 4), block(8, 8), block(16, 16), nn.Linear(32, ACTION)
    return net


draw = np.random.default_rng(1)
torch.manual_seed(1)
data, shape = batches(draw), (UPDATES, BATCH)
support = {name: normal(draw, *shape, SUPPORT, ACTION) / 2 for name in ("behaviour_action", "next_behaviour_action")}
draws = {"behaviour_t": uniform(draw, *shape), "behaviour_noise": normal(draw, *shape, ACTION)}
draws |= {"t": uniform(draw, *shape), "noise": normal(draw, *shape, SUPPORT, ACTION)}
draws |= {"sample": normal(draw, BATCH, ACTION)}
arrays = prefixed("batch", data | support) | prefixed("draw", draws)
given = [
    {**rows(data, update), "fake_a": torch.as_tensor(actions), "fake_a_": torch.as_tensor(following)}
    for update, (actions, following) in enumerate(zip(*support.values(), strict=True))
]

net = network()
parameters = Parameters(draw, {"behaviour": net}, 0.1)
critic = net.q[0]
modules = {"q": critic.q0, "q_target": critic.q0_target, "energy": critic.qt}
learned = Parameters(draw, modules)
arrays |= parameters.begin() | learned.begin()

# What acts, of the networks as they are in the beginning.
observation = data["observations"][0]
for scale in (0.0, 1.0, 3.0):
    critic.guidance_scale = scale
    with drawing(draws["sample"]):
        actions = net.select_actions(observation, diffusion_steps=args.diffusion_steps)
    arrays[f"sample/{scale:g}"] = np.stack(actions)
    net.condition = torch.as_tensor(observation)
    with torch.no_grad():
        noise = net.forward_dmp_wrapper_fn(torch.as_tensor(draws["sample"]), torch.as_tensor(draws["t"][0]))
    arrays[f"noise_prediction/{scale:g}"] = noise.numpy()
critic.guidance_scale = 1.0

for update in range(UPDATES):
    with drawing(draws["t"][update], draws["noise"][update]):
        loop(train_critic.train_critic, args, 1, net, [given[update]])
    if update == 0:
        arrays |= gradients(energy=critic.qt)
    if update in (0, UPDATES - 1):
        arrays |= learned.moved(update + 1)
# The second half of their training: the energy alone.
for update in range(UPDATES):
    with drawing(draws["t"][update], draws["noise"][update]):
        loop(train_critic.train_critic, args, 50, net, [given[update]])
arrays |= learned.moved(2 * UPDATES)

start = {name: value.clone() for name, value in net.state_dict().items()}
for updates in (1, UPDATES):  # their loop makes the optimiser
    net.load_state_dict(start)
    with drawing(*(draws[f"behaviour_{name}"][update] for update in range(updates) for name in ("t", "noise"))):
        loop(train_behavior.train_behavior, args, 1, net, given[:updates])
    arrays |= parameters.moved(updates)
settings = {name: getattr(args, name) for name in ("alpha", "q_alpha", "diffusion_steps", "M", "method")}
save("qgpo", "github.com/ChenDRAG/CEP-energy-guided-diffusion", path, "MIT", settings, **arrays)
