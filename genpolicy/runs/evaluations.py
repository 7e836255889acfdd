"""Evaluations of a trained policy with other settings than its run's own: asked for in its folder, and answered there.

    evaluation-<digits>.yaml     asked: the settings, all those that affect no training
    evaluation-<digits>.json     answered: what was found, every episode's return included; and .png, .mp4

The digits are those of the settings, so that what was asked before is answered from the record.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from genpolicy.config import plain_yaml
from genpolicy.config.legal import remark_unused, unused
from genpolicy.config.run_settings import TrainSettings
from genpolicy.config.schema import EVALUATION, TARGET, digest, part
from genpolicy.config.validation import check, refuse_interpolation
from genpolicy.errors import UserError, message
from genpolicy.system.files import read_regular, regular_files, write_atomically

if TYPE_CHECKING:
    from genpolicy.runs.job import Job
    from genpolicy.runs.run import Run

LATER = "genpolicy.evaluation."  # begins MLflow's tags of evaluations, whose digits follow
CHOSEN = ("select", "likelihood", "solver")  # whose options may be others than the run's


def with_chosen(run: Run, job: Job) -> tuple[DictConfig, dict[str, str]]:
    """A run's configuration, checked, with what a command says of how its policy acts and is evaluated; the choices.

    That is `CHOSEN`, how many actions of a chunk are played, and `eval`. What means nothing in the run's is left as it
    is, and a line says so. Raises `UserError` for what does not go with the run.
    """
    from genpolicy.config.loader import settings_in  # which imports Hydra, as workers do not

    config, wanted, chosen = job.config, run.config.copy(), dict(run.choices)
    given = settings_in(job.overrides)
    if "chunk.length" in given:
        raise UserError("chunk.length: chunks are as long as those that the run was trained on; leave it out")
    ignored = unused(OmegaConf.to_container(run.config), TrainSettings)
    for group in (group for group in CHOSEN if group in config and group not in ignored):
        if TARGET in config[group]:
            wanted[group], chosen[group] = config[group], job.choices[group]
        else:
            wanted[group] = OmegaConf.merge(wanted[group], config[group])
    if "chunk.execute" in given:  # null: all
        wanted.chunk.execute = config.chunk.execute
    wanted.eval = config.eval
    wanted = check(wanted, chosen, root=TrainSettings)
    remark_unused(OmegaConf.to_container(wanted), TrainSettings, job.overrides)
    return wanted, chosen


@dataclass(frozen=True)
class Evaluation:
    """One evaluation of the policy of a run directory.

    settings: all that it depends on beside the policy, nested as in a configuration. choices: the options of `CHOSEN`.
    stage: begins the names of its files where the policy is not the trained one, such as "best-300-".
    """

    directory: Path
    settings: Mapping
    choices: Mapping[str, str]
    stage: str = ""

    @classmethod
    def of(cls, directory: Path, config: DictConfig, choices: Mapping[str, str], stage: str = "") -> Evaluation:
        """What a whole checked configuration asks for."""
        chosen = {group: choices[group] for group in CHOSEN if group in choices}
        return cls(directory, part(config, TrainSettings, EVALUATION), chosen, stage)

    @property
    def digits(self) -> str:
        """Eight hexadecimal digits of the settings."""
        return digest(self.settings)

    def path(self, suffix: str) -> Path:
        """One of its files."""
        return self.directory / f"evaluation-{self.stage}{self.digits}{suffix}"

    def ask(self) -> bool:
        """Ask the process that next opens the run to make it, if nobody has; whether nobody had.

        The caller owns the run.
        """
        if self.path(".yaml").exists():
            return False
        content = {"choices": dict(self.choices), "settings": self.settings}
        write_atomically(self.path(".yaml"), plain_yaml.dump(content))
        return True

    def withdraw(self) -> None:
        """Undo `ask`; the caller owns the run."""
        self.path(".yaml").unlink(missing_ok=True)

    def record(self) -> dict | None:
        """What `keep` has written; None before. Raises `UserError` for a damaged file."""
        return read_record(self.path(".json")) if self.path(".json").exists() else None

    def keep(self, run: Run, **found: Any) -> None:
        """Write down what was found, and what makes it another evaluation than the run's own."""
        changed, without = self.differences(run)
        asked = {"settings": self.settings, "choices": self.choices, "changed": changed, "without": without}
        write_atomically(self.path(".json"), json.dumps(found | asked, indent=1).encode())

    def configuration(self, run: Run) -> DictConfig:
        """The run's configuration with these settings, checked.

        Raises `UserError` if they do not go together, or if one is none of an evaluation's, as other people may write.
        """
        plain = OmegaConf.to_container(run.config, resolve=True)
        _put(plain, self.settings)
        config = check(OmegaConf.create(plain), run.choices | self.choices, root=TrainSettings)
        if part(config, TrainSettings, EVALUATION) != self.settings:
            raise UserError(f"{self.path('.yaml')}: has settings that are none of an evaluation; delete it")
        return config

    def differences(self, run: Run) -> tuple[dict[str, object], list[str]]:
        """The settings that are others than the run's own, by dotted name, and the names of those that this lacks."""
        before, after = (dict(_leaves(each.settings)) for each in (own_evaluation(run), self))
        changed = {name: value for name, value in after.items() if name not in before or before[name] != value}
        return changed, sorted(before.keys() - after.keys())

    def title(self, run: Run) -> str:
        """Its label: the words of a command line that make it another one than the run's own."""
        own = own_evaluation(run)
        chosen = {group: option for group, option in self.choices.items() if own.choices.get(group) != option}
        changed = {name: value for name, value in self.differences(run)[0].items() if not name.endswith(TARGET)}
        words = (f"{name}={as_text(value)}" for name, value in (chosen | changed).items())
        return " ".join(words) or "as at its end"


def read_record(path: Path) -> dict:
    """The record of an evaluation. Raises `UserError` for a file that is none."""
    try:
        record = json.loads(read_regular(path))
        numbers = [value for metrics in record["results"].values() for value in metrics.values()]
        whole = all(isinstance(value, float) for value in numbers) and isinstance(record["changed"], dict)
        whole &= isinstance(record["checkpoint"], str) and isinstance(record["updates"], int)
        whole &= isinstance(record["choices"], dict) and isinstance(record["without"], list)
    except (ValueError, KeyError, TypeError, AttributeError, FileNotFoundError):
        whole = False
    if not whole:
        raise UserError(f"{path}: not the record of an evaluation; move it away")
    return record


def as_text(value: object) -> str:
    """A setting's value as one would write it."""
    return value if isinstance(value, str) else json.dumps(value)


def own_evaluation(run: Run) -> Evaluation:
    """The evaluation that a run makes at its end."""
    return Evaluation.of(run.directory, run.config, run.choices)


def result(directory: Path, status: Mapping, config: DictConfig, choices: Mapping[str, str]) -> dict | None:
    """The metrics of a run's trained policy, evaluated as a configuration says; None if it has not been.

    status: the run's, whose `evaluation` are the digits of the one at its own end.
    """
    if status["state"] != "finished":
        return None
    asked = Evaluation.of(directory, config, choices)
    if status.get("evaluation") in (None, asked.digits):
        return status.get("result", {})
    record = asked.record()
    return record and record["results"]["final"]


def recorded(directory: Path) -> Iterator[tuple[str, dict]]:
    """The later evaluations of a run's trained policy: their digits, and their records; damaged ones are left out."""
    for path in regular_files(directory, f"evaluation-{'[0-9a-f]' * 8}.json"):
        with contextlib.suppress(UserError):
            yield path.stem[-8:], read_record(path)


def is_pending(directory: Path) -> bool:
    """Whether an evaluation was asked for in a run directory and not answered."""
    return any(not path.with_suffix(".json").exists() for path in regular_files(directory, "evaluation-*.yaml"))


def pending(run: Run) -> Iterator[Evaluation]:
    """The evaluations that were asked for and not answered. Raises `UserError` for a file that asks for none."""
    for path in regular_files(run.directory, "evaluation-*.yaml"):
        if path.with_suffix(".json").exists():
            continue
        try:
            content = plain_yaml.parse(read_regular(path), path)
            refuse_interpolation(content, "")
            asked = Evaluation(run.directory, content["settings"], content["choices"])
            if asked.path(".yaml") != path:
                raise ValueError("other settings than its name says")
        except (UserError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path}: not what genpolicy has written ({message(error)}); delete it") from error
        yield asked


def _put(node: dict, given: Mapping) -> None:
    """Sets the given values; a component is replaced, with all its settings, as another one may have others."""
    for name, value in given.items():
        if isinstance(value, Mapping) and TARGET not in value and isinstance(node.get(name), dict):
            _put(node[name], value)
        else:
            node[name] = value


def _leaves(node: Mapping, prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in node.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
