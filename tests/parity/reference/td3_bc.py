"""TD3+BC, TD3_BC.py of sfujim/TD3_BC: ten updates with weights, batches and noise of our own."""

import numpy as np
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
    save,
)

path = checkout()

import TD3_BC as reference  # noqa: E402

draw = np.random.default_rng(5)
with narrow():
    agent = reference.TD3_BC(OBSERVATION, ACTION, 1.0)
parts = ("actor", "actor_target", "critic", "critic_target")
parameters = Parameters(draw, {part: getattr(agent, part) for part in parts})
data, noise = batches(draw), normal(draw, UPDATES, BATCH, ACTION)
arrays = {f"batch/{key}": value for key, value in data.items()} | {"draw/noise": noise} | parameters.begin()
buffer = Buffer(data, lambda taken: None)
for update in range(UPDATES):
    with drawing(noise[update]):
        agent.train(buffer, BATCH)
    if update in (0, 1, UPDATES - 1):  # the actor moves at the second
        arrays |= parameters.moved(update + 1)
names = ("discount", "tau", "policy_noise", "noise_clip", "policy_freq", "alpha")
save("td3_bc", "github.com/sfujim/TD3_BC", path, "MIT", {name: getattr(agent, name) for name in names}, **arrays)
