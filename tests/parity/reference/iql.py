"""IQL, learner.py of ikostrikov/implicit_q_learning: ten updates with our own weights and batches; with dropout, too.

What it takes of TensorFlow Probability is distrax's here.
"""

import sys
import types
from unittest import mock

import distrax
import flax
import jax
import numpy as np
from jax_tools import ACTION, BATCH, OBSERVATION, UPDATES, batches, checkout, flat, perturbed, recording, save

path = checkout()
for name in ("tensorflow_probability", "tensorflow_probability.substrates"):
    sys.modules[name] = types.ModuleType(name)
sys.modules["tensorflow_probability.substrates"].jax = types.SimpleNamespace(distributions=distrax, bijectors=distrax)
distrax.TransformedDistribution = distrax.Transformed
jax.tree_multimap = jax.tree_util.tree_map  # its name in later versions
initialise = flax.linen.Module.init
flax.linen.Module.init = lambda *given, **more: flax.core.freeze(initialise(*given, **more))  # as in earlier ones

jax.jit = lambda function, **more: function  # which refuses one of theirs today, and is off here anyway

from common import Batch  # noqa: E402
from learner import Learner  # noqa: E402

settings = {"hidden_dims": (16, 16), "expectile": 0.7, "temperature": 3.0, "max_steps": 2 * UPDATES}
RATE, known = 0.1, {}


def train(kept: np.ndarray | None) -> dict[str, np.ndarray]:
    """What is held against ours. kept [updates, batch, 32]: what multiplies the hidden units of the policy."""
    draw = np.random.default_rng(6)
    rate = None if kept is None else RATE
    agent = Learner(0, np.zeros((1, OBSERVATION)), np.zeros((1, ACTION)), dropout_rate=rate, **settings)
    parts, gradients = ("actor", "critic", "value", "target_critic"), {"actor": [], "critic": [], "value": []}
    for part in parts:
        model = getattr(agent, part)
        model = model.replace(params=perturbed(model.params, draw))
        if part in gradients:
            optimizer = recording(model.tx, gradients[part])
            model = model.replace(tx=optimizer, opt_state=optimizer.init(model.params))
        setattr(agent, part, model)
    data = batches(draw)
    data["rewards"] = 0.3 * data["rewards"]
    arrays = {f"batch/{key}": value for key, value in data.items()}
    for part in parts:
        arrays |= flat(f"0/{part}", getattr(agent, part).params)
    for update in range(UPDATES):
        left = [] if kept is None else np.split(kept[update], 2, -1)

        def dropout(rate, left=left):
            return lambda x, deterministic: x if deterministic else x * left.pop(0)

        with mock.patch.object(flax.linen, "Dropout", dropout):
            info = agent.update(Batch(**{key: value[update] for key, value in data.items()}))
        assert not left
        if update == 0:
            arrays |= {f"info/{key}": np.asarray(value) for key, value in info.items()}
        if update in (0, UPDATES - 1):
            for part in parts:
                arrays |= flat(f"{update + 1}/{part}", getattr(agent, part).params)
    for part, found in gradients.items():
        arrays |= flat(f"gradient/{part}", found[0])
    known.update({"tau": agent.tau, "discount": agent.discount})
    return arrays


kept = (np.random.default_rng(7).random((UPDATES, BATCH, 32)) >= RATE) / (1 - RATE)
arrays = train(None)
with_dropout = {f"dropout/{key}": value for key, value in train(kept).items() if "actor" in key and key[0] != "0"}
settings |= known | {"batch": BATCH, "dropout_rate": RATE}
arrays |= with_dropout | {"dropout/kept": kept}
save("iql", "github.com/ikostrikov/implicit_q_learning", path, "MIT", settings, **arrays)
