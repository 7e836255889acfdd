"""The search with Optuna: what is searched, what every trial repeats, and that it goes on where it was left."""

import json
import math
import statistics
import threading

import optuna
import pytest
from command_line import genpolicy
from hydra.core.override_parser.overrides_parser import OverridesParser
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState
from tiny import configured

from genpolicy.errors import UserError
from genpolicy.launch.search import Search, distribution
from genpolicy.runs import state
from genpolicy.runs.identity import directory_of
from genpolicy.runs.job import Job
from genpolicy.system.files import Lock


def parsed(*words):
    return OverridesParser.create().parse_overrides(list(words))


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("a=interval(0.5,16)", FloatDistribution(0.5, 16.0)),
        ("a=tag(log,interval(1e-5,1e-3))", FloatDistribution(1e-5, 1e-3, log=True)),
        ("a=int(interval(1,8))", IntDistribution(1, 8)),
        ("a=int(tag(log,interval(1,8)))", IntDistribution(1, 8, log=True)),
        ("a=4,8,16", CategoricalDistribution(["4", "8", "16"])),
        ("a=range(1,4)", CategoricalDistribution(["1", "2", "3"])),
        ("a=[256],[256,256]", CategoricalDistribution(["[256]", "[256,256]"])),
    ],
)
def test_what_a_sweep_means_to_a_search(word, expected):
    assert distribution(*parsed(word)) == expected


class Launcher:
    """Runs nothing; writes the result of a known function of the settings, best at beta = 3 and lr = 1e-3."""

    waits = True

    def __init__(self, outputs, fails=lambda beta: False):
        self.outputs, self.fails, self.started = outputs, fails, []

    def check(self, jobs):
        pass

    def prepare(self, job_overrides):

        return [self._job(Job, words) for words in job_overrides]

    def _job(self, make, words):
        values = dict(word.split("=", 1) for word in words)
        config, choices = configured(self.outputs, *(f"{name}={value}" for name, value in values.items()))
        return make(config, choices, words)

    def start_jobs(self, jobs, name):
        self.started += [(job.config.algo.beta, job.config.seed) for job in jobs]
        for job in jobs:
            directory = directory_of(job.config, job.choices)
            directory.mkdir(parents=True, exist_ok=True)
            result = {"score_mean": 10 - (job.config.algo.beta - 3) ** 2 + job.config.seed, "return_mean": 0.0}
            status = {"state": "failed" if self.fails(job.config.algo.beta) else "finished", "result": result}
            (directory / "status.json").write_text(json.dumps(status))
        if any(self.fails(job.config.algo.beta) for job in jobs):
            raise UserError("some runs failed")


def search(trials, at_once=1):
    given = ["algo.beta=interval(0,8)", "algo.policy_lr=tag(log,interval(1e-5,1e-1))", "seed=0,1"]
    return Search(parsed(*given, f"search.trials={trials}", f"search.at_once={at_once}"))


@pytest.mark.slow
def test_the_best_is_found_and_every_trial_runs_all_seeds(tmp_path, capsys):
    launcher = Launcher(tmp_path)
    for _ in range(2):  # given again it has nothing left to do
        found = search(40, 4)
        found.run(launcher)
        assert len(launcher.started) == 80
    assert {seed for _, seed in launcher.started} == {0, 1}
    assert found.study.best_params["algo.beta"] == pytest.approx(3, abs=0.5)
    assert found.study.best_value == pytest.approx(10.5 - (found.study.best_params["algo.beta"] - 3) ** 2)
    assert "best of 40 trials: 10." in capsys.readouterr().out
    search(41).run(launcher)
    assert len(launcher.started) == 82


def test_a_failed_trial_is_told_and_the_search_goes_on(tmp_path):
    found = search(12)
    found.run(Launcher(tmp_path, fails=lambda beta: beta < 4))
    states = [trial.state for trial in found.study.trials]
    assert TrialState.COMPLETE in states
    assert [trial.params["algo.beta"] < 4 for trial in found.study.trials] == [
        state == TrialState.FAIL for state in states
    ]


@pytest.mark.parametrize("score", [math.nan, math.inf])
def test_a_result_that_is_no_number_fails_its_trial_and_not_the_search(tmp_path, score):
    class Old(Launcher):
        """Carries runs out that have ended with such a result, as they could before."""

        def start_jobs(self, jobs, name):
            super().start_jobs(jobs, name)
            status = {"state": "finished", "result": {"score_mean": score, "return_mean": score}}
            (directory_of(jobs[0].config, jobs[0].choices) / "status.json").write_text(json.dumps(status))

    search(2).run(Old(tmp_path))
    found = search(4)
    found.run(Launcher(tmp_path))
    assert [trial.state for trial in found.study.trials] == [TrialState.FAIL] * 2 + [TrialState.COMPLETE] * 2


def test_what_a_killed_command_began_is_taken_up(tmp_path):
    class Killed(Launcher):
        def start_jobs(self, jobs, name):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(3, 2).run(Killed(tmp_path))
    launcher, found = Launcher(tmp_path), search(3, 2)
    found.open(launcher.prepare(found._examples()))
    begun = [trial.params["algo.beta"] for trial in found.study.get_trials(states=(TrialState.RUNNING,))]
    assert len(begun) == 2
    found.run(launcher)
    assert [beta for beta, seed in launcher.started if seed == 0][:2] == begun
    assert [trial.state for trial in found.study.trials] == [TrialState.COMPLETE] * 3


@pytest.mark.parametrize(("name", "value"), [("algo.policy_batch_size", "64"), ("eval.final_episodes", "9")])
def test_files_with_other_contents_make_another_search(tmp_path, name, value):
    class Changed(Launcher):
        """Of the same words, where a file of the user's has other contents by now."""

        def _job(self, make, words):
            return super()._job(make, [*words, f"{name}={value}"])

    before, after = search(2), search(2)
    before.run(Launcher(tmp_path))
    after.run(Changed(tmp_path))
    assert [len(found.study.trials) for found in (before, after)] == [2, 2]


def test_a_trial_that_was_asked_for_by_halves_is_none(tmp_path, monkeypatch):
    monkeypatch.setattr("genpolicy.launch.search.STALE_SECONDS", 0.0)
    found, launcher = search(3), Launcher(tmp_path)
    found.open(launcher.prepare(found._examples()))
    found.study.ask().suggest_float("algo.beta", 0, 8)
    found.run(launcher)
    assert [trial.state for trial in found.study.trials] == [TrialState.FAIL, *[TrialState.COMPLETE] * 2]


def test_two_commands_share_one_search(tmp_path):
    first, second = search(6), search(6)
    launcher = Launcher(tmp_path)

    class Interleaved(Launcher):
        def start_jobs(self, jobs, name):
            super().start_jobs(jobs, name)
            if len(self.started) == 4:
                second.run(launcher)

    mine = Interleaved(tmp_path)
    first.run(mine)
    assert mine.started
    assert launcher.started
    assert [trial.state for trial in first.study.trials] == [TrialState.COMPLETE] * 6


@pytest.mark.parametrize(("end", "outcome"), [("finished", TrialState.COMPLETE), ("interrupted", TrialState.RUNNING)])
def test_a_trial_is_not_told_before_another_command_has_ended_its_runs(tmp_path, monkeypatch, capsys, end, outcome):
    monkeypatch.setattr(state, "POLL_SECONDS", 0.05)

    class LeftToAnother(Launcher):
        """Finds that a run is being trained by another command that works on the same search."""

        def start_jobs(self, jobs, name):
            super().start_jobs(jobs, name)
            status = directory_of(jobs[0].config, jobs[0].choices) / "status.json"
            lock, told = Lock(status.with_name("lock")), json.loads(status.read_text())
            lock.acquire()
            status.write_text('{"state": "running"}')
            threading.Timer(0.5, lambda: (status.write_text(json.dumps(told | {"state": end})), lock.release())).start()

    found = search(1)
    found.run(LeftToAnother(tmp_path))
    assert [trial.state for trial in found.study.trials] == [outcome]
    assert ("interrupted; the same command resumes it" in capsys.readouterr().out) == (end == "interrupted")
    found.run(Launcher(tmp_path))
    assert [trial.state for trial in found.study.trials] == [TrialState.COMPLETE]


def test_the_mean_is_over_seeds_and_needs_them_all(tmp_path):
    from genpolicy.launch.search import mean_score

    jobs = Launcher(tmp_path).prepare([[f"seed={number}"] for number in range(3)])
    runs = [directory_of(job.config, job.choices) for job in jobs]
    for number, run in enumerate(runs):
        run.mkdir(parents=True)
        content = {"state": "finished", "result": {"return_mean": 100.0 * number, "score_mean": float(number)}}
        (run / "status.json").write_text(json.dumps(content))
    assert mean_score(jobs) == statistics.fmean([0, 1, 2])
    (runs[1] / "status.json").write_text('{"state": "finished", "result": {"return_mean": 1}}')
    with pytest.raises(UserError, match="some of these tasks have a normalised score"):
        mean_score(jobs)
    (runs[1] / "status.json").write_text('{"state": "failed"}')
    assert mean_score(jobs) is None


def test_a_launcher_that_starts_nothing_ends_the_search(tmp_path):
    class Refused(Launcher):
        def start_jobs(self, jobs, name):
            raise UserError("no such partition")

    found = search(5)
    with pytest.raises(UserError, match="no such partition"):
        found.run(Refused(tmp_path))
    assert len(found.study.trials) == 1


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("-m hydra/sweeper=optuna seed=0,1", "nothing to search"),
        ("-m hydra/sweeper=optuna algo.beta=interval(3,1)", "algo.beta=interval(3,1): "),
        (
            "-m hydra/sweeper=optuna algo.beta=3,4 seed=int(interval(0,2))",
            "each value is run in every trial; list them",
        ),
        ("-m algo.beta=interval(1,3)", "list the values, or search it with hydra/sweeper=optuna"),
        ("-m hydra/sweeper=optuna algo.beta=interval(1,3) search.trials=0", "search.trials: 0 must be >= 1"),
        ("-m hydra/sweeper=optuna algo.beta=interval(1,3) search.storage=nowhere", "search.storage: no database there"),
        ("-m hydra/sweeper=optuna algo.bets=interval(1,3)", "algo.bets"),
        (
            "-m hydra/sweeper=optuna hydra/launcher=local algo.beta=interval(1,3) launch.dry_run=true",
            "launch.dry_run=true: a search learns its jobs from the scores before them",
        ),
        ("-m hydra/sweeper=optuna solver.steps=interval(1,8)", "solver.steps: 3.674 is not of type int (in the job "),
        ("hydra/sweeper=optuna algo.beta=3", "add -m"),
        ("search.trials=3", "goes with hydra/sweeper=optuna"),
    ],
)
def test_bad_searches_are_one_line(words, reason, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = genpolicy(*words.split())
    assert (result.code, result.err.count("\n")) == (1, 1)
    assert reason in result.err
    optuna.logging.set_verbosity(optuna.logging.WARNING)
