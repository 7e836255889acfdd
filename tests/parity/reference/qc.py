"""Q-chunking, agents/acfql.py of ColinQiyangLi/qc: its batches of sequences, and ten updates with draws of our own."""

import numpy as np
from jax_tools import BATCH, OBSERVATION, UPDATES, checkout, drawing, flat, perturbed, recording, save

path = checkout()

from agents import acfql  # noqa: E402
from utils.datasets import Dataset  # noqa: E402

ACTION, LENGTH, CANDIDATES, ROWS = 2, 3, 4, 60
draw = np.random.default_rng(0)
ends = np.isin(np.arange(ROWS), (6, 7, 20, 33, 34, 48, ROWS - 1))
rows = {
    "observations": draw.standard_normal((ROWS, OBSERVATION)),
    "actions": draw.uniform(-1, 1, (ROWS, ACTION)),
    "rewards": draw.standard_normal(ROWS),
    "next_observations": draw.standard_normal((ROWS, OBSERVATION)),
    "masks": (draw.uniform(size=ROWS) > 0.15).astype(float),
    "terminals": ends.astype(float),
}
starts = draw.integers(ROWS - LENGTH + 1, size=(UPDATES, BATCH))
sets = {
    "qc": {"actor_type": "best-of-n", "actor_num_samples": CANDIDATES},
    "qc_fql": {"actor_type": "distill-ddpg"},
    "fql_n": {"actor_type": "distill-ddpg", "action_chunking": False, "alpha": 3.0},
}
for name, settings in sets.items():
    config = acfql.get_config()
    config.update(actor_hidden_dims=(16, 16), value_hidden_dims=(16, 16), horizon_length=LENGTH, **settings)
    agent = acfql.ACFQLAgent.create(0, np.zeros(OBSERVATION), np.zeros(ACTION), config)
    initial = {part: perturbed(tree, draw) for part, tree in agent.network.params.items()}
    gradients: list = []
    optimizer = recording(agent.network.tx, gradients)
    network = agent.network.replace(params=dict(initial), tx=optimizer, opt_state=optimizer.init(initial))
    agent = agent.replace(network=network)
    size = ACTION * (LENGTH if config["action_chunking"] else 1)
    best = config["actor_type"] == "best-of-n"
    normal = (UPDATES, BATCH, size)
    draws = {"next_noise": draw.standard_normal((UPDATES, BATCH, CANDIDATES, size) if best else normal)}
    draws |= {"flow_noise": draw.standard_normal(normal), "t": draw.uniform(size=(UPDATES, BATCH, 1))}
    draws |= {} if best else {"noise": draw.standard_normal(normal)}
    arrays = {f"rows/{key}": value for key, value in rows.items()} | {f"draw/{key}": x for key, x in draws.items()}
    arrays["starts"] = starts
    for part, tree in initial.items():
        arrays |= flat(f"0/{part}", tree)
    for update in range(UPDATES):
        np.random.randint = lambda *given, size, update=update: starts[update]
        batch = Dataset.create(freeze=False, **rows).sample_sequence(BATCH, LENGTH, config["discount"])
        if update == 0:
            arrays |= {f"batch/{key}": batch[key] for key in ("rewards", "masks", "valid")}
        with drawing(*(value[update] for value in draws.values())):
            agent, info = agent.update(batch)
        if update == 0:
            arrays |= {f"info/{key}": np.asarray(value) for key, value in info.items()}
        if update in (0, UPDATES - 1):
            for part, tree in agent.network.params.items():
                arrays |= flat(f"{update + 1}/{part}", tree)
    for key in ("lr", "discount", "tau", "q_agg", "alpha", "flow_steps", "layer_norm", "horizon_length"):
        settings[key] = config[key]
    save(name, "github.com/ColinQiyangLi/qc", path, "MIT", settings, **arrays)
