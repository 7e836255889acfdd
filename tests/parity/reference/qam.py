"""QAM, agents/qam.py of ColinQiyangLi/qam: ten updates with weights, batches and draws of our own."""

import sys
import types

import distrax
import numpy as np
from jax_tools import ACTION, BATCH, OBSERVATION, UPDATES, batches, checkout, drawing, flat, perturbed, save

path = checkout()
distrax.TransformedDistribution = distrax.Transformed  # of a library that is only needed for QAM's other variants
probability = types.ModuleType("tensorflow_probability")
probability.substrates = types.SimpleNamespace(jax=types.SimpleNamespace(distributions=distrax, bijectors=distrax))
sys.modules["tensorflow_probability"] = probability

from agents import qam  # noqa: E402

STEPS = 4
draw = np.random.default_rng(0)
settings = {"num_qs": 3, "flow_steps": STEPS, "horizon_length": 1, "inv_temp": 2.0}
config = qam.get_config()
config.update(actor_hidden_dims=(16, 16), value_hidden_dims=(16, 16), **settings)
agent = qam.QAMAgent.create(0, np.zeros(OBSERVATION), np.zeros(ACTION), config)
initial = {part: perturbed(tree, draw) for part, tree in agent.network.params.items()}
network = agent.network.replace(params=dict(initial), opt_state=agent.network.tx.init(initial))
agent = agent.replace(network=network)
data, normal = batches(draw), (UPDATES, BATCH, ACTION)
draws = {"next_noise": draw.standard_normal(normal), "flow_noise": draw.standard_normal(normal)}
draws |= {
    "t": draw.uniform(size=(UPDATES, BATCH, 1)),
    "sde_noise": draw.standard_normal((UPDATES, BATCH, STEPS, ACTION)),
}
arrays = {f"batch/{key}": value for key, value in data.items()} | {f"draw/{key}": x for key, x in draws.items()}
for part, tree in initial.items():
    arrays |= flat(f"0/{part}", tree)
for update in range(UPDATES):
    batch = {key: value[update][:, None] for key, value in data.items()} | {"valid": np.ones((BATCH, 1))}
    batch["observations"] = batch["observations"][:, 0]
    given = [draws["next_noise"][update][:, None], draws["flow_noise"][update], draws["t"][update]]
    sde = [*draws["sde_noise"][update].swapaxes(0, 1), np.zeros((BATCH, ACTION))]  # the last step's is not used
    with drawing(*given, *sde):
        agent, info = agent.update(batch)
    if update == 0:
        arrays |= {f"info/{key}": np.asarray(value) for key, value in info.items()}
    if update in (0, UPDATES - 1):
        for part, tree in agent.network.params.items():
            arrays |= flat(f"{update + 1}/{part}", tree)
with drawing(draws["next_noise"][0][:, None]):
    arrays["act"] = np.asarray(agent.sample_actions(data["observations"][0], rng=agent.rng))
for key in ("lr", "discount", "tau", "rho", "value_layer_norm", "target_actor", "residual", "clip_adj", "clip_grad"):
    settings[key] = config[key]
save("qam", "github.com/ColinQiyangLi/qam", path, "MIT", settings, **arrays)
