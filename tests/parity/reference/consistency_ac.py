"""Ten updates of Consistency-AC: agents/ql_consistency.py of its repository."""

import numpy as np
from torch_tools import (
    ACTION,
    BATCH,
    OBSERVATION,
    UPDATES,
    Buffer,
    Double,
    Parameters,
    Scalars,
    batches,
    checkout,
    drawing,
    narrow,
    normal,
    played,
    save,
    uniform,
)

path = checkout("utils.logger")

from agents import consistency, ql_consistency  # noqa: E402

consistency.torch = Double("torch")
START = 996  # the number of updates made before, so that the moving average begins among the ten
draw = np.random.default_rng(2)
sets = {
    "consistency_ac": {"n_timesteps": 2, "eta": 1.0},
    "consistency_ac_q_norm": {
        "n_timesteps": 5,
        "eta": 0.1,
        "q_norm": True,
        "scale_consis_loss": False,
        "max_q_backup": True,
    },
}
for name, settings in sets.items():
    settings |= {"discount": 0.99, "tau": 0.005, "lr": 3e-4, "grad_norm": 0.2}
    with narrow():
        agent = ql_consistency.Consistency_QL(OBSERVATION, ACTION, 1.0, "cpu", **settings)
    agent.step = START
    modules = {"actor": agent.actor.model, "ema": agent.ema_actor.model}
    parameters = Parameters(draw, modules | {"critic": agent.critic, "critic_target": agent.critic_target})
    data, copies, steps = batches(draw), 10 if "max_q_backup" in settings else 1, settings["n_timesteps"]
    points = [ql_consistency.timesteps_schedule(i, UPDATES) for i in range(UPDATES)]
    draws = {
        "next_noise": normal(draw, UPDATES, steps, BATCH * copies, ACTION),
        "action_noise": normal(draw, UPDATES, steps, BATCH, ACTION),
        "coin": uniform(draw, UPDATES),
        "noise": normal(draw, UPDATES, BATCH, ACTION),
        "index": np.stack([draw.integers(0, n - 1, BATCH) for n in points]),
    }
    given = []
    for update in range(UPDATES):
        given += [*draws["next_noise"][update], *draws["action_noise"][update], draws["coin"][update]]
        given += [draws["noise"][update], draws["index"][update][:, None]]
    arrays = {f"batch/{key}": value for key, value in data.items()} | {f"draw/{key}": x for key, x in draws.items()}
    arrays |= parameters.begin()

    def called(taken: int, parameters=parameters, arrays=arrays) -> None:
        if taken == 1:
            arrays |= parameters.moved(1)

    scalars = Scalars()
    with drawing(*given):
        metrics = agent.train(Buffer(data, called), UPDATES, BATCH, scalars)
    arrays |= parameters.moved(UPDATES)
    arrays |= {f"info/{key}": np.asarray(value) for key, value in (metrics | scalars).items()}
    candidates = normal(draw, steps, 50, ACTION)
    arrays |= {"draw/candidates": candidates, "points": np.asarray(points)}
    arrays |= played(agent, data["observations"][0, 0], [*candidates], 7)
    settings |= {"ema_decay": 0.995, "step_start_ema": 1000, "update_ema_every": 5, "start": START}
    settings |= {"scale_consis_loss": agent.scale_consis_loss, "improved_CT": agent.improved_CT}
    repository = "github.com/quantumiracle/Consistency_Model_For_Reinforcement_Learning"
    save(name, repository, path, "Apache-2.0", settings, **arrays)
