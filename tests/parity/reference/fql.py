"""FQL, agents/fql.py of seohongpark/fql: ten updates with weights, batches and draws of our own."""

import numpy as np
from jax_tools import ACTION, BATCH, OBSERVATION, UPDATES, batches, checkout, drawing, flat, perturbed, recording, save

path = checkout()

from agents import fql  # noqa: E402

draw = np.random.default_rng(0)
sets = {
    "fql": {"alpha": 10.0},  # the code's own values
    "fql_normalized": {"alpha": 3.0, "normalize_q_loss": True, "q_agg": "min"},
}
for name, settings in sets.items():
    config = fql.get_config()
    config.update(actor_hidden_dims=(16, 16), value_hidden_dims=(16, 16), **settings)
    agent = fql.FQLAgent.create(0, np.zeros((1, OBSERVATION)), np.zeros((1, ACTION)), config)
    initial = {part: perturbed(tree, draw) for part, tree in agent.network.params.items()}
    gradients: list = []
    optimizer = recording(agent.network.tx, gradients)
    network = agent.network.replace(params=dict(initial), tx=optimizer, opt_state=optimizer.init(initial))
    agent = agent.replace(network=network)
    data = batches(draw)
    normal = (UPDATES, BATCH, ACTION)
    draws = {"next_noise": draw.standard_normal(normal), "flow_noise": draw.standard_normal(normal)}
    draws |= {"t": draw.uniform(size=(UPDATES, BATCH, 1)), "noise": draw.standard_normal(normal)}
    arrays = {f"batch/{key}": value for key, value in data.items()} | {f"draw/{key}": x for key, x in draws.items()}
    for part, tree in initial.items():
        arrays |= flat(f"0/{part}", tree)
    for update in range(UPDATES):
        batch = {key: value[update] for key, value in data.items()}
        given = [draws[key][update] for key in ("next_noise", "flow_noise", "t", "noise")]
        with drawing(*given, np.zeros((BATCH, ACTION))):  # the last is of a metric
            agent, info = agent.update(batch)
        if update == 0:
            arrays |= {f"info/{key}": np.asarray(value) for key, value in info.items()}
            for part, tree in gradients[0].items():
                arrays |= {} if "target" in part else flat(f"gradient/{part}", tree)
        if update in (0, UPDATES - 1):
            for part, tree in agent.network.params.items():
                arrays |= flat(f"{update + 1}/{part}", tree)
    with drawing(draws["noise"][0]):
        arrays["act"] = np.asarray(agent.sample_actions(data["observations"][0], seed=agent.rng))
    arrays["flow"] = np.asarray(agent.compute_flow_actions(data["observations"][0], draws["noise"][0]))
    for key in ("lr", "discount", "tau", "q_agg", "alpha", "flow_steps", "normalize_q_loss", "layer_norm"):
        settings[key] = config[key]
    save(name, "github.com/seohongpark/fql", path, "MIT", settings, **arrays)
