"""SfBC, ChenDRAG/SfBC: its own loops over ten batches of two rounds of planning, with weights and draws of our own."""

import functools
from types import SimpleNamespace
from unittest import mock

import numpy as np
import torch
from thu_tools import WRITER, Bar, gradients, prefixed, without
from torch import nn
from torch_tools import (
    ACTION,
    BATCH,
    OBSERVATION,
    UPDATES,
    Parameters,
    checkout,
    drawing,
    narrow,
    normal,
    save,
    short,
    uniform,
)

path = checkout()
without("d4rl", "gym", "torch.utils.tensorboard", "tensorboard.backend.event_processing")
without("dataset.Bidirectional_Car_Env")
import train_behavior  # noqa: E402
import train_critic  # noqa: E402
import utils  # noqa: E402
from dataset import dataset  # noqa: E402
from diffusion_SDE import model, schedule  # noqa: E402

SUPPORT, ROWS, TIME, CONDITION = 4, 48, 8, 8
torch.Tensor.to = lambda self, *place, **more: self
marginal = functools.partial(schedule.marginal_prob_std, sigma=40.0, device="cpu")
with mock.patch("sys.argv", ["train_critic.py", "--device", "cpu", "--evaluate_while_training_critic", "0"]):
    args = utils.get_args()
args.marginal_prob_std_fn, args.writer, args.save_model, args.sample_per_epoch = marginal, WRITER, 0, ROWS
draw = np.random.default_rng(2)
torch.manual_seed(2)
shape = UPDATES, BATCH

# Episodes that end by a terminal, by a time limit and with the data.
ends = np.array([9, 25, 40])
columns = {"observations": normal(draw, ROWS, OBSERVATION), "actions": short(draw.uniform(-1, 1, (ROWS, ACTION)))}
columns |= {"rewards": normal(draw, ROWS), "terminals": np.isin(np.arange(ROWS), ends[:2])}
columns |= {"timeouts": np.isin(np.arange(ROWS), ends[2:])}
task = SimpleNamespace(get_dataset=lambda: {name: column.copy() for name, column in columns.items()})
dataset.gym.make = lambda name: task
dataset.np = SimpleNamespace(**{**vars(np), "float32": np.float64})  # what their returns are rounded to
source = dataset.Diffusion_buffer(args)
source.fake_actions = normal(draw, ROWS, SUPPORT, ACTION) / 2
index = draw.integers(ROWS, size=(2, *shape))
draws = {"behaviour_t": uniform(draw, *shape), "behaviour_noise": normal(draw, *shape, ACTION)}
draws |= {"sample": normal(draw, BATCH, ACTION)}
arrays = prefixed("data", columns | {"behaviour_action": source.fake_actions}) | prefixed("draw", draws)
arrays |= {"index": index}


def network() -> model.ScoreNet:
    """Their networks with layers of other widths."""
    with narrow(12):
        net = model.ScoreNet(OBSERVATION + ACTION, ACTION, marginal, TIME, args=args)
    net.pre_sort_condition = nn.Sequential(model.Dense(OBSERVATION, 4), model.SiLU())
    net.sort_t = nn.Sequential(nn.Linear(TIME + 4, CONDITION), model.SiLU(), nn.Linear(CONDITION, CONDITION))
    block = functools.partial(model.Residual_Block, t_dim=CONDITION)
    net.down_block1, net.down_block2, net.down_block3 = block(ACTION, 16), block(16, 8), block(8, 4)
    net.middle1, net.up_block3, net.up_block2, net.last = block(4, 4), block(8, 8), block(16, 16), nn.Linear(32, ACTION)
    return net


class Loader:
    """Batches of the rows that are next in turn; after(number) when number of them have been trained on."""

    def __init__(self, rounds, after=lambda number: None):
        self.dataset, self.rounds, self.after = source, iter(rounds), after

    def __iter__(self):
        for number, chosen in enumerate(next(self.rounds), 1):
            yield torch.as_tensor(source.ys[chosen]), torch.as_tensor(source.states[chosen])
            self.after(number)


net = network()
critic = net.q[0]
parameters, learned = Parameters(draw, {"behaviour": net}, 0.1), Parameters(draw, {"q": critic})
arrays |= parameters.begin() | learned.begin()

observation = columns["observations"][:BATCH]
with drawing(draws["sample"]):
    _, actions = net.sample(observation, sample_per_state=1, diffusion_steps=args.diffusion_steps)
arrays["sample/actions"] = actions[:, 0]
for name, alpha, count in (("1", 100, 1), ("4", 100, 4), ("limited", 10000, 2)):
    chosen = []

    def choice(number, p, size, replace, chosen=chosen):
        chosen.append(p)
        return np.arange(size)

    q = critic(torch.as_tensor(observation[:1]).repeat(SUPPORT, 1), torch.as_tensor(source.fake_actions[0]))
    with mock.patch.object(np.random, "choice", choice):
        net._select(q.detach().numpy().copy(), source.fake_actions[0], alpha=alpha, num=count, replace=False)
    arrays[f"select/{name}"] = chosen[0]

rounds = []


def after(number: int) -> None:
    """Keep what a round has learned."""
    if number == 1 and not rounds:
        arrays.update(gradients(q=critic))
    if number in (1, UPDATES):
        arrays.update({f"round{len(rounds)}/{name}": value for name, value in learned.moved(number).items()})
    if number == UPDATES:
        rounds.append(number)


arrays["returns/0"] = source.raw_returns[0]
with (
    mock.patch.object(train_critic.tqdm, "trange", return_value=Bar([99, 100])),
    mock.patch.object(torch, "save"),
):
    optimizer = torch.optim.Adam(critic.parameters(), lr=1e-3)
    train_critic.train_critic(args, net, Loader(index, after), optimizer)
arrays |= {"returns/1": source.raw_returns[1], "targets/1": source.ys[:, 0]}

start = {name: value.clone() for name, value in net.state_dict().items()}
for updates in (1, UPDATES):
    net.load_state_dict(start)
    optimizer = torch.optim.Adam(net.parameters(), lr=args.lr)
    drawn = (draws[f"behaviour_{name}"][update] for update in range(updates) for name in ("t", "noise"))
    with mock.patch.object(train_behavior.tqdm, "trange", return_value=Bar([1])), drawing(*drawn):
        train_behavior.train_behavior(args, net, Loader([index[0, :updates]]), optimizer)
    if updates == 1:
        arrays |= gradients(behaviour=net)
    arrays |= parameters.moved(updates)
settings = {name: getattr(args, name) for name in ("alpha", "lr", "K", "normalise_return", "diffusion_steps", "env")}
settings |= {"select_per_state": args.select_per_state, "critic_type": args.critic_type, "critic_lr": 1e-3}
save("sfbc", "github.com/ChenDRAG/SfBC", path, "none stated", settings, **arrays)
