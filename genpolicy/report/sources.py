"""Where a report's numbers come from: an MLflow store, or the run directories themselves. Both tell the same."""

import functools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from genpolicy.errors import UserError, printable
from genpolicy.report.results import LAST, Result
from genpolicy.runs import journal
from genpolicy.runs.evaluations import LATER, as_text, recorded
from genpolicy.runs.identity import GROUPS, label, settings
from genpolicy.runs.run import read_frozen
from genpolicy.runs.state import read_status

if TYPE_CHECKING:  # MLflow is slow to import
    from mlflow.entities import Run as MlflowRun

    from genpolicy.tracking.store import Store

History = Callable[[str, str], list[tuple[int, float, int]]]

NAMING = ("algo", "model", "env", "dataset")  # options that every run has
# Metrics whose whole history is kept of a journal, which may have millions of others.
KEPT = re.compile(r"(eval|steps|data|final|evaluation-[0-9a-f]{8})/|.*/(updates_per_second|environment_steps)$")


@dataclass(frozen=True)
class Source:
    """The runs of a study as they were read.

    name: that of the store or the folder. odd: a line for each run that says too little of itself. history: all (step,
    value, milliseconds since 1970) of a metric of the run with this number.
    """

    name: str
    results: list[Result]
    odd: list[str]
    history: History


def of_store(store: "Store", runs: Iterable["MlflowRun"]) -> Source:
    """Runs as an MLflow store tells them."""
    found, odd = [], []
    for run in runs:
        try:
            found += _with_later(_stored(run), _tagged(run.data.tags))
        except (KeyError, ValueError) as error:
            odd.append(printable(f"MLflow run {run.info.run_id}: not as genpolicy tags its runs ({error!r:.100})"))

    @functools.cache
    def histories(metric: str) -> dict[str, list[tuple[int, float, int]]]:
        return store.histories(metric, [run.number for run in found if metric in run.metrics])

    return Source(store.uri, found, odd, lambda number, metric: histories(metric).get(number, []))


def of_directories(study: Path, directories: Iterable[Path], sweep: str | None = None) -> Source:
    """Runs as their directories below a study's folder tell them, those that have begun.

    sweep: the digits of a sweep; then only runs that say that they belong to it.
    """
    found, odd, histories = [], [], {}
    for directory in directories:
        try:
            frozen, status = read_frozen(directory), read_status(directory)
            other = sweep is not None and not (frozen["sweep"] or "").endswith(f"({sweep})")
            if status["state"] == "queued" or other:
                continue
            number = str(directory.relative_to(study))
            metrics, histories[number] = _journaled(directory / "journal.jsonl")
            own = _told(number, directory, frozen, status, metrics)
            found += _with_later(own, dict(recorded(directory)))
        except (UserError, KeyError, ValueError) as error:
            told = error if isinstance(error, UserError) else f"not as genpolicy writes its runs ({error!r:.100})"
            odd.append(printable(f"{label(directory)}: {told}"))
    return Source(str(study), found, odd, lambda number, metric: histories[number].get(metric, []))


def _journaled(path: Path) -> tuple[dict[str, float], dict[str, list[tuple[int, float, int]]]]:
    """The last value of each metric in a journal, and the whole history of some."""
    last, histories, kept = {}, {}, functools.cache(KEPT.match)
    for event, _ in journal.read(path) if path.exists() else ():
        for name, value in event["metrics"].items():
            last[name] = float(value)
            if kept(name):
                histories.setdefault(name, []).append((event["step"], float(value), event["time"]))
    return last, histories


def _told(number: str, directory: Path, frozen: Mapping, status: Mapping, metrics: Mapping[str, float]) -> Result:
    choices = {group: printable(frozen["choices"][group]) for group in GROUPS if group in frozen["choices"]}
    _ = [choices[group] for group in NAMING]
    shown = {printable(name): printable(value) for name, value in settings(frozen["config"]).items()}
    return Result(
        number=number,
        directory=str(directory),
        created=int(1000 * (directory / "config.yaml").stat().st_mtime),
        state=status["state"],
        reason=printable(status.get("reason") or ""),
        seed=frozen["config"]["seed"],
        choices=choices,
        settings=shown,
        commit=status.get("commit"),
        metrics=metrics,
    )


def _stored(run: "MlflowRun") -> Result:
    """The names are those of `tracking.entities`. Raises KeyError or ValueError for a missing or wrong tag."""
    tags = {name: printable(value) for name, value in run.data.tags.items()}
    choices = {group: tags[f"genpolicy.{group}"] for group in GROUPS if f"genpolicy.{group}" in tags}
    _ = [choices[group] for group in NAMING]
    return Result(
        number=run.info.run_id,
        directory=run.data.tags["genpolicy.run_dir"],
        created=run.info.start_time,
        state=tags.get("genpolicy.state", "unknown"),
        reason=tags.get("genpolicy.reason", ""),
        seed=int(tags["genpolicy.seed"]),
        choices=choices,
        settings={printable(name): printable(value) for name, value in run.data.params.items()},
        commit=tags.get("mlflow.source.git.commit"),
        metrics=run.data.metrics,
    )


def _tagged(tags: Mapping[str, str]) -> Iterator[tuple[str, dict]]:
    """The digits of each later evaluation that MLflow's tags tell of, and what it was."""
    for tag, text in tags.items():
        if tag.startswith(LATER):
            try:
                yield tag.removeprefix(LATER), json.loads(printable(text))
            except ValueError:  # no tag of genpolicy's
                continue


def _with_later(own: Result, later: Mapping[str, dict] | Iterable[tuple[str, dict]]) -> Iterator[Result]:
    """A run's result, and each later evaluation of it as a result of its own, as if it were the one at its end.

    One as at its end, which `mode=eval` has made again, perhaps to film it, is no other result.
    """
    yield own
    for digits, told in dict(later).items():
        prefix = f"evaluation-{digits}/"
        try:
            changed = {str(name): as_text(value) for name, value in told["changed"].items()}
            chosen = {str(group): str(option) for group, option in told["choices"].items()}
            known = {name: value for name, value in own.settings.items() if name not in told["without"]} | changed
        except (KeyError, TypeError, AttributeError):
            continue
        choices = {group: chosen.get(group, option) for group, option in own.choices.items()}
        if replace(own, settings=known, choices=choices).configuration == own.configuration:
            continue
        metrics = {name.removeprefix(prefix): value for name, value in own.metrics.items() if name.startswith(prefix)}
        metrics = {name if name.startswith("steps/") else f"{LAST}/{name}": value for name, value in metrics.items()}
        yield replace(own, settings=known, choices=choices, metrics=metrics, evaluation=prefix)
