"""FAN, agents/fan.py of brianlsy98/FAN: ten updates with weights, batches and draws of our own."""

import numpy as np
from jax_tools import ACTION, BATCH, OBSERVATION, UPDATES, batches, checkout, drawing, flat, perturbed, save

path = checkout()

from agents import fan  # noqa: E402

draw = np.random.default_rng(0)
sets = {
    "fan": {},  # the code's own values
    "fan_min": {"z_agg": "min", "normalize_value_loss": True, "alpha1": 3.0, "alpha2": 0.03, "discount": 0.99},
}
NORMAL = ("next_noise", "value_noise", "flow_noise", "noise", "actor_value_noise")
for name, settings in sets.items():
    config = fan.get_config()
    config.update(actor_hidden_dims=(16, 16), value_hidden_dims=(16, 16), **settings)
    example = {"observations": np.zeros((1, OBSERVATION)), "actions": np.zeros((1, ACTION))}
    agent = fan.FANAgent.create(0, example, config)
    initial = {part: perturbed(tree, draw) for part, tree in agent.network.params.items()}
    network = agent.network.replace(params=dict(initial), opt_state=agent.network.tx.init(initial))
    agent = agent.replace(network=network)
    data = batches(draw)
    draws = {key: draw.standard_normal((UPDATES, BATCH, ACTION)) for key in NORMAL}
    draws |= {key: draw.uniform(size=(UPDATES, BATCH, 1)) for key in ("next_t", "t", "anchor_t")}
    arrays = {f"batch/{key}": value for key, value in data.items()} | {f"draw/{key}": x for key, x in draws.items()}

    def keep(arrays, number, agent):
        for part, tree in agent.network.params.items():
            arrays |= flat(f"{number}/{part}", tree)

    keep(arrays, 0, agent)
    order = ("next_noise", "next_t", "value_noise", "flow_noise", "t", "noise", "anchor_t", "actor_value_noise")
    for update in range(UPDATES):
        batch = {key: value[update] for key, value in data.items()}
        with drawing(*(draws[key][update] for key in order), np.zeros((BATCH, ACTION))):  # the last is of a metric
            agent, info = agent.update(batch)
        if update == 0:
            arrays |= {f"info/{key}": np.asarray(value) for key, value in info.items()}
        if update in (0, UPDATES - 1):
            keep(arrays, update + 1, agent)
    with drawing(draws["noise"][0]):
        arrays["act"] = np.asarray(agent.sample_actions(data["observations"][0], seed=agent.rng))
    for key in ("lr", "discount", "tau", "z_agg", "alpha1", "alpha2", "expectile", "normalize_value_loss"):
        settings[key] = config[key]
    save(name, "github.com/brianlsy98/FAN", path, "MIT", settings, **arrays)
