"""DTQL, agents/dtql.py of TianyuCodings/Diffusion_Trusted_Q_Learning: ten updates of each of its two stages."""

from types import SimpleNamespace

import numpy as np
import torch
from torch_tools import (
    ACTION,
    BATCH,
    OBSERVATION,
    UPDATES,
    Buffer,
    Parameters,
    batches,
    checkout,
    drawing,
    narrow,
    normal,
    played,
    save,
    uniform,
)

path = checkout("einops")

from agents import dtql  # noqa: E402
from diffusion import utils  # noqa: E402

*defaults, _ = utils.rand_log_logistic.__defaults__
utils.rand_log_logistic.__defaults__ = (*defaults, torch.float64)
draw = np.random.default_rng(3)
sets = {
    "dtql": {"alpha": 5.0, "gamma": 0.0, "expectile": 0.7},
    "dtql_antmaze": {"alpha": 1.0, "gamma": 1.0, "expectile": 0.9, "lr_decay": True, "lr_maxt": 2 * UPDATES},
}
for name, settings in sets.items():
    settings |= {"discount": 0.99, "lr": 1e-4, "tau": 0.005, "repeats": 50}
    with narrow():
        space = SimpleNamespace(high=np.ones(ACTION))
        agent = dtql.DTQL("cpu", OBSERVATION, ACTION, space, **settings)
    modules = {"behaviour": agent.bc_actor, "policy": agent.distill_actor}
    parameters = Parameters(draw, modules | {"critic": agent.critic, "critic_target": agent.critic_target})
    data = batches(draw)
    draws = {
        "behaviour_unit": uniform(draw, UPDATES, BATCH),
        "behaviour_noise": normal(draw, UPDATES, BATCH, ACTION),
        "action_noise": normal(draw, UPDATES, BATCH, ACTION),
        "unit": uniform(draw, UPDATES, BATCH),
        "noise": normal(draw, UPDATES, BATCH, ACTION),
    }
    arrays = {f"batch/{key}": value for key, value in data.items()} | {f"draw/{key}": x for key, x in draws.items()}
    arrays |= parameters.begin()
    pretraining, values = name == "dtql", {}

    # the first stage, which trains behaviour model and critic for 50,000 updates; not in the second fixture
    if pretraining:
        given = [draws[key][update] for update in range(UPDATES) for key in ("behaviour_unit", "behaviour_noise")]
        with drawing(*given):
            agent.pretrain(Buffer(data, lambda taken: None), BATCH, UPDATES)
        arrays |= {f"pretrained_{key}": value for key, value in parameters.moved(UPDATES).items() if value.any()}
    # the second
    buffer = Buffer(data, lambda taken: None)
    for update in range(UPDATES):
        with drawing(*(draws[key][update] for key in draws)):
            metrics = agent.train(buffer, BATCH)
        values |= {key: [*values.get(key, []), *value] for key, value in metrics.items()}
        if update in (0, UPDATES - 1):
            arrays |= parameters.moved(update + 1)
    arrays |= {f"info/{key}": np.asarray(value) for key, value in values.items()}
    candidates = normal(draw, 50, ACTION)
    arrays |= {"draw/candidates": candidates}
    arrays |= played(agent, data["observations"][0, 0], [candidates], 7)
    settings |= {"sigma_data": 0.5, "sigma_min": 0.002, "sigma_max": 80.0, "critic_lr": 3e-4}
    save(name, "github.com/TianyuCodings/Diffusion_Trusted_Q_Learning", path, "none", settings, **arrays)
