"""DSRL and EXPO, agents/dsrl.py and agents/fedit.py of ColinQiyangLi/qam: ten updates with draws of our own.

The policies' actions are sampled here, from the reference's mean and standard deviation; their log-density is its own.
"""

import numpy as np
import tensorflow_probability.substrates.jax  # noqa: F401  # or the package has no such attribute
from jax_tools import ACTION, BATCH, OBSERVATION, UPDATES, batches, checkout, drawing, flat, perturbed, save

path = checkout()

from agents import dsrl, fedit  # noqa: E402
from utils import networks  # noqa: E402

STEPS = 4
draw = np.random.default_rng(0)
shared = {"num_qs": 3, "flow_steps": STEPS, "horizon_length": 1, "actor_hidden_dims": (8, 8)}
shared["value_hidden_dims"] = (8, 8)
sets = {
    "dsrl": (dsrl, dsrl.DSRLAgent, {"noise_scale": 0.6}),
    "dsrl_best": (dsrl, dsrl.DSRLAgent, {"noise_scale": 1.4, "best_of_n": 3}),
    "expo": (fedit, fedit.FEditAgent, {"edit_scale": 0.3}),
    "expo_best": (fedit, fedit.FEditAgent, {"edit_scale": 0.5, "best_of_n": 3}),
}
for name, (module, kind, own) in sets.items():
    settings = shared | own
    config = module.get_config()
    config.update(**settings)
    agent = kind.create(0, np.zeros(OBSERVATION), np.zeros(ACTION), config)
    initial = {part: perturbed(tree, draw) for part, tree in agent.network.params.items()}
    network = agent.network.replace(params=dict(initial), opt_state=agent.network.tx.init(initial))
    agent = agent.replace(network=network)
    data, candidates = batches(draw), config["best_of_n"]
    several, normal = (UPDATES, BATCH, candidates, ACTION), (UPDATES, BATCH, ACTION)
    draws = {"flow_noise": draw.standard_normal(normal), "t": draw.uniform(size=(UPDATES, BATCH, 1))}
    draws |= {"noise": draw.standard_normal(normal), "next": draw.standard_normal(several)}
    draws |= {"latent": draw.standard_normal(normal)} if module is dsrl else {}
    draws |= (
        {"edit": draw.standard_normal(normal), "next_edit": draw.standard_normal(several)} if module is fedit else {}
    )
    sampled: list = []

    def sample(self, seed=None, sampled=sampled):
        """Of a tanh-Gaussian, for the next of these draws."""
        normal = self.distribution
        return self.bijector.forward(normal.loc + normal.stddev() * sampled.pop(0))

    networks.TanhTransformedDistribution.sample = sample
    arrays = {f"batch/{key}": value for key, value in data.items()} | {f"draw/{key}": x for key, x in draws.items()}
    for part, tree in initial.items():
        arrays |= flat(f"0/{part}", tree)
    for update in range(UPDATES):
        batch = {key: value[update][:, None] for key, value in data.items()} | {"valid": np.ones((BATCH, 1))}
        batch["observations"] = batch["observations"][:, 0]
        one = {key: value[update] for key, value in draws.items()}
        if module is dsrl:
            sampled += [one["next"], one["noise"]]
            given = [one["latent"], one["flow_noise"], one["t"]]
        else:
            sampled += [one["next_edit"], one["edit"]]
            given = [one["next"], one["flow_noise"], one["t"], one["noise"]]
        with drawing(*given):
            agent, info = agent.update(batch)
        assert not sampled
        if update == 0:
            arrays |= {f"info/{key}": np.asarray(value) for key, value in info.items()}
        if update in (0, UPDATES - 1):
            for part, tree in agent.network.params.items():
                arrays |= flat(f"{update + 1}/{part}", tree)
    sampled.append(draws["next" if module is dsrl else "next_edit"][0])
    with drawing(*([draws["next"][0]] if module is fedit else [])):
        arrays["act"] = np.asarray(agent.sample_actions(data["observations"][0], rng=agent.rng))
    for key in ("lr", "discount", "tau", "rho", "value_layer_norm", "best_of_n"):
        settings[key] = config[key]
    save(name, "github.com/ColinQiyangLi/qam", path, "MIT", settings, **arrays)
