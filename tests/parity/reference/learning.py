"""A reference trained on a file of transitions by its own updates, and its last policy in the simulator.

    python learning.py <algorithm> <checkout> <file.hdf5> <simulator> <updates> <batch> <seed> ... [<setting>=<number>]
    python learning.py ours <run directory> [<run directory> ...] <simulator>

prints a JSON line a seed; the second way plays the policies of genpolicy's runs in the same episodes. The file is one
of D4RL's format, the simulator one of gymnasium's; batches are uniform with replacement; the settings are those of the
table in docs/results.md. td3_bc and diffusion_ql need a Python with torch, the others one with jax, flax, optax and
distrax, and all of them h5py and gymnasium[mujoco].
"""

from __future__ import annotations

import json
import sys
import time
import types
import warnings
from pathlib import Path

import numpy as np
from learning_tools import Act, Asked, Data, evaluate, stubs

HIDDEN = 256, 256


def torch_seeded(seed: int):
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002 (their buffer draws from it)
    return torch


def td3_bc(asked: Asked) -> Act:
    torch = torch_seeded(asked.seed)
    import TD3_BC
    import utils

    buffer = utils.ReplayBuffer(*asked.data.sizes, max_size=2)
    buffer.convert_D4RL(vars(asked.data))
    mean, std = buffer.normalize_states()
    agent = TD3_BC.TD3_BC(*asked.data.sizes, 1.0)
    for _ in range(asked.updates):
        agent.train(buffer, asked.batch)

    def act(observation: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return agent.actor(torch.as_tensor((observation - mean) / std, dtype=torch.float32)).numpy()

    return act


def diffusion_ql(asked: Asked, eta: float = 1.0, grad_norm: float = 9.0) -> Act:
    torch = torch_seeded(asked.seed)
    stubs("utils.logger")
    from agents.ql_diffusion import Diffusion_QL

    draw = np.random.default_rng(asked.seed)

    class Buffer:
        def sample(self, size: int):
            found = asked.data.batch(draw, size)
            vectors = [torch.as_tensor(found[key]) for key in ("observations", "actions", "next_observations")]
            return (*vectors, *(torch.as_tensor(found[key])[:, None] for key in ("rewards", "masks")))

    agent = Diffusion_QL(
        *asked.data.sizes,
        1.0,
        "cpu",
        discount=0.99,
        tau=0.005,
        eta=eta,
        beta_schedule="vp",
        n_timesteps=5,
        grad_norm=grad_norm,
    )
    agent.train(Buffer(), asked.updates, asked.batch)

    def act(observation: np.ndarray) -> np.ndarray:  # as its sample_action, for all episodes at once
        with torch.no_grad():
            repeated = torch.as_tensor(observation).repeat_interleave(50, 0)
            actions = agent.actor.sample(repeated)
            value = agent.critic_target.q_min(repeated, actions).reshape(-1, 50)
            chosen = torch.multinomial(value.softmax(-1), 1)[:, 0]
            return actions.reshape(len(observation), 50, -1)[torch.arange(len(observation)), chosen].numpy()

    return act


def iql(asked: Asked) -> Act:
    import distrax
    import flax
    import jax

    stubs("tensorflow_probability", "tensorflow_probability.substrates")
    sys.modules["tensorflow_probability.substrates"].jax = types.SimpleNamespace(
        distributions=distrax, bijectors=distrax
    )
    distrax.TransformedDistribution = distrax.Transformed
    jax.tree_multimap = jax.tree_util.tree_map
    compiled, initialised = jax.jit, flax.linen.Module.init

    def lenient(function, **more):  # what it calls static by a name that is no argument's is not compiled
        try:
            return compiled(function, **more)
        except ValueError:
            return function

    jax.jit = lenient
    flax.linen.Module.init = lambda *given, **more: flax.core.freeze(initialised(*given, **more))
    from common import Batch
    from learner import Learner

    data = asked.data.scaled()
    agent = Learner(
        asked.seed,
        data.observations[:1],
        data.actions[:1],
        expectile=0.7,
        temperature=3.0,
        max_steps=asked.updates,
    )
    jax.jit, flax.linen.Module.init = compiled, initialised
    for b in Asked(asked.checkout, data, asked.updates, asked.batch, asked.seed).batches():
        agent.update(Batch(b["observations"], b["actions"], b["rewards"], b["masks"], b["next_observations"]))
    mean = jax.jit(lambda parameters, x: agent.actor.apply_fn.apply({"params": parameters}, x).mean())
    return lambda observation: np.asarray(mean(agent.actor.params, observation))


def fql(asked: Asked, alpha: float = 30.0) -> Act:
    import jax
    from agents import fql as reference

    config = reference.get_config()
    config.update(actor_hidden_dims=HIDDEN, value_hidden_dims=HIDDEN, alpha=alpha)
    agent = reference.FQLAgent.create(asked.seed, asked.data.observations[:1], asked.data.actions[:1], config)
    used = ("observations", "actions", "rewards", "masks", "next_observations")
    for b in asked.batches():
        agent, _ = agent.update({key: b[key] for key in used})
    keys = iter(jax.random.split(jax.random.PRNGKey(asked.seed), 1000))
    return lambda observation: np.asarray(agent.sample_actions(observation, seed=next(keys)))


def rebrac(asked: Asked, actor_bc_coef: float = 0.01, critic_bc_coef: float = 0.01) -> Act:
    import jax
    import optax

    stubs("d4rl", "gym", "wandb", "pyrallis", "tqdm", "tqdm.auto")
    sys.modules["pyrallis"].wrap = lambda: lambda function: function
    sys.path.insert(0, str(asked.checkout / "algorithms" / "offline"))
    import rebrac as reference

    config, data = reference.Config(), asked.data
    keys = jax.random.split(jax.random.PRNGKey(asked.seed), 3)
    actor_module = reference.DetActor(data.sizes[1], 256, config.actor_ln, config.actor_n_hiddens)
    critic_module = reference.EnsembleCritic(256, 2, config.critic_ln, config.critic_n_hiddens)
    weights = actor_module.init(keys[0], data.observations[:1])
    actor = reference.ActorTrainState.create(
        apply_fn=actor_module.apply, params=weights, target_params=weights, tx=optax.adam(config.actor_learning_rate)
    )
    weights = critic_module.init(keys[1], data.observations[:1], data.actions[:1])
    critic = reference.CriticTrainState.create(
        apply_fn=critic_module.apply, params=weights, target_params=weights, tx=optax.adam(config.critic_learning_rate)
    )
    fixed = {"gamma": config.gamma, "tau": config.tau, "policy_noise": config.policy_noise}
    fixed |= {"noise_clip": config.noise_clip, "actor_bc_coef": actor_bc_coef, "critic_bc_coef": critic_bc_coef}
    empty = reference.Metrics.create(
        ["critic_loss", "q_min", "actor_loss", "bc_mse_policy", "bc_mse_random", "action_mse"]
    )

    @jax.jit
    def full(key, actor, critic, batch):
        return reference.update_td3(key, actor, critic, batch, empty, normalize_q=config.normalize_q, **fixed)[:3]

    @jax.jit
    def critic_only(key, actor, critic, batch):
        return reference.update_td3_no_targets(key, actor, critic, batch, metrics=empty, **fixed)[:3]

    key = keys[2]
    for i, b in enumerate(asked.batches()):
        batch = {"states": b["observations"], "next_states": b["next_observations"], "dones": b["terminals"]}
        batch |= {name: b[name] for name in ("actions", "next_actions", "rewards")}
        key, actor, critic = (full if i % config.policy_freq == 0 else critic_only)(key, actor, critic, batch)
    act = reference.action_fn(actor)
    return lambda observation: np.asarray(act(observation))


def idql(asked: Asked) -> Act:
    import jax

    class Box:
        def __init__(self, size: int):
            self.shape = (size,)

        def sample(self) -> np.ndarray:
            return np.zeros(self.shape, np.float32)

    stubs("gym", "gym.spaces", "gym.utils", "d4rl", "mjrl", "dmcgym", "wandb", "jaxrl5.networks.pixel_multiplexer")
    sys.modules["gym"].spaces = sys.modules["gym.spaces"]
    for name in ("jaxrl5.agents", "jaxrl5.data", "jaxrl5.agents.ddpm_iql_simple"):  # without their other learners
        sys.modules[name] = module = types.ModuleType(name)
        module.__path__ = [str(asked.checkout / name.replace(".", "/"))]
    from jaxrl5.agents.ddpm_iql_simple import ddpm_iql_learner as learner

    data = asked.data.scaled()
    observations, actions = data.sizes
    agent = learner.DDPMIQLLearner.create(
        asked.seed, Box(observations), Box(actions), actor_dropout_rate=0.1, decay_steps=asked.updates
    )
    used = ("observations", "actions", "rewards", "masks", "next_observations")
    for b in Asked(asked.checkout, data, asked.updates, asked.batch, asked.seed).batches():
        agent, _ = agent.update({key: b[key] for key in used})

    @jax.jit
    def play(key, observation):  # as its eval_actions, for all episodes at once
        repeated = observation.repeat(agent.N, 0)
        sampled, _ = learner.ddpm_sampler(
            agent.score_model.apply_fn,
            agent.target_score_model.params,
            agent.T,
            key,
            agent.act_dim,
            repeated,
            agent.alphas,
            agent.alpha_hats,
            agent.betas,
            agent.ddpm_temperature,
            agent.M,
            agent.clip_sampler,
        )
        value = learner.compute_q(agent.target_critic.apply_fn, agent.target_critic.params, repeated, sampled)
        best = value.reshape(len(observation), 64).argmax(1)
        return sampled.reshape(len(observation), 64, -1)[jax.numpy.arange(len(observation)), best]

    agent = agent.replace(N=64)
    keys = iter(jax.random.split(jax.random.PRNGKey(asked.seed), 1000))
    return lambda observation: np.asarray(play(next(keys), observation))


ALGORITHMS = {f.__name__: f for f in (td3_bc, diffusion_ql, iql, fql, rebrac, idql)}


def ours(run: str) -> Act:
    import torch

    import genpolicy

    policy = genpolicy.load_policy(run)
    torch.manual_seed(0)
    return lambda observation: np.asarray(policy.act(observation))


def report(act: Act, simulator: str, **more) -> None:
    returns = evaluate(act, simulator)
    print(json.dumps(more | {"mean": round(returns.mean(), 1), "std": round(returns.std(), 1)}), flush=True)


def main(name: str, checkout: str, *more: str) -> None:
    warnings.filterwarnings("ignore")
    if name == "ours":
        *runs, simulator = checkout, *more
        for run in runs:
            report(ours(run), simulator, run=run)
        return
    file, simulator, updates, batch, *words = more
    settings = {key: float(value) for key, value in (word.split("=") for word in words if "=" in word)}
    seeds = [word for word in words if "=" not in word]
    path, data = Path(checkout).resolve(), Data.of(file)
    sys.path.insert(0, str(path))
    for seed in map(int, seeds):
        begin = time.process_time()
        act = ALGORITHMS[name](Asked(path, data, int(updates), int(batch), seed), **settings)
        seconds = round(time.process_time() - begin)
        report(act, simulator, algorithm=name, file=Path(file).name, seed=seed, updates=updates, processor_s=seconds)


if __name__ == "__main__":
    main(*sys.argv[1:])
