"""A search over settings with Optuna: each trial is a few runs, whose mean score it maximises.

The trials live in a database, so that the same command on another machine works on the same search, and given
again resumes it.
"""

import itertools
import math
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.plugins.launcher import Launcher
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from genpolicy.config.compose import ONE_PROCESS
from genpolicy.config.schema import digest
from genpolicy.errors import UserError, one_line
from genpolicy.launch.sweep import incidental
from genpolicy.runs.evaluations import Evaluation, result
from genpolicy.runs.identity import directory_of
from genpolicy.runs.run import same_command
from genpolicy.runs.state import known_status, run_states, settled
from genpolicy.system import sqlite
from genpolicy.system.files import new_folder, no_link
from genpolicy.training import checks

REPEATED = ("seed", "env")  # what is enumerated for these is run in every trial
STALE_SECONDS = 60.0  # before which a trial without a living run may just not have begun


class Search:
    """One search: what each trial repeats, and the `space` that is searched."""

    def __init__(self, overrides: Sequence[Override]):
        self.space: dict[str, BaseDistribution] = {}
        self.words: dict[str, list[str]] = {}
        for override in overrides:
            key = override.get_key_element()
            if not override.is_sweep_override():
                value = "" if override.is_delete() else f"={override.get_value_element_as_str()}"
                self.words[key] = [f"{key}{value}"]
            elif key in REPEATED and override.is_interval_sweep():
                raise UserError(f"{override.input_line}: each value is run in every trial; list them, as seed=0,1")
            elif key in REPEATED:
                self.words[key] = [f"{key}={value}" for value in override.sweep_string_iterator()]
            else:
                self.space[key] = distribution(override)
        if not self.space:
            raise UserError("hydra/sweeper=optuna: nothing to search; give an interval(a,b) or several values")

    def run(self, launcher: Launcher) -> None:
        """Run trials until there are `search.trials`, those that were left half done first; prints the best.

        `launcher` is one of `hydra_plugins.genpolicy.launcher`.
        """
        if not launcher.waits:
            self.words["launch.wait"] = ["launch.wait=true"]  # as the next trials follow from the scores of these
        checked = launcher.prepare(self._examples())
        launcher.check(checked)
        if checked[0].config.seeds:
            raise UserError(f"seeds={list(checked[0].config.seeds)}: {ONE_PROCESS}")
        if checked[0].config.launch.dry_run:
            raise UserError("launch.dry_run=true: a search learns its jobs from the scores before them; leave it out")
        settings = checked[0].config.search
        self.open(checked)
        waiting = self._abandoned()
        while True:
            room = settings.trials - len(self.study.get_trials(deepcopy=False))
            batch = waiting[: settings.at_once]
            batch += [self.study.ask(self.space) for _ in range(min(room, settings.at_once - len(batch)))]
            waiting = waiting[settings.at_once :]
            if not batch:
                break
            self._run_trials(batch, launcher)
        if self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
            best = self.study.best_trial
            print(f"best of {len(self.study.trials)} trials: {best.value:.4g} with {_words(best.params)}")

    def open(self, examples: Sequence) -> None:
        """Find or make the database that checked `_examples` name, and the trials in it, as `study`."""
        config, made = examples[0].config, {_made(job) for job in examples}  # as files may have other contents by now
        outputs = Path(config.paths.outputs)
        storage = config.search.storage or sqlite.uri_of(no_link(outputs / config.study / "search.db"))
        words = sorted(word for each in self.words.values() for word in each if not incidental(word))
        searched = sorted((key, repr(found)) for key, found in self.space.items())
        contents = [config.study, words, searched, sorted(made)]
        self.name = f"search {' '.join(self.space)} ({digest(contents)})"
        with new_folder(outputs / config.study):
            pass
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        try:
            self.study = optuna.create_study(
                storage=storage,
                study_name=self.name,
                sampler=optuna.samplers.TPESampler(constant_liar=True),
                direction="maximize",
                load_if_exists=True,
            )
        except Exception as error:  # whatever the database's driver raises
            raise UserError(f"search.storage: no database there ({one_line(error)})") from error

    def _examples(self) -> list[list[str]]:
        """Jobs with each choice, each end of an interval and a real number inside in one of them, of one seed."""
        ends = {key: _ends(found) for key, found in self.space.items()}
        first = {key: values[0] for key, values in ends.items()}
        points = [first, *(first | {key: value} for key, values in ends.items() for value in values[1:])]
        one_seed = {key: values[:1] if key == "seed" else values for key, values in self.words.items()}
        return [job for point in points for job in _product(one_seed, point)]

    def _run_trials(self, batch: Sequence[optuna.Trial], launcher: Launcher) -> None:
        words = [self._jobs(trial.params) for trial in batch]
        try:
            jobs = launcher.prepare([job for each in words for job in each])
            checks.complete(jobs)
        except UserError:
            for trial in batch:
                self.study.tell(trial, state=TrialState.FAIL)
            raise
        following = iter(jobs)
        groups = [[next(following) for _ in each] for each in words]
        for trial, its in zip(batch, groups, strict=True):
            trial.set_user_attr("runs", [str(directory_of(job.config, job.choices)) for job in its])
        try:
            launcher.start_jobs(jobs, self.name)
        except UserError as error:
            if all(known_status(directory_of(job.config, job.choices))["state"] == "queued" for job in jobs):
                raise  # nothing was started, and the next trials would fare no better
            print(error, flush=True)
        for trial, its in zip(batch, groups, strict=True):
            found = settled(directory_of(job.config, job.choices) for job in its)  # another command may train some
            if any(run.state == "interrupted" for run in found):
                again = same_command(jobs[0].config.overwrite)
                print(f"trial {trial.number}: interrupted; {again} resumes it", flush=True)
                continue
            score = mean_score(its)
            outcome = TrialState.FAIL if score is None else TrialState.COMPLETE
            self.study.tell(trial, score, outcome, skip_if_finished=True)  # another command may have told it
            said = "failed" if score is None else f"{score:.4g}"
            print(f"trial {trial.number}: {said} with {_words(trial.params)}", flush=True)

    def _jobs(self, parameters: Mapping) -> list[list[str]]:
        return _product(self.words, parameters)

    def _abandoned(self) -> list[optuna.Trial]:
        """Trials begun by a command that has ended."""

        def busy(trial: optuna.trial.FrozenTrial) -> bool:
            runs = [Path(run) for run in trial.user_attrs.get("runs", [])]
            young = time.time() - trial.datetime_start.timestamp() < STALE_SECONDS
            return any(run.busy for run in run_states(runs)) or (young and not runs)

        begun = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        found = []
        for trial in (each for each in begun if not busy(each)):
            if trial.params.keys() == self.space.keys():
                found.append(optuna.Trial(self.study, trial._trial_id))
            else:  # its command was killed while it asked
                self.study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
        return found


def distribution(override: Override) -> BaseDistribution:
    """What a sweep of Hydra's grammar means to a search; `tag(log, ...)` is searched in the logarithm.

    Raises `UserError` for an empty interval.
    """
    sweep = override.value()
    if isinstance(sweep, IntervalSweep):
        kind = IntDistribution if isinstance(sweep.start, int) else FloatDistribution
        try:
            return kind(sweep.start, sweep.end, log="log" in sweep.tags)
        except ValueError as error:
            raise UserError(f"{override.input_line}: {error}") from error
    return CategoricalDistribution(list(override.sweep_string_iterator()))


def _product(words: Mapping[str, list[str]], parameters: Mapping) -> list[list[str]]:
    chosen = [[f"{key}={value}"] for key, value in parameters.items()]
    return [list(job) for job in itertools.product(*words.values(), *chosen)]


def _ends(distribution: BaseDistribution) -> Sequence:
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices
    ends = distribution.low, distribution.high
    if isinstance(distribution, IntDistribution):
        return ends
    return *ends, 0.618 * ends[0] + 0.382 * ends[1]  # one that is hardly a whole number, where the setting wants these


def _made(job: Any) -> str:
    """What the score of a checked job depends on, beside its seed."""
    directory = directory_of(job.config, job.choices).parent
    return f"{directory.parent.name}/{directory.name} {Evaluation.of(directory, job.config, job.choices).digits}"


def mean_score(jobs: Sequence) -> float | None:
    """The mean over the runs of jobs of the final normalised score, or of the return, evaluated as the jobs say.

    None if a run has not finished, or has a result that is no number. Raises `UserError` if only some of the tasks have
    a normalised score.
    """
    results = []
    for job in jobs:
        directory = directory_of(job.config, job.choices)
        results.append(result(directory, known_status(directory), job.config, job.choices) or None)
    if None in results:
        return None
    scored = ["score_mean" in result for result in results]
    if any(scored) and not all(scored):
        raise UserError("env: some of these tasks have a normalised score and some have none; search them separately")
    mean = statistics.fmean(result["score_mean" if all(scored) else "return_mean"] for result in results)
    return mean if math.isfinite(mean) else None


def _words(parameters: Mapping) -> str:
    return " ".join(
        f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}" for key, value in parameters.items()
    )
