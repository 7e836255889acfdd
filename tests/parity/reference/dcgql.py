"""DAC and QSM, agents/dcgql.py of ColinQiyangLi/qam: ten updates with weights, batches and draws of our own.

The code takes losses to the power of the mask of valid rows, where it should multiply; all rows are valid here, as they
are without action chunks, and both are the same.
"""

import numpy as np
from jax_tools import ACTION, BATCH, OBSERVATION, UPDATES, batches, checkout, drawing, flat, perturbed, save

path = checkout()

import tensorflow_probability.substrates.jax  # noqa: E402, F401  # or the package has no such attribute
from agents import dcgql  # noqa: E402

STEPS = 4
draw = np.random.default_rng(5)
shared = {"num_qs": 3, "diffusion_steps": STEPS, "time_dim": 8, "horizon_length": 1}
sets = {  # of its commands in experiments/reproduce.py
    "qsm": {"actor_loss_type": "qsm", "inv_temp": 3.0, "alpha": 10.0, "clip_sampler_after": True},
    "dac_ogbench": {"actor_loss_type": "dac", "alpha": 0.3, "clip_sampler_before": True},
}
for name, own in sets.items():
    settings = shared | own
    config = dcgql.get_config()
    config.update(actor_hidden_dims=(8, 8), value_hidden_dims=(8, 8), **settings)
    agent = dcgql.DCGQLAgent.create(0, np.zeros(OBSERVATION), np.zeros(ACTION), config)
    initial = {part: perturbed(tree, draw) for part, tree in agent.network.params.items()}
    network = agent.network.replace(params=dict(initial), opt_state=agent.network.tx.init(initial))
    agent = agent.replace(network=network)
    data, normal = batches(draw), (UPDATES, BATCH, ACTION)
    draws = {"next_noise": draw.standard_normal((UPDATES, STEPS, BATCH, ACTION))}
    draws |= {"level": draw.integers(1, STEPS + 1, (UPDATES, BATCH)), "noise": draw.standard_normal(normal)}
    arrays = {f"batch/{key}": value for key, value in data.items()} | {f"draw/{key}": x for key, x in draws.items()}
    for part, tree in initial.items():
        arrays |= flat(f"0/{part}", tree)
    nothing = np.zeros((BATCH, ACTION))  # that the last step of sampling draws
    for update in range(UPDATES):
        batch = {key: value[update][:, None] for key, value in data.items()} | {"valid": np.ones((BATCH, 1))}
        batch["observations"] = batch["observations"][:, 0]
        given = [*draws["next_noise"][update], nothing, draws["level"][update], draws["noise"][update]]
        with drawing(*given):
            agent, info = agent.update(batch)
        if update == 0:
            arrays |= {f"info/{key}": np.asarray(value) for key, value in info.items()}
        if update in (0, UPDATES - 1):
            for part, tree in agent.network.params.items():
                arrays |= flat(f"{update + 1}/{part}", tree)
    with drawing(*draws["next_noise"][0], nothing):
        arrays["act"] = np.asarray(agent.sample_actions(data["observations"][0], agent.rng))
    for key in ("lr", "discount", "tau", "rho", "value_layer_norm", "beta_schedule", "clip_grad_norm"):
        settings[key] = config[key]
    save(name, "github.com/ColinQiyangLi/qam", path, "MIT", settings, **arrays)
