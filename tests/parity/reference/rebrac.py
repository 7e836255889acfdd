"""ReBRAC, algorithms/offline/rebrac.py of tinkoff-ai/CORL, its authors': ten updates, every second one full."""

import sys
import types

import jax
import numpy as np
import optax
from jax_tools import ACTION, BATCH, OBSERVATION, UPDATES, batches, checkout, drawing, flat, perturbed, save

path = checkout()
for name in ("d4rl", "gym", "wandb", "pyrallis", "tqdm", "tqdm.auto"):
    sys.modules[name] = types.ModuleType(name)
sys.modules["gym"].Env = object
sys.modules["tqdm.auto"].trange = range
sys.modules["pyrallis"].wrap = lambda: lambda function: function
sys.path.insert(0, str(path / "algorithms" / "offline"))

import rebrac as reference  # noqa: E402

config = reference.Config()
draw = np.random.default_rng(2)
settings = {"actor_bc_coef": 0.1, "critic_bc_coef": 0.01, "hidden_dim": 16, "actor_n_hiddens": 2, "critic_n_hiddens": 2}
key = jax.random.PRNGKey(0)
actor_module = reference.DetActor(ACTION, 16, layernorm=config.actor_ln, n_hiddens=2)
critic_module = reference.EnsembleCritic(16, num_critics=2, layernorm=config.critic_ln, n_hiddens=2)
state, action = np.zeros((1, OBSERVATION)), np.zeros((1, ACTION))
actor_weights, critic_weights = actor_module.init(key, state), critic_module.init(key, state, action)
arrays = flat("init/actor", actor_weights) | flat("init/critic", critic_weights)
actor = reference.ActorTrainState.create(
    apply_fn=actor_module.apply,
    params=perturbed(actor_weights, draw),
    target_params=perturbed(actor_weights, draw),
    tx=optax.adam(config.actor_learning_rate),
)
critic = reference.CriticTrainState.create(
    apply_fn=critic_module.apply,
    params=perturbed(critic_weights, draw),
    target_params=perturbed(critic_weights, draw),
    tx=optax.adam(config.critic_learning_rate),
)
data = batches(draw, next_actions=True)
smoothing = draw.standard_normal((UPDATES, BATCH, ACTION))
arrays |= {f"batch/{key}": value for key, value in data.items()} | {"draw/smoothing": smoothing}


def weights(number: int) -> dict[str, np.ndarray]:
    parts = {"actor": actor.params, "target_actor": actor.target_params}
    parts |= {"critic": critic.params, "target_critic": critic.target_params}
    return {name: leaf for part, tree in parts.items() for name, leaf in flat(f"{number}/{part}", tree).items()}


arrays |= weights(0)
fixed = {"gamma": config.gamma, "tau": config.tau, "policy_noise": config.policy_noise, "noise_clip": config.noise_clip}
fixed |= {"actor_bc_coef": settings["actor_bc_coef"], "critic_bc_coef": settings["critic_bc_coef"]}
for update in range(UPDATES):
    batch = {name: value[update] for name, value in data.items()}
    batch = {
        "states": batch["observations"],
        "next_states": batch["next_observations"],
        "dones": 1 - batch["masks"],
        **batch,
    }
    metrics = reference.Metrics.create(
        ["critic_loss", "q_min", "actor_loss", "bc_mse_policy", "bc_mse_random", "action_mse"]
    )
    given = {"key": key, "actor": actor, "critic": critic, "batch": batch, "metrics": metrics}
    if update % config.policy_freq == 0:
        with drawing(smoothing[update], names=("normal",)):
            _, actor, critic, metrics = reference.update_td3(**given, normalize_q=config.normalize_q, **fixed)
    else:
        with drawing(smoothing[update], names=("normal",)):
            _, actor, critic, metrics = reference.update_td3_no_targets(**given, **fixed)
    if update == 0:
        found = {name: value for name, value in metrics.compute().items() if np.isfinite(value).all()}
        arrays |= {f"info/{name}": value[0] for name, value in found.items()}
    if update in (0, 1, UPDATES - 1):
        arrays |= weights(update + 1)
for name in ("gamma", "tau", "policy_noise", "noise_clip", "policy_freq", "normalize_q", "actor_ln", "critic_ln"):
    settings[name] = getattr(config, name)
settings |= {"actor_learning_rate": config.actor_learning_rate, "critic_learning_rate": config.critic_learning_rate}
save("rebrac", "github.com/tinkoff-ai/CORL", path, "Apache-2.0", settings, **arrays)
