"""What a sweep tries: all combinations of the values given, or what a search thinks best."""

import itertools
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class ParsingSweeper(Sweeper):
    """A sweeper with a launcher, which reads the words of a sweep by Hydra's grammar."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.parser = OverridesParser.create(hydra_context.config_loader)
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def parsed(self, arguments: list[str]) -> list[Override]:
        """The words. Ranges of floats have the decimals that were typed: range(0.1,0.5,0.1) has 0.3."""
        overrides = self.parser.parse_overrides(arguments)
        for override in overrides:
            if override.is_range_sweep():
                sweep = override.value()
                for name in ("start", "stop", "step"):
                    if isinstance(number := getattr(sweep, name), float):
                        setattr(sweep, name, Decimal(f"{number:.15g}"))
        return overrides


class Optuna(ParsingSweeper):
    """Searches over settings for the best score (genpolicy.launch.search)."""

    def sweep(self, arguments: list[str]) -> None:
        from genpolicy.launch.search import Search

        Search(self.parsed(arguments)).run(self.launcher)


class Product(ParsingSweeper):
    """Hands every combination to the launcher.

    Hydra's basic sweeper does the same, but writes a file and composes each job once more before the
    launcher, which checks them all, has seen one.
    """

    def sweep(self, arguments: list[str]) -> Sequence[JobReturn]:
        values: dict[str, list[str]] = {}
        for override in self.parsed(arguments):
            key = override.get_key_element()
            if override.is_sweep_override():
                values[key] = [f"{key}={value}" for value in override.sweep_string_iterator()]
            elif override.is_delete():
                values[key] = [key]
            else:
                values[key] = [f"{key}={override.get_value_element_as_str()}"]
        jobs: list[list[Any]] = [list(job) for job in itertools.product(*values.values())]
        return self.launcher.launch(jobs, initial_job_idx=0)
