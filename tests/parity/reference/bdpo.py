"""BDPO, flowrl/agent/offline/bdpo of typoverflow/flow-rl: ten updates with weights, batches and draws of our own."""

import sys
import types

import jax.numpy as jnp
import numpy as np
from jax_tools import ACTION, BATCH, OBSERVATION, UPDATES, batches, checkout, drawing, flat, perturbed, save

path = checkout()
for name in ("omegaconf", "flowrl.agent.offline", "flowrl.config.offline"):  # without their other algorithms
    sys.modules[name] = module = types.ModuleType(name)
    module.__path__ = [str(path / name.replace(".", "/"))]
sys.modules["omegaconf"].MISSING = "???"

from flowrl.agent.offline.bdpo import bdpo  # noqa: E402
from flowrl.types import Batch  # noqa: E402

STEPS, SAMPLES, WARM_UP, RATIO = 3, 2, 4, 2
draw = np.random.default_rng(11)
trained = {"actor": {"lr": 1e-3, "lr_decay_steps": 20}, "behavior": {"lr": 3e-4, "lr_decay_steps": None}}
for own in trained.values():
    own |= {"clip_grad_norm": 1.0, "ema": 0.005, "ema_every": 1}
trained["actor"]["ema_every"] = RATIO
diffusion = {"noise_schedule": "vp", "resnet": False, "dropout": 0.0, "layer_norm": False, "time_dim": 8}
diffusion |= {"mlp_hidden_dims": [8, 8], "solver": "ddpm", "steps": STEPS, "clip_sampler": True}
diffusion |= {"x_min": -1.0, "x_max": 1.0}
critic = {"discount": 0.99, "q_target": "lcb", "maxQ": False, "ensemble_size": 2, "rho": 0.7, "eta": 0.3}
critic |= {"hidden_dims": [8, 8], "lr": 3e-4, "lr_decay_steps": 20, "clip_grad_norm": 1.0, "layer_norm": False}
critic |= {"ema": 0.005, "ema_every": 1, "num_samples": SAMPLES, "solver": "ddpm", "update_ratio": RATIO}
settings = {"warmup_steps": WARM_UP, "temperature": 0.0}
sets = {"bdpo": {}, "bdpo_max_q": {"maxQ": True, "layer_norm": True, "eta": 1.0, "rho": 0.8, "discount": 0.995}}


def changed(model, parameters):
    """The model with other parameters, and an optimiser that has not stepped."""
    state = model.state
    fresh = state.opt_state if isinstance(state.opt_state, bool) else state.tx.init(parameters)
    return model.replace(state=state.replace(params=parameters, opt_state=fresh))


for name, own in sets.items():
    chosen = critic | own
    parts = types.SimpleNamespace(**diffusion, **{key: types.SimpleNamespace(**each) for key, each in trained.items()})
    config = types.SimpleNamespace(**settings, diffusion=parts, critic=types.SimpleNamespace(**chosen))
    agent = bdpo.BDPOAgent(OBSERVATION, ACTION, config, 0)
    for part in agent.model_names:
        setattr(agent, part, changed(getattr(agent, part), perturbed(getattr(agent, part).params, draw, 0.2)))
    data = batches(draw)
    several = (UPDATES, STEPS, BATCH, SAMPLES, ACTION)
    draws = {"chain": draw.standard_normal(several)}
    for use in ("v", "actor", "behaviour", "pretraining"):
        draws[f"{use}_level"] = draw.integers(1, STEPS + 1, (UPDATES, BATCH, 1))
        draws[f"{use}_noise"] = draw.standard_normal((UPDATES, BATCH, ACTION))
        if use in ("v", "actor"):
            draws[f"{use}_step"] = draw.standard_normal((UPDATES, BATCH, SAMPLES, ACTION))
    arrays = {f"batch/{key}": value for key, value in data.items()} | {f"draw/{key}": x for key, x in draws.items()}
    saved = [part for part in agent.model_names if not part.startswith("actor")]  # which begins as the behaviour model
    for part in saved:
        arrays |= flat(f"0/{part}", getattr(agent, part).params)
    saved_last = [part for part in agent.model_names if part != "behavior"]  # whose average there is
    nothing = np.zeros((BATCH, SAMPLES, ACTION))  # that the last step of sampling draws

    def taken(update, data=data):
        columns = {"obs": "observations", "action": "actions", "next_obs": "next_observations"}
        rows = {ours: jnp.asarray(data[theirs][update]) for ours, theirs in columns.items()}
        single = {"reward": data["rewards"][update][:, None], "terminal": 1 - data["masks"][update][:, None]}
        return Batch(**rows, **{key: jnp.asarray(value) for key, value in single.items()}, next_action=None)

    def steps(use, update, draws=draws):
        return [draws[f"{use}_{what}"][update] for what in ("level", "noise", "step") if f"{use}_{what}" in draws]

    for update in range(2):
        with drawing(*steps("pretraining", update)):
            info = agent.pretrain_step(taken(update), update)
        if update == 0:
            arrays["info/pretraining"] = np.asarray(info["ddpm_loss"])
    agent.prepare_training()
    for update in range(UPDATES):
        given = [*draws["chain"][update], nothing, *steps("v", update)]
        if update >= WARM_UP and update % RATIO == 0:
            given += steps("actor", update) + steps("behaviour", update)
        with drawing(*given):
            info = agent.train_step(taken(update), update)
        if update in (0, WARM_UP):
            arrays |= {f"info/{update}/{key}": np.asarray(value) for key, value in info.items()}
        if update in (0, UPDATES - 1):
            for part in saved_last if update else ("q0", "vt"):
                arrays |= flat(f"{update + 1}/{part}", getattr(agent, part).params)
    with drawing(*draws["chain"][0], nothing):
        arrays["act"] = np.asarray(agent.sample_actions(data["observations"][0], num_samples=SAMPLES)[0])
    about = settings | {"diffusion": diffusion | trained, "critic": chosen}
    save(name, "github.com/typoverflow/flow-rl", path, "MIT", about, **arrays)
