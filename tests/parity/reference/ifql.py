"""IFQL, agents/ifql.py of seohongpark/fql: ten updates with weights, batches and draws of our own, and its choice."""

import numpy as np
from jax_tools import ACTION, BATCH, OBSERVATION, UPDATES, batches, checkout, drawing, flat, perturbed, recording, save

path = checkout()

from agents import ifql  # noqa: E402

draw = np.random.default_rng(1)
config = ifql.get_config()
settings = {"actor_hidden_dims": (16, 16), "value_hidden_dims": (16, 16), "num_samples": 8}
config.update(**settings)
agent = ifql.IFQLAgent.create(0, np.zeros((1, OBSERVATION)), np.zeros((1, ACTION)), config)
initial = {part: perturbed(tree, draw) for part, tree in agent.network.params.items()}
gradients: list = []
optimizer = recording(agent.network.tx, gradients)
network = agent.network.replace(params=dict(initial), tx=optimizer, opt_state=optimizer.init(initial))
agent = agent.replace(network=network)
data = batches(draw)
draws = {"flow_noise": draw.standard_normal((UPDATES, BATCH, ACTION)), "t": draw.uniform(size=(UPDATES, BATCH, 1))}
arrays = {f"batch/{key}": value for key, value in data.items()} | {f"draw/{key}": x for key, x in draws.items()}
for part, tree in initial.items():
    arrays |= flat(f"0/{part}", tree)
for update in range(UPDATES):
    batch = {key: value[update] for key, value in data.items()}
    with drawing(*(draws[key][update] for key in ("flow_noise", "t"))):
        agent, info = agent.update(batch)
    if update == 0:
        arrays |= {f"info/{key}": np.asarray(value) for key, value in info.items()}
        for part, tree in gradients[0].items():
            arrays |= {} if "target" in part else flat(f"gradient/{part}", tree)
    if update in (0, UPDATES - 1):
        for part, tree in agent.network.params.items():
            arrays |= flat(f"{update + 1}/{part}", tree)
arrays["noise"] = draw.standard_normal((BATCH, settings["num_samples"], ACTION))
chosen = []
for row in range(BATCH):  # it chooses for one observation at a time
    with drawing(arrays["noise"][row]):
        chosen.append(np.asarray(agent.sample_actions(data["observations"][0][row], seed=agent.rng)))
arrays["act"] = np.stack(chosen)
for key in ("lr", "discount", "tau", "expectile", "flow_steps", "layer_norm"):
    settings[key] = config[key]
save("ifql", "github.com/seohongpark/fql", path, "MIT", settings, **arrays)
