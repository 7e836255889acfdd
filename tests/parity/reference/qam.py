"""QAM, QAM-F and QAM-E, agents/qam.py of ColinQiyangLi/qam: ten updates with weights, batches and draws of our own.

The edits of QAM-E are sampled here, from the reference's mean and standard deviation; their log-density is its own.
"""

import numpy as np
import tensorflow_probability.substrates.jax  # noqa: F401  # or the package has no such attribute
from jax_tools import ACTION, BATCH, OBSERVATION, UPDATES, batches, checkout, drawing, flat, perturbed, save

path = checkout()

from agents import qam  # noqa: E402
from utils import networks  # noqa: E402

STEPS, UNUSED = 4, "modules_target_actor_fast"
draw = np.random.default_rng(0)
shared = {"num_qs": 3, "flow_steps": STEPS, "horizon_length": 1, "inv_temp": 2.0}
sets = {"qam": {}, "qam_f": {"fql_alpha": 10.0}, "qam_e": {"edit_scale": 0.3}}
for name, own in sets.items():
    settings, hidden = shared | own, (16, 16) if name == "qam" else (8, 8)
    config = qam.get_config()
    config.update(actor_hidden_dims=hidden, value_hidden_dims=hidden, **settings)
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
    edited = name == "qam_e"
    if name != "qam":
        draws["noise"] = draw.standard_normal(normal)
    if edited:
        draws |= {"next_edit": draw.standard_normal(normal), "edit": draw.standard_normal(normal)}
    edits: list = []

    def sample(self, seed=None, edits=edits):
        """Of a tanh-Gaussian, for the next of the edits' draws."""
        normal = self.distribution
        return self.bijector.forward(normal.loc + normal.stddev() * edits.pop(0))

    networks.TanhTransformedDistribution.sample = sample
    arrays = {f"batch/{key}": value for key, value in data.items()} | {f"draw/{key}": x for key, x in draws.items()}
    for part, tree in initial.items():
        arrays |= flat(f"0/{part}", tree) if part != UNUSED else {}
    for update in range(UPDATES):
        batch = {key: value[update][:, None] for key, value in data.items()} | {"valid": np.ones((BATCH, 1))}
        batch["observations"] = batch["observations"][:, 0]
        given = [draws["next_noise"][update][:, None], draws["flow_noise"][update], draws["t"][update]]
        sde = [*draws["sde_noise"][update].swapaxes(0, 1), np.zeros((BATCH, ACTION))]  # the last step's is not used
        rest = [draws["noise"][update]] if "noise" in draws else []
        edits += [draws["next_edit"][update][:, None], draws["edit"][update]] if edited else []
        with drawing(*given, *sde, *rest):
            agent, info = agent.update(batch)
        assert not edits
        if update == 0:
            arrays |= {f"info/{key}": np.asarray(value) for key, value in info.items()}
        if update in (0, UPDATES - 1):
            for part, tree in agent.network.params.items():
                arrays |= flat(f"{update + 1}/{part}", tree) if part != UNUSED else {}
    edits += [draws["next_edit"][0][:, None]] if edited else []
    with drawing(draws["next_noise"][0][:, None]):
        arrays["act"] = np.asarray(agent.sample_actions(data["observations"][0], rng=agent.rng))
    known = ("lr", "discount", "tau", "rho", "value_layer_norm", "target_actor", "residual", "clip_adj", "clip_grad")
    for key in (*known, "edit_target_entropy"):
        settings[key] = config[key]
    save(name, "github.com/ColinQiyangLi/qam", path, "MIT", settings, **arrays)
