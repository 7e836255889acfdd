"""FAC, agents/fac.py of JongseongChae/FAC: ten updates of the behaviour flow, then ten of critic and actor.

With weights, batches and draws of our own; the flow's log-densities of the data's actions are theirs.
"""

import numpy as np
from jax_tools import ACTION, BATCH, OBSERVATION, UPDATES, batches, checkout, drawing, flat, perturbed, save

path = checkout()

from agents import fac  # noqa: E402

draw = np.random.default_rng(0)
sets = {
    "fac": {},
    "fac_data": {"fac_threshold": "dataset_wide_constant", "q_agg": "mean", "fac_alpha": 5.0, "fac_lambda": 0.03},
}
for name, settings in sets.items():
    settings = {"flow_steps": 4, **settings}
    config = fac.get_config()
    config.update(actor_hidden_dims=(16, 16), value_hidden_dims=(16, 16), bc_hidden_dims=(16, 16), **settings)
    agent = fac.FACAgent.create(0, np.zeros((1, OBSERVATION)), np.zeros((1, ACTION)), config)

    def started(network, draw=draw):
        initial = {part: perturbed(tree, draw) for part, tree in network.params.items()}
        return network.replace(params=dict(initial), opt_state=network.tx.init(initial))

    agent = agent.replace(ac_network=started(agent.ac_network), bc_network=started(agent.bc_network))
    data, normal = batches(draw), (UPDATES, BATCH, ACTION)
    names = ("flow_noise", "next_noise", "penalty_noise", "noise")
    draws = {key: draw.standard_normal(normal) for key in names} | {"t": draw.uniform(size=(UPDATES, BATCH, 1))}
    arrays = {f"batch/{key}": value for key, value in data.items()} | {f"draw/{key}": x for key, x in draws.items()}

    def keep(arrays, number, agent):
        for part, tree in {**agent.ac_network.params, **agent.bc_network.params}.items():
            if number != 1 or "bc_flow" not in part:
                arrays |= flat(f"{number}/{part}", tree)

    keep(arrays, 0, agent)
    for update in range(UPDATES):
        batch = {key: value[update] for key, value in data.items()}
        with drawing(draws["flow_noise"][update], draws["t"][update]):
            agent, info = agent.update(batch, mode="train_bc")
        if update == 0:
            arrays["info/bc/bc_flow_loss"] = np.asarray(info["bc/bc_flow_loss"])
    logp = [agent.logprob_given_actions(data["observations"][i], data["actions"][i]) for i in range(UPDATES)]
    arrays["logp"] = np.asarray(logp)
    least = np.full((UPDATES, BATCH), arrays["logp"].min())
    for update in range(UPDATES):
        batch = {key: value[update] for key, value in data.items()}
        batch |= {"estimated_logp": arrays["logp"][update], "estimated_logp_min": least[update]}
        with drawing(*(draws[key][update] for key in ("next_noise", "penalty_noise", "noise"))):
            agent, info = agent.update(batch, mode="train_ac")
        if update == 0:
            arrays |= {f"info/{key}": np.asarray(value) for key, value in info.items()}
        if update in (0, UPDATES - 1):
            keep(arrays, update + 1, agent)
    with drawing(draws["noise"][0]):
        arrays["act"] = np.asarray(agent.sample_actions(data["observations"][0], seed=agent.rng))
    for key in ("lr", "discount", "tau", "q_agg", "fac_alpha", "fac_lambda", "fac_threshold", "normalize_q_loss"):
        settings[key] = config[key]
    save(name, "github.com/JongseongChae/FAC", path, "none stated", settings, **arrays)
