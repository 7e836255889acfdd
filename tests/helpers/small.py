"""Every algorithm, small: settings of a short run, and transitions of no task."""

import torch
from omegaconf import OmegaConf

from genpolicy.config.arguments import options
from genpolicy.dataset.transitions import Transitions

ALGORITHMS = sorted(options("algo"))


STEPS = 12  # updates of each phase


def sizes(config) -> dict[str, int | list[int]]:
    """Settings that make an algorithm's run small: few updates, small batches and networks."""
    small = {
        "steps": STEPS,
        "batch_size": 16,
        "hidden": [16],
        "num_actions": 4,
        "num_candidates": 3,
        "iteration": 6,
        "adapt_every": 1,
        "renew_every": 5,
    }
    chosen = {}
    for group in ("algo", "critic", "network", "select"):
        for key in config[group]:
            size = next((size for end, size in small.items() if key == end or key.endswith(f"_{end}")), None)
            if size is not None and (group, key) != ("critic", "steps"):  # which is no number of updates
                chosen[f"{group}.{key}"] = size
    if config.critic.get("candidates", 1) > 1:
        chosen["critic.candidates"] = 3
    for group in ("solver", "likelihood"):
        if "steps" in config[group]:
            chosen[f"{group}.steps"] = 2
    if "steps" in config.model.get("path", {}):
        chosen["model.path.steps"] = 2
    return chosen


def shrink(config) -> None:
    """Gives a configuration these settings."""
    for key, size in sizes(config).items():
        OmegaConf.update(config, key, size)


def begun(phase, data):
    """What the batches of a phase are sampled from, which has begun."""
    if phase.start is not None:
        phase.start()
    return data if phase.prepare is None else phase.prepare(data)


def random_transitions(size: int = 32) -> Transitions:
    generator = torch.Generator().manual_seed(0)
    columns = {name: torch.rand(size, 2, generator=generator) for name in ("observation", "action", "next_observation")}
    columns |= {"reward": torch.rand(size, generator=generator), "terminated": torch.arange(size) % 5 == 0}
    return Transitions.of({name: column.numpy() for name, column in columns.items()})
