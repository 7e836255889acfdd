"""DAC, flowrl/agent/offline/dac.py of typoverflow/flow-rl: ten updates with weights, batches and draws of our own."""

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

from flowrl.agent.offline import dac  # noqa: E402
from flowrl.types import Batch  # noqa: E402

STEPS, SAMPLES = 3, 2
draw = np.random.default_rng(7)
diffusion = {"noise_schedule": "vp", "resnet": False, "dropout": 0.0, "layer_norm": False, "time_dim": 8}
diffusion |= {"mlp_hidden_dims": [8, 8, 8], "solver": "ddpm", "steps": STEPS, "clip_sampler": True}
diffusion |= {"x_min": -1.0, "x_max": 1.0, "lr": 3e-4, "lr_decay_steps": 20, "clip_grad_norm": 1.0}
diffusion |= {"ema": 0.005, "ema_every": 3}
critic = {"discount": 0.99, "q_target": "lcb", "maxQ": False, "ensemble_size": 3, "rho": 0.7, "hidden_dims": [8, 8, 8]}
critic |= {"lr": 3e-4, "lr_decay_steps": 20, "clip_grad_norm": 1.0, "layer_norm": False, "ema": 0.005}
critic |= {"ema_every": 1, "num_samples": SAMPLES}
settings = {"temperature": 0.0, "start_actor_ema": 3, "eta": 1.0, "eta_min": 0.001, "eta_max": 1.3}
sets = {  # dual ascent, as its commands have it on locomotion; the best sample and a constant weight, as on AntMaze
    "dac": ({"eta_lr": 0.2, "eta_threshold": 0.4}, {}),
    "dac_max_q": ({"eta_lr": 0.0, "eta_threshold": 1.0, "eta": 0.1}, {"maxQ": True, "rho": 1.0}),
}


def changed(model, parameters):
    """The model with other parameters, and an optimiser that has not stepped."""
    state = model.state
    fresh = state.opt_state if isinstance(state.opt_state, bool) else state.tx.init(parameters)
    return model.replace(state=state.replace(params=parameters, opt_state=fresh))


for name, (own, its_critic) in sets.items():
    chosen = settings | own
    config = types.SimpleNamespace(
        **chosen, diffusion=types.SimpleNamespace(**diffusion), critic=types.SimpleNamespace(**critic | its_critic)
    )
    agent = dac.DACAgent(OBSERVATION, ACTION, config, 0)
    for part in agent.model_names:
        setattr(agent, part, changed(getattr(agent, part), perturbed(getattr(agent, part).params, draw, 0.2)))
    data, normal = batches(draw), (UPDATES, BATCH, ACTION)
    several = (UPDATES, STEPS, BATCH, SAMPLES, ACTION)
    draws = {"next_noise": draw.standard_normal(several), "noise": draw.standard_normal(normal)}
    draws["level"] = draw.integers(1, STEPS + 1, (UPDATES, BATCH, 1))
    arrays = {f"batch/{key}": value for key, value in data.items()} | {f"draw/{key}": x for key, x in draws.items()}
    for part in agent.model_names:
        arrays |= flat(f"0/{part}", getattr(agent, part).params)
    nothing = np.zeros((BATCH, SAMPLES, ACTION))  # that the last step of sampling draws
    etas = []
    for update in range(UPDATES):
        columns = {"obs": "observations", "action": "actions", "next_obs": "next_observations"}
        rows = {ours: jnp.asarray(data[theirs][update]) for ours, theirs in columns.items()}
        single = {"reward": data["rewards"][update][:, None], "terminal": 1 - data["masks"][update][:, None]}
        batch = Batch(**rows, **{key: jnp.asarray(value) for key, value in single.items()}, next_action=None)
        with drawing(*draws["next_noise"][update], nothing, draws["level"][update], draws["noise"][update]):
            info = agent.train_step(batch, update)
        etas.append(float(agent.eta))
        if update == 0:
            arrays |= {f"info/{key}": np.asarray(value) for key, value in info.items()}
        if update in (0, UPDATES - 1):
            for part in agent.model_names:
                arrays |= flat(f"{update + 1}/{part}", getattr(agent, part).params)
    arrays["eta"] = np.asarray(etas)
    with drawing(*draws["next_noise"][0], nothing):
        arrays["act"] = np.asarray(agent.sample_actions(data["observations"][0], num_samples=SAMPLES)[0])
    about = chosen | {"diffusion": diffusion, "critic": critic | its_critic}
    save(name, "github.com/typoverflow/flow-rl", path, "MIT", about, **arrays)
