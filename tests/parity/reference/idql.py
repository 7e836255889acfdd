"""IDQL, jaxrl5/agents/ddpm_iql_simple of philippe-eecs/IDQL: ten updates, and the actions that it chooses.

Dropout's masks are given too, by a stand-in for jax.random.bernoulli.
"""

import functools
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
from jax_tools import ACTION, BATCH, OBSERVATION, UPDATES, batches, checkout, drawing, flat, perturbed, recording, save


class Anything(types.ModuleType):
    """A module of which the learner uses types only."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


path = checkout()
for name in ("gym", "gym.spaces", "gym.utils", "d4rl", "mjrl", "dmcgym", "wandb"):
    sys.modules[name] = Anything(name)
sys.modules["gym"].spaces = sys.modules["gym.spaces"]
for name in ("jaxrl5.agents", "jaxrl5.data", "jaxrl5.agents.ddpm_iql_simple"):  # without their other learners
    sys.modules[name] = module = types.ModuleType(name)
    module.__path__ = [str(path / name.replace(".", "/"))]
sys.modules["jaxrl5.networks.pixel_multiplexer"] = pixels = types.ModuleType("jaxrl5.networks.pixel_multiplexer")
pixels.PixelMultiplexer = None

from jaxrl5.agents.ddpm_iql_simple import ddpm_iql_learner as learner  # noqa: E402


class Box:
    """A space as the learner asks for it."""

    def __init__(self, size):
        self.shape = (size,)

    def sample(self):
        return np.zeros(self.shape)


draw = np.random.default_rng(3)
settings = {"critic_hidden_dims": (8, 8), "time_dim": 4, "actor_num_blocks": 2, "actor_dropout_rate": 0.1}
settings |= {"critic_hyperparam": 0.9, "decay_steps": 20, "N": 8, "actor_layer_norm": True, "value_layer_norm": True}
width = 8
learner.MLPResNet = functools.partial(learner.MLPResNet, hidden_dim=width)
agent = learner.DDPMIQLLearner.create(0, Box(OBSERVATION), Box(ACTION), **settings)
parts = ("score_model", "target_score_model", "critic", "target_critic", "value")
initial = {part: perturbed(getattr(agent, part).params, draw, 0.1) for part in parts}
gradients: dict[str, list] = {"score_model": [], "critic": [], "value": []}
new = {}
for part in parts:
    state = getattr(agent, part)
    if part in gradients:
        optimizer = recording(state.tx, gradients[part])
        new[part] = state.replace(params=initial[part], tx=optimizer, opt_state=optimizer.init(initial[part]))
    else:
        new[part] = state.replace(params=initial[part])
agent = agent.replace(**new)
data = batches(draw)
shape = (UPDATES, BATCH)
draws = {"step": draw.integers(0, agent.T, shape), "noise": draw.standard_normal((*shape, ACTION))}
draws["kept"] = draw.uniform(size=(UPDATES, settings["actor_num_blocks"], BATCH, width)) < 1 - 0.1
arrays = {f"batch/{key}": value for key, value in data.items()} | {f"draw/{key}": x for key, x in draws.items()}
for part, tree in initial.items():
    arrays |= flat(f"0/{part}", tree)
real = jax.random.bernoulli
for update in range(UPDATES):
    batch = {key: value[update] for key, value in data.items()}
    kept = list(draws["kept"][update])
    jax.random.bernoulli = lambda key, p, shape, kept=kept, **more: jnp.asarray(kept.pop(0))
    with drawing(draws["step"][update], draws["noise"][update]):
        agent, info = agent.update(batch)
    assert not kept
    if update == 0:
        arrays |= {f"info/{key}": np.asarray(value) for key, value in info.items()}
        for part, found in gradients.items():
            arrays |= flat(f"gradient/{part}", found[0])
    if update in (0, UPDATES - 1):
        for part in parts:
            arrays |= flat(f"{update + 1}/{part}", getattr(agent, part).params)
jax.random.bernoulli = real
rows = 6
arrays["sampling/noise"] = draw.standard_normal((rows, agent.T + 1, settings["N"], ACTION))
chosen = []
for row in range(rows):  # it chooses for one observation at a time
    with drawing(*arrays["sampling/noise"][row]):
        action, _ = agent.eval_actions(data["observations"][0][row])
        chosen.append(action)
arrays["act"] = np.stack(chosen)
arrays["alpha_hats"] = np.asarray(agent.alpha_hats)
for key in ("tau", "actor_tau", "discount", "T", "clip_sampler", "ddpm_temperature"):
    settings[key] = float(getattr(agent, key))
settings |= {"hidden": width, "actor_lr": 3e-4, "weight_decay": 1e-4}
save("idql", "github.com/philippe-eecs/IDQL", path, "none stated", settings, **arrays)
