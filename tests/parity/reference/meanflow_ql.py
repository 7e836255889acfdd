"""MeanFlowQL, agents/meanflowql.py of HiccupRL/MeanFlowQL: ten updates with weights, batches and draws of our own.

Its network, a transformer of one token, is replaced by the perceptron of its utils/networks.py.
"""

import contextlib

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from jax_tools import ACTION, BATCH, OBSERVATION, UPDATES, batches, checkout, drawing, flat, perturbed, save

path = checkout()

from agents import meanflowql  # noqa: E402
from utils.networks import ActorVectorField  # noqa: E402


class Perceptron(nn.Module):
    output_dim: int

    @nn.compact
    def __call__(self, observations, actions, t):
        return ActorVectorField((16, 16), self.output_dim, name="field")(observations, actions, t)


meanflowql.MFDiT_SIM = lambda output_dim, **settings: Perceptron(output_dim)
STEPS = 40  # of the schedule: alpha may change from the fourth update on
for name, value in (("offline_steps", STEPS), ("online_steps", 0)):
    flags.DEFINE_integer(name, value, "")
flags.DEFINE_float("pretrain_factor", 0.0, "")
flags.FLAGS(["script"])


@contextlib.contextmanager
def drawing_candidates(noise, *others):
    """As `drawing`, for candidates whose seeds are mapped over: those are their numbers, and each has its own noise."""
    with drawing(*others):
        split, taken = jax.random.split, jax.random.normal
        jax.random.split = lambda key, num=2: jnp.arange(num) if num == CANDIDATES else split(key, num)
        jax.random.normal = lambda key, *given: jnp.asarray(noise)[key] if jnp.ndim(key) == 0 else taken(key)
        try:
            yield
        finally:
            jax.random.split, jax.random.normal = split, taken


CANDIDATES = 5  # also of the next actions: half of them are asked for, by a number that is not taken as one
draw = np.random.default_rng(0)
settings = {"alpha_update_interval": 2, "loss_history_window_size": 2, "loss_multiplier_threshold": 1, "alpha": 3.0}
config = meanflowql.get_config()
config.update(value_hidden_dims=(16, 16), **settings)
agent = meanflowql.MeanFlowQL_Agent.create(0, np.zeros((1, OBSERVATION)), np.zeros((1, ACTION)), config)
initial = {part: perturbed(tree, draw) for part, tree in flax.core.unfreeze(agent.network.params).items()}
network = agent.network.replace(params=dict(initial), opt_state=agent.network.tx.init(initial))
agent = agent.replace(network=network)
data = batches(draw)
draws = {"next_noise": draw.standard_normal((UPDATES, CANDIDATES, BATCH, ACTION))}
draws |= {key: draw.standard_normal((UPDATES, BATCH, ACTION)) for key in ("flow_noise", "noise")}
draws |= {"t": draw.uniform(size=(UPDATES, BATCH, 1))}
arrays = {f"batch/{key}": value for key, value in data.items()} | {f"draw/{key}": x for key, x in draws.items()}


def keep(number, agent):
    for part, tree in agent.network.params.items():
        arrays.update(flat(f"{number}/{part}", tree))


keep(0, agent)
alphas = []
unused = [np.zeros(BATCH, int), np.zeros(BATCH, int), np.zeros((BATCH, ACTION))]  # of a loss whose weight is 0
for update in range(UPDATES):
    batch = {key: value[update] for key, value in data.items()}
    given = [draws[key][update] for key in ("t", "flow_noise")] + unused + [draws["noise"][update]]
    with drawing_candidates(draws["next_noise"][update], *given):
        agent, info = agent.update(batch, current_step=update)
    alphas.append(float(info["alpha_weight"]))
    if update == 0:
        arrays |= {f"info/{key}": np.asarray(value) for key, value in info.items() if not key.startswith("alpha/")}
    if update in (0, UPDATES - 1):
        keep(update + 1, agent)
arrays["alphas"] = np.array(alphas)
with drawing_candidates(draws["next_noise"][0]):
    arrays["act"] = np.asarray(agent.sample_actions(data["observations"][0], seed=agent.rng))
for key in ("lr", "discount", "tau", "q_agg", "num_candidates", "adaptive_gamma", "adaptive_c", "time_steps"):
    settings[key] = config[key]
save("meanflow_ql", "github.com/HiccupRL/MeanFlowQL", path, "MIT", settings, **arrays)
