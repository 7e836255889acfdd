"""Which run a configuration asks for: where it lies, and what makes it another one."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from genpolicy.config.run_settings import NO_EFFECT, TrainSettings
from genpolicy.config.schema import TRAINING, digest, part
from genpolicy.errors import UserError, printable
from genpolicy.runs.evaluations import as_text

INCIDENTAL = {"seed", "device", "threads", "compile"}  # told of a run, though they make no other experiment
# Nor do these, which change no metric of it.
NO_METRIC = {"algo.chunk", "eval.steps", "eval.video", "init.behaviour", "init.critic", "init.policy"}
NO_METRIC |= {"likelihood.recompute", "solver.recompute"}


GROUPS = ("algo", "model", "objective", "solver", "select", "network", "dataset", "env")  # that are shown of a run


def each_seed(config: DictConfig) -> list[DictConfig]:
    """The configurations of the runs that one asks for: of `seed=k` for each k of its `seeds`, or itself."""
    singles = []
    for seed in config.seeds:
        singles.append(config.copy())
        singles[-1].seed, singles[-1].seeds = seed, []
    return singles or [config]


def directory_of(config: DictConfig, choices: Mapping[str, str]) -> Path:
    """Where the run of a configuration lives, as an absolute path."""
    env, algo, model = (choices[group].replace("/", "-") for group in ("env", "algo", "model"))
    if env in ("sweeps", "report", "search.db"):
        raise UserError(f"env={env}: genpolicy keeps something else by this name in a study; rename the option")
    outputs = Path(config.paths.outputs).expanduser().absolute()
    return outputs / config.study / env / f"{algo}-{model}-{identity(config)}" / f"seed{config.seed}"


def identity(config: DictConfig) -> str:
    """Eight hexadecimal digits of what the weights of a run depend on, beside its seed (`affects` of `setting`).

    The order of the settings does not matter. `device`, `threads` and `compile` change roundings, not the experiment.
    """
    trained = part(config, TrainSettings, TRAINING)
    del trained["seed"]
    return digest(trained)


def label(directory: Path) -> str:
    """The label of a run, from its folder alone: 'gmpg-vpsde-1a2b3c4d hopper-medium-v2 s0'."""
    env, name, seed = directory.parts[-3:]
    return printable(f"{name} {env} {seed.replace('seed', 's')}")


def shown(config: Mapping) -> dict[str, Any]:
    """The settings that make a run what it is, of its plain and nested ones; the rest is in config.yaml."""
    left_out = NO_EFFECT - INCIDENTAL
    return {name: value for name, value in config.items() if name not in left_out}


def flat(settings: Mapping, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested settings by their dotted names."""
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def settings(config: Mapping) -> dict[str, str]:
    """The same by their dotted names, as text."""
    return {name: as_text(value) for name, value in flat(shown(config))}
