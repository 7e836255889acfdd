"""EDP, diffusion/dql.py of sail-sg/edp with its TD3 loss: ten updates."""

import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
from jax_tools import ACTION, BATCH, OBSERVATION, UPDATES, batches, checkout, drawing, flat, perturbed, save


class Double(types.ModuleType):
    """jax.numpy, whose float32 is float64."""

    float32 = jnp.float64

    def __getattr__(self, name: str):
        return getattr(jnp, name)


path = checkout()
jax.tree_multimap = jax.tree_util.tree_map  # its earlier name

from diffusion import diffusion, dql, nets  # noqa: E402
from utilities import jax_utils  # noqa: E402

diffusion.np = nets.jnp = Double("numpy")
jax_utils.init_rng(0)
jax.config.update("jax_disable_jit", False)
START = 996  # the number of updates made before, so that the moving average moves once among the ten
CANDIDATES = 50


class Agent(dql.DiffusionQL):
    """The same with draws of ours, which are in the batch, so that its functions can be compiled."""

    def _train_step_td3(self, states, targets, rng, batch, policy_tgt_update=False):
        batch = dict(batch)
        noise = [*batch.pop("next_noise"), jnp.zeros((BATCH, ACTION))]  # the last step's is multiplied by 0
        own = [batch.pop(name) for name in ("t", "noise", "coin")]
        with drawing(*noise, *noise, *own):  # the former twice: by the gradient of each Q
            return super()._train_step_td3(states, targets, rng, batch, policy_tgt_update)


def short(array: np.ndarray) -> np.ndarray:
    """The nearest numbers that float16 has, in float64, so that fixtures are small."""
    return np.asarray(array).astype(np.float16).astype(np.float64)


def rounded(tree):
    return jax.tree_util.tree_map(lambda leaf: jnp.asarray(short(leaf)), tree)


draw = np.random.default_rng(4)
config = dql.DiffusionQL.get_default_config({"max_grad_norm": 0.2, "num_timesteps": 25})  # of 100: for speed
model = diffusion.GaussianDiffusion(
    num_timesteps=config.num_timesteps,
    schedule_name=config.schedule_name,
    model_mean_type=diffusion.ModelMeanType.EPSILON,
    model_var_type=diffusion.ModelVarType.FIXED_SMALL,
    loss_type=diffusion.LossType.MSE,
)
policy = nets.DiffusionPolicy(
    diffusion=model, observation_dim=OBSERVATION, action_dim=ACTION, arch=(16, 16, 16), time_embed_size=16
)
critic = nets.Critic(OBSERVATION, ACTION, (16, 16, 16))
agent = Agent(config, policy, critic, nets.Value(OBSERVATION, (16, 16, 16)), nets.GaussianPolicy(ACTION))
agent._total_steps = START
parts = ("policy", "qf1", "qf2")
for part in parts:
    initial = rounded(perturbed(agent._train_states[part].params, draw, 0.1))
    state = agent._train_states[part].replace(params=initial, opt_state=agent._train_states[part].tx.init(initial))
    agent._train_states[part] = state
    agent._tgt_params[part] = rounded(perturbed(agent._tgt_params[part], draw, 0.1))


def parameters(prefix: str) -> dict[str, np.ndarray]:
    found = {}
    for part in parts:
        found |= flat(f"{prefix}/{part}", agent._train_states[part].params["params"])
        found |= flat(f"{prefix}/target_{part}", agent._tgt_params[part]["params"])
    return found


steps, data = config.num_timesteps, {key: short(value) for key, value in batches(draw).items()}
draws = {
    "next_noise": short(draw.standard_normal((UPDATES, steps, BATCH, ACTION))),
    "t": draw.integers(0, steps, (UPDATES, BATCH)),
    "noise": short(draw.standard_normal((UPDATES, BATCH, ACTION))),
    "coin": short(draw.uniform(size=UPDATES)),
}
begin = parameters("0")
arrays = {f"batch/{key}": value for key, value in data.items()} | {f"draw/{key}": x for key, x in draws.items()} | begin
metrics = []
for update in range(UPDATES):
    batch = {key: jnp.asarray(value[update]) for key, value in data.items()}
    batch["dones"] = 1 - batch.pop("masks")
    metrics.append(agent.train(batch | {key: jnp.asarray(value[update]) for key, value in draws.items()}))
    if update in (0, UPDATES - 1):
        moved = parameters(str(update + 1))
        arrays |= {
            key: (value - begin[f"0/{key.partition('/')[2]}"]).astype(np.float32) for key, value in moved.items()
        }
for key in metrics[0]:
    arrays[f"info/{key}"] = np.asarray([float(each[key]) for each in metrics])
# the action played: one of 50 candidates by the softmax of Q
for name in ("gym", "data", "utilities.replay_buffer", "utilities.sampler", "viskit.logging", "wandb", "tqdm"):
    stub = sys.modules.setdefault(name, types.ModuleType(name))
    stub.__getattr__ = lambda name: type(name, (), {})
from diffusion import trainer  # noqa: E402

sampler = trainer.SamplerPolicy(policy, critic)
candidates, chosen = short(draw.standard_normal((steps, CANDIDATES, ACTION))), []
real, jax.random.categorical = jax.random.categorical, lambda key, logits: chosen.append(logits) or jnp.array([7])
with jax.disable_jit(), drawing(*candidates[:, None], np.zeros((1, CANDIDATES, ACTION))):
    observation = jnp.asarray(data["observations"][0, :1])
    arrays["act"] = np.asarray(
        sampler.ddpmensemble_act(agent.train_params, jax.random.PRNGKey(0), observation, True, CANDIDATES)
    ).reshape(ACTION)
jax.random.categorical = real
arrays |= {"draw/candidates": candidates, "logits": np.asarray(chosen[0][0])}
brief = {key: x.astype(np.float16) if key.startswith(("0/", "batch/", "draw/")) else x for key, x in arrays.items()}
settings = {key: config[key] for key in ("num_timesteps", "schedule_name", "alpha", "lr", "tau", "policy_tgt_freq")}
settings |= {"max_grad_norm": config.max_grad_norm, "discount": config.discount, "start": START}
save("edp", "github.com/sail-sg/edp", path, "Apache-2.0", settings, **brief)
