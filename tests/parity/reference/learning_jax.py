"""References in JAX, trained on a file by their own updates: see learning.py."""

from __future__ import annotations

import sys
import types

import jax
import numpy as np
from learning_tools import Act, Asked, stubs

HIDDEN = 256, 256


def iql(asked: Asked) -> Act:
    import distrax
    import flax

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

    asked = asked.scaled()
    data = asked.data
    agent = Learner(
        asked.seed,
        data.observations[:1],
        data.actions[:1],
        expectile=0.7,
        temperature=3.0,
        max_steps=asked.updates,
    )
    jax.jit, flax.linen.Module.init = compiled, initialised
    for b in asked.batches():
        agent.update(Batch(b["observations"], b["actions"], b["rewards"], b["masks"], b["next_observations"]))
    mean = jax.jit(lambda parameters, x: agent.actor.apply_fn.apply({"params": parameters}, x).mean())
    return lambda observation: np.asarray(mean(agent.actor.params, observation))


def fql(asked: Asked, alpha: float = 30.0) -> Act:
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


def idql(asked: Asked, candidates: float = 64) -> Act:
    candidates = int(candidates)

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

    asked = asked.scaled()
    data = asked.data
    observations, actions = data.sizes
    agent = learner.DDPMIQLLearner.create(
        asked.seed, Box(observations), Box(actions), actor_dropout_rate=0.1, decay_steps=asked.updates
    )
    used = ("observations", "actions", "rewards", "masks", "next_observations")
    for b in asked.batches():
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
        best = value.reshape(len(observation), candidates).argmax(1)
        return sampled.reshape(len(observation), candidates, -1)[jax.numpy.arange(len(observation)), best]

    agent = agent.replace(N=candidates)
    keys = iter(jax.random.split(jax.random.PRNGKey(asked.seed), 1000))
    return lambda observation: np.asarray(play(next(keys), observation))


def edp(asked: Asked, grad_norm: float = 9.0, levels: float = 100, candidates: float = 50) -> Act:
    jax.tree_multimap = jax.tree_util.tree_map  # its earlier name
    from diffusion import diffusion, dql, nets
    from utilities import jax_utils

    class Diffusion(diffusion.GaussianDiffusion):
        """The same, whose levels are a compiled loop and not as many copies of the network."""

        def p_sample_loop(self, rng_key, model_forward, shape, clip_denoised=True):
            key, own = jax.random.split(rng_key)
            begin = jax.random.normal(own, shape)
            model_forward(begin, jax.numpy.zeros(shape[:-1]))  # so that the network has its parameters
            net, (observations,) = model_forward.func, model_forward.args
            weights, net = net.variables, net.clone(parent=None)

            def denoise(i, state):
                x, key = state
                t = jax.numpy.full(shape[:-1], self.num_timesteps - 1 - i)
                key, own = jax.random.split(key)
                predicted = net.apply(weights, observations, x, self._scale_timesteps(t))
                return self.p_sample(own, predicted, x, t, clip_denoised)["sample"], key

            return jax.lax.fori_loop(0, self.num_timesteps, denoise, (begin, key))[0]

    jax_utils.init_rng(asked.seed)
    observations, actions = asked.data.sizes
    config = dql.DiffusionQL.get_default_config({"max_grad_norm": grad_norm, "num_timesteps": int(levels)})
    model = Diffusion(
        num_timesteps=config.num_timesteps,
        schedule_name=config.schedule_name,
        model_mean_type=diffusion.ModelMeanType.EPSILON,
        model_var_type=diffusion.ModelVarType.FIXED_SMALL,
        loss_type=diffusion.LossType.MSE,
    )
    policy, q = nets.DiffusionPolicy(model, observations, actions), nets.Critic(observations, actions)
    agent = dql.DiffusionQL(config, policy, q, nets.Value(observations), nets.GaussianPolicy(actions))
    for b in asked.batches():
        used = ("observations", "actions", "rewards", "next_observations")
        agent.train({key: b[key] for key in used} | {"dones": b["terminals"]})

    @jax.jit
    def play(parameters, key, observation):  # as its ddpmensemble_act, for all episodes at once
        sampling = {"repeat": int(candidates), "method": policy.ddpm_sample}
        sampled = policy.apply(parameters["policy"], key, observation, True, **sampling)
        value = jax.numpy.minimum(*(q.apply(parameters[name], observation, sampled) for name in ("qf1", "qf2")))
        chosen = jax.random.categorical(key, value)
        return sampled[jax.numpy.arange(len(observation)), chosen]

    return lambda observation: np.asarray(play(agent.train_params, jax_utils.next_rng(), observation))
