"""References in PyTorch, trained on a file by their own updates: see learning.py."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from unittest import mock

import numpy as np
import torch
from learning_tools import Act, Asked, stubs


def seeded(asked: Asked) -> None:
    """After the imports of a reference."""
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float32)  # the tools of the fixtures' scripts take float64
    torch.manual_seed(asked.seed)
    np.random.seed(asked.seed)  # noqa: NPY002 (the buffer of TD3+BC draws from it)


def td3_bc(asked: Asked) -> Act:
    import TD3_BC
    import utils

    seeded(asked)
    buffer = utils.ReplayBuffer(*asked.data.sizes, max_size=2)
    buffer.convert_D4RL(vars(asked.data))
    mean, std = buffer.normalize_states()
    agent = TD3_BC.TD3_BC(*asked.data.sizes, 1.0)
    for _ in range(asked.updates):
        agent.train(buffer, asked.batch)

    def act(observation: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return agent.actor(torch.as_tensor((observation - mean) / std, dtype=torch.float32)).numpy()

    return act


def diffusion_ql(asked: Asked, eta: float = 1.0, grad_norm: float = 9.0, candidates: float = 50) -> Act:
    candidates = int(candidates)
    stubs("utils.logger")
    from agents.ql_diffusion import Diffusion_QL

    seeded(asked)
    draw = np.random.default_rng(asked.seed)

    class Buffer:
        def sample(self, size: int):
            found = asked.data.batch(draw, size)
            vectors = [torch.as_tensor(found[key]) for key in ("observations", "actions", "next_observations")]
            return (*vectors, *(torch.as_tensor(found[key])[:, None] for key in ("rewards", "masks")))

    agent = Diffusion_QL(
        *asked.data.sizes,
        1.0,
        "cpu",
        discount=0.99,
        tau=0.005,
        eta=eta,
        beta_schedule="vp",
        n_timesteps=5,
        grad_norm=grad_norm,
    )
    agent.train(Buffer(), asked.updates, asked.batch)

    def act(observation: np.ndarray) -> np.ndarray:  # as its sample_action, for all episodes at once
        with torch.no_grad():
            repeated = torch.as_tensor(observation).repeat_interleave(candidates, 0)
            actions = agent.actor.sample(repeated)
            value = agent.critic_target.q_min(repeated, actions).reshape(-1, candidates)
            chosen = torch.multinomial(value.softmax(-1), 1)[:, 0]
            return actions.reshape(len(observation), candidates, -1)[torch.arange(len(observation)), chosen].numpy()

    return act


def batches(asked: Asked, phase: int) -> Iterator[dict[str, torch.Tensor]]:
    """By the names of the code of QGPO, SRPO and GenerativeRL."""
    from thu_tools import columns

    return map(columns, asked.batches(phase))


def qgpo(asked: Asked, num_actions: float = 16, s: float = 1.0) -> Act:
    from thu_tools import WRITER, loop, without

    sys.path.insert(0, str(asked.checkout / "Offline_RL_2D"))
    without("d4rl", "gym", "sklearn", "sklearn.datasets", "sklearn.utils", "torch.utils.tensorboard")
    without("tensorboard.backend.event_processing")
    import train_behavior
    import train_critic
    import utils
    from diffusion_SDE import model, schedule

    asked = asked.scaled()
    seeded(asked)
    marginal = functools.partial(schedule.marginal_prob_std, device="cpu")
    with mock.patch("sys.argv", ["train_critic.py", "--alpha", "3", "--q_alpha", "1", "--device", "cpu"]):
        args = utils.get_args()  # of their Readme.md
    args.marginal_prob_std_fn, args.writer, args.save_model = marginal, WRITER, 0
    observations, actions = asked.data.sizes
    net = model.ScoreNet(observations + actions, actions, marginal, args=args)
    loop(train_behavior.train_behavior, args, 1, net, list(batches(asked, 0)))
    critic, data = net.q[0], asked.data
    critic.guidance_scale = 0.0
    for name, states in (("fake_a", data.observations), ("fake_a_", data.next_observations)):
        parts = np.array_split(states, len(states) // 256 + 1)
        setattr(data, name, np.concatenate([net.sample(part, int(num_actions)) for part in parts]))
    critic.guidance_scale = s
    with mock.patch.object(schedule, "marginal_prob_std", marginal):
        for phase, epoch in enumerate((1, 50), 1):  # critic and energy, then the energy alone
            loop(train_critic.train_critic, args, epoch, net, list(batches(asked, phase)))
    return lambda observation: np.stack(net.select_actions(observation, diffusion_steps=args.diffusion_steps))


def srpo(asked: Asked, beta: float = 0.2) -> Act:
    from thu_tools import without

    without("d4rl", "gym", "wandb")
    import SRPO
    import utils

    asked = asked.scaled()
    seeded(asked)
    words = ["train_policy.py", "--env", "hopper-medium-v2", "--device", "cpu", "--beta", str(beta)]
    with mock.patch("sys.argv", words):
        args = utils.get_args()
    schedule = functools.partial(utils.marginal_prob_std, device="cpu", beta_1=20.0)
    observations, actions = asked.data.sizes
    sizes = observations + actions, actions
    behaviour, iql = SRPO.SRPO_Behavior(*sizes, schedule, args), SRPO.SRPO_IQL(*sizes, args)
    for batch in batches(asked, 0):
        behaviour.update_behavior(batch)
    for batch in batches(asked, 1):
        iql.q[0].update_q0(batch)
    whole = SRPO.SRPO(*sizes, schedule, args)
    whole.diffusion_behavior.load_state_dict(behaviour.diffusion_behavior.state_dict())
    whole.q[0].load_state_dict(iql.q[0].state_dict())
    whole.SRPO_policy_lr_scheduler.T_max = asked.updates  # not whole epochs of 10,000
    for batch in batches(asked, 2):
        whole.update_SRPO_policy(batch)

    def act(observation: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return whole.SRPO_policy.select_actions(torch.as_tensor(observation)).numpy()

    return act


def gmpo(asked: Asked, beta: float = 8.0, weight_clamp: float = 100.0, bc: bool = False) -> Act:
    from generative_rl_tools import PUBLISHED, settings, train, without_packages

    without_packages()
    from grl.algorithms import gmpo as reference

    asked = asked if bc else asked.scaled()
    seeded(asked)
    kind = "gvp", "velocity_function", "flow_matching"
    policy = reference.GMPOPolicy(settings(*kind, sizes=asked.data.sizes, widths=PUBLISHED))
    for phase, name in enumerate(("behaviour_policy",) if bc else ("critic", "guided_policy")):
        train("GMPO", policy, name, list(batches(asked, phase)), beta=beta, weight_clamp=weight_clamp)
    sample = policy.behaviour_policy_sample if bc else policy.sample
    t_span = torch.linspace(0.0, 1.0, 32)
    return lambda observation: sample(state=torch.as_tensor(observation), t_span=t_span).numpy()


def bc(asked: Asked) -> Act:
    return gmpo(asked, bc=True)
