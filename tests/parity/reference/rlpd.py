"""RLPD, rlpd/agents/sac/sac_learner.py of ikostrikov/rlpd: five updates of two batches each, with draws of our own.

Actions are sampled here, from the reference's mean and standard deviation; their log-density is its own. Its gym and
data sets are not needed.
"""

import sys
import types
from types import SimpleNamespace

import numpy as np
from jax_tools import ACTION, BATCH, OBSERVATION, UPDATES, batches, checkout, drawing, flat, perturbed, save

path = checkout()
sys.modules["gym"] = types.ModuleType("gym")
sys.modules["gym"].Space = sys.modules["gym"].Env = object
for name in ("rlpd", "rlpd.agents"):  # without what they import of pixels and data
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [str(path / name.replace(".", "/"))]
sys.modules["rlpd.data"] = types.ModuleType("rlpd.data")
sys.modules["rlpd.data.dataset"] = types.ModuleType("rlpd.data.dataset")
sys.modules["rlpd.data.dataset"].DatasetDict = dict

import tensorflow_probability.substrates.jax  # noqa: E402, F401  # or the package has no such attribute
from rlpd.agents.sac.sac_learner import SACLearner  # noqa: E402
from rlpd.distributions import tanh_transformed  # noqa: E402

UTD = 2
draw = np.random.default_rng(0)
sets = {  # configs/rlpd_config.py, and the command of AntMaze
    "rlpd": {"num_qs": 4, "num_min_qs": 2, "critic_layer_norm": True, "hidden_dims": (16, 16)},
    "rlpd_antmaze": {
        "num_qs": 4,
        "num_min_qs": 1,
        "critic_layer_norm": True,
        "hidden_dims": (8, 8, 8),
        "backup_entropy": False,
    },
}


def space(size: int) -> SimpleNamespace:
    return SimpleNamespace(shape=(size,), sample=lambda: np.zeros(size))


def kept(agent: SACLearner, updates: int) -> dict[str, np.ndarray]:
    parts = ("actor", "critic", "target_critic", "temp")
    return {key: x for part in parts for key, x in flat(f"{updates}/{part}", getattr(agent, part).params).items()}


for name, settings in sets.items():
    agent = SACLearner.create(0, space(OBSERVATION), space(ACTION), **settings)
    parts = {}
    for part in ("actor", "critic", "temp"):
        state = getattr(agent, part)
        parameters = perturbed(state.params, draw)
        parts[part] = state.replace(params=parameters, opt_state=state.tx.init(parameters))
    agent = agent.replace(**parts, target_critic=agent.target_critic.replace(params=parts["critic"].params))
    data, normal = batches(draw), (UPDATES, BATCH, ACTION)
    draws = {"next_noise": draw.standard_normal(normal), "noise": draw.standard_normal(normal)}
    members = [draw.permutation(settings["num_qs"])[: settings["num_min_qs"]] for _ in range(UPDATES)]
    draws["members"] = np.array(members)
    sampled: list = []

    def sample(self, seed=None, sampled=sampled):
        """Of a tanh-Gaussian, for the next of these draws."""
        normal = self.distribution
        return self.bijector.forward(normal.loc + normal.stddev() * sampled.pop(0))

    tanh_transformed.TanhTransformedDistribution.sample = sample
    arrays = {f"batch/{key}": value for key, value in data.items()} | {f"draw/{key}": x for key, x in draws.items()}

    arrays |= kept(agent, 0)
    for update in range(UPDATES // UTD):
        numbers = range(UTD * update, UTD * (update + 1))
        batch = {key: np.concatenate(value[list(numbers)]) for key, value in data.items()}
        sampled += [*(draws["next_noise"][number] for number in numbers), draws["noise"][numbers[-1]]]
        with drawing(*(draws["members"][number] for number in numbers), names=("choice",)):
            agent, info = agent.update.__wrapped__(agent, batch, UTD)
        assert not sampled
        if update == 0:
            arrays |= {f"info/{key}": np.asarray(value) for key, value in info.items()}
        if update in (0, UPDATES // UTD - 1):
            arrays |= kept(agent, 1 if update == 0 else 10)
    arrays["act"] = np.asarray(agent.eval_actions(data["observations"][0]))
    sampled.append(draws["noise"][0])
    arrays["explore"] = np.asarray(agent.sample_actions(data["observations"][0])[0])
    settings |= {"utd_ratio": UTD, "tau": agent.tau, "discount": agent.discount}
    settings |= {"target_entropy": agent.target_entropy, "backup_entropy": agent.backup_entropy}
    save(name, "github.com/ikostrikov/rlpd", path, "MIT", settings, **arrays)
