"""Diffusion-QL, agents/ql_diffusion.py of Zhendong-Wang/Diffusion-Policies-for-Offline-RL: ten updates.

The same file is in quantumiracle/Consistency_Model_For_Reinforcement_Learning, where it gives the same numbers.
"""

import numpy as np
import torch
from torch_tools import (
    ACTION,
    BATCH,
    OBSERVATION,
    UPDATES,
    Buffer,
    Parameters,
    Scalars,
    batches,
    checkout,
    drawing,
    narrow,
    normal,
    played,
    save,
    uniform,
)

path = checkout("utils.logger")

from agents import helpers, ql_diffusion  # noqa: E402

helpers.vp_beta_schedule.__defaults__ = (torch.float64,)
T, START = 5, 996  # START: the number of updates made before, so that the moving average begins among the ten
draw = np.random.default_rng(1)
for name, settings in {"diffusion_ql": {"eta": 1.0}, "diffusion_ql_max_q": {"eta": 2.0, "max_q_backup": True}}.items():
    settings |= {"discount": 0.99, "tau": 0.005, "beta_schedule": "vp", "n_timesteps": T, "lr": 3e-4, "grad_norm": 0.2}
    with narrow():
        agent = ql_diffusion.Diffusion_QL(OBSERVATION, ACTION, 1.0, "cpu", **settings)
    agent.step = START
    modules = {"actor": agent.actor.model, "ema": agent.ema_model.model}
    parameters = Parameters(draw, modules | {"critic": agent.critic, "critic_target": agent.critic_target})
    data, copies = batches(draw), 10 if "max_q_backup" in settings else 1
    draws = {
        "next_noise": normal(draw, UPDATES, T, BATCH * copies, ACTION),
        "t": draw.integers(0, T, (UPDATES, BATCH)),
        "noise": normal(draw, UPDATES, BATCH, ACTION),
        "action_noise": normal(draw, UPDATES, T, BATCH, ACTION),
        "coin": uniform(draw, UPDATES),
    }
    given = []
    for update in range(UPDATES):  # the noise of the last step of each sample is multiplied by 0
        given += [*draws["next_noise"][update], np.zeros((BATCH * copies, ACTION))]
        given += [draws["t"][update], draws["noise"][update]]
        given += [*draws["action_noise"][update], np.zeros((BATCH, ACTION)), draws["coin"][update]]
    arrays = {f"batch/{key}": value for key, value in data.items()} | {f"draw/{key}": x for key, x in draws.items()}
    arrays |= parameters.begin()

    def called(taken: int, parameters=parameters, arrays=arrays) -> None:
        if taken == 1:
            arrays |= parameters.moved(1)

    scalars = Scalars()
    with drawing(*given):
        metrics = agent.train(Buffer(data, called), UPDATES, BATCH, scalars)
    arrays |= parameters.moved(UPDATES)
    for key, values in metrics.items():
        arrays[f"info/{key}"] = np.asarray(values)
    for key, value in scalars.items():
        arrays[f"info/{key}"] = np.asarray(value)
    candidates = normal(draw, T, 50, ACTION)
    arrays |= {"draw/candidates": candidates}
    arrays |= played(agent, data["observations"][0, 0], [*candidates, np.zeros((50, ACTION))], 7)
    settings |= {"ema_decay": 0.995, "step_start_ema": agent.step_start_ema, "update_ema_every": 5, "start": START}
    repository = "github.com/Zhendong-Wang/Diffusion-Policies-for-Offline-RL"
    save(name, repository, path, "Apache-2.0", settings, **arrays)
