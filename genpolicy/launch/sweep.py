"""A sweep: runs that one command asks for. Issued again, the same command starts only what is missing.

outputs/<study>/sweeps/<digits>/
    sweep.json           its name, and its run directories relative to the outputs
    lock                 held by a process on this machine in which runs wait for their turn
    ...                  submitit's files and logs, if it went to SLURM
"""

import contextlib
import json
import re
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from genpolicy.config.arguments import quoted, shell
from genpolicy.config.compose import ONE_PROCESS
from genpolicy.config.run_settings import NO_EFFECT
from genpolicy.config.schema import digest
from genpolicy.errors import UserError, printable
from genpolicy.runs import provenance, records
from genpolicy.runs.evaluations import result
from genpolicy.runs.identity import each_seed, label
from genpolicy.runs.run import open_run
from genpolicy.runs.state import known_status, run_states
from genpolicy.system.files import Lock, new_folder, write_atomically


class Sweep:
    """The runs of one command: `runs` holds each directory with its label, the words that vary.

    `name` has them all, and the eight hexadecimal digits that the folder is named by. `failures` says which runs could
    not be started, and why.
    """

    def __init__(self, outputs: Path, study: str, digits: str):
        self.outputs, self.study, self.digits = Path(outputs), study, digits
        self.directory = self.outputs / study / "sweeps" / digits
        self.failures: list[str] = []
        self.grows = False
        known = records.read(self.directory / "sweep.json", records.SWEEP) or {}
        self.name: str = known.get("name", digits)
        own = {run: title for run, title in known.get("runs", {}).items() if ".." not in Path(run).parts}
        self.runs = {self.outputs / run.lstrip("/"): printable(title) for run, title in own.items()}

    @classmethod
    def of(cls, jobs: Sequence, name: str | None = None) -> "Sweep":
        """The sweep of checked jobs (`runs.job.Job`); nothing is written.

        One with a `name` of its own, which ends as `sweep_name` does, may have had other runs before.
        """
        config, own = jobs[0].config, name or sweep_name(jobs)
        sweep = cls(Path(config.paths.outputs), config.study, own[-9:-1])
        sweep.name, sweep.grows = own, name is not None
        if name is None:
            sweep.runs = {}
        directories = set()
        for job, title in zip(jobs, titles(jobs), strict=True):
            for single, directory in zip(each_seed(job.config), job.directories, strict=True):
                own = title if single is job.config else f"{title} seed={single.seed}".strip()
                if (known := sweep.runs.get(directory)) and directory in directories:  # of another evaluation
                    own = " ".join(word for word in known.split() if word in own.split())
                sweep.runs[directory] = own or label(directory)
                directories.add(directory)
        return sweep

    def save(self) -> None:
        """Write the sweep down, for `mode=status`, inside of `launch_lock`. Raises `UserError` if that cannot be.

        A sweep with a name of its own keeps the runs that another command has noted meanwhile.
        """
        if self.grows:
            self.runs = Sweep(self.outputs, self.study, self.digits).runs | self.runs
        content = {"name": self.name, "runs": {str(run.relative_to(self.outputs)): self.runs[run] for run in self.runs}}
        with new_folder(self.directory, own=2):
            write_atomically(self.directory / "sweep.json", json.dumps(content, indent=1).encode())

    def check(self) -> None:
        """Raises `UserError` if there are runs that could not be started."""
        if self.failures:
            more = f" (and {len(self.failures) - 1} more)" if len(self.failures) > 1 else ""
            raise UserError(f"not started: {self.failures[0]}{more}")

    @contextlib.contextmanager
    def in_progress(self) -> Iterator[None]:
        """While entered, runs of the sweep wait for their turn in this process, and `launching` is true."""
        lock = Lock(self.directory / "lock")
        lock.acquire(1.0)  # longer than `is_locked` looks at it; unless the same command holds it elsewhere
        try:
            yield
        finally:
            lock.release()

    @property
    def watch(self) -> str:
        """The command that shows how the sweep stands."""
        words = ["mode=status", f"study={quoted(self.study)}", f"sweep={self.digits}"]
        if self.outputs != Path("outputs").absolute():
            words.append(f"paths.outputs={quoted(str(self.outputs))}")
        return shell("genpolicy", *words)


def sweep_name(jobs: Sequence) -> str:
    """A name that the same jobs of the same study always get: what varies, as given, and eight hexadecimal digits."""
    words = [[word for word in job.overrides if not incidental(word)] for job in jobs]
    contents = [jobs[0].config.study, sorted(sorted(each) for each in words)]
    digits = digest(contents)
    values: dict[str, set[str]] = {}
    for key, _, value in (word.partition("=") for each in words for word in each):
        values.setdefault(key, set()).add(value)
    varied = " ".join(f"{key}={_listed(given)}" for key, given in sorted(values.items()) if len(given) > 1)
    varied = varied.replace("${", "$(")  # a frozen configuration holds none
    return f"{textwrap.shorten(varied, 100, placeholder='...')} ({digits})".strip()


def _listed(values: set[str]) -> str:
    """Values in natural order, the middle of a long list left out: '0,1,2,...,199'."""

    def natural(value: str) -> list:
        return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", value)]

    ordered = sorted(values, key=natural)
    return ",".join(ordered if len(ordered) <= 8 else [*ordered[:3], "...", ordered[-1]])


def titles(jobs: Sequence) -> list[str]:
    """What tells each job from the others: the words of it that not all of them have."""
    shared = set.intersection(*(set(job.overrides) for job in jobs))
    return [" ".join(word for word in job.overrides if word not in shared) for job in jobs]


def incidental(word: str) -> bool:
    """Whether a word of the command line may change, and the sweep is still the same."""
    return word.lstrip("+~").partition("=")[0].partition(".")[0] in NO_EFFECT - {"seeds"} | {"cluster"}


def finished_already(job: Any) -> bool:
    """Whether a checked job has nothing left to train."""
    if job.config.mode != "train" or job.config.overwrite:
        return False
    return all(known_status(run)["state"] == "finished" for run in job.directories)


def verify_data(jobs: Sequence) -> dict[Path, str]:
    """Raises `DataChanged` if the data of a run that is there, and is not to be overwritten, have changed.

    Returns what else is wrong, by run directory: it concerns that run alone.
    """
    wrong = {}
    for job in jobs:
        for single, directory in zip(each_seed(job.config), job.directories, strict=True):
            if not job.config.overwrite:
                try:
                    provenance.verify(directory, single)
                except provenance.DataChanged:
                    raise
                except UserError as error:
                    wrong[directory] = str(error)
    return wrong


def missing(jobs: Sequence, sweep: Sweep) -> dict[Path, list]:
    """The jobs whose runs are neither finished nor running or queued, by run directory; says what is left alone.

    A finished run that has not been evaluated as a job says is to be evaluated. Jobs that differ in their evaluation
    only have the same run. Raises `DataChanged` if the data of one of the runs have changed.
    """
    wrong = verify_data(jobs)
    todo, left, states = {}, {}, {}
    for job, run in zip(jobs, run_states(job.directories[0] for job in jobs), strict=True):
        if reason := wrong.get(run.directory):
            sweep.failures.append(f"{sweep.runs[run.directory]}: {reason}")
            continue
        state, begun = run.state, run.directory in todo
        if state == "finished" and not (run.busy or job.config.overwrite or begun):
            if result(run.directory, run.status, job.config, job.choices) is not None:
                left[run.directory] = run
                continue
            state = "to evaluate"
        if run.busy:
            left[run.directory] = run
        else:
            todo.setdefault(run.directory, []).append(job)
            states.setdefault(run.directory, state)
    shown = [
        f"  {sweep.runs[directory]}: {run.state}" + (f", job {run.job}" if run.alive else "")
        for directory, run in left.items()
        if directory not in todo
    ]
    states, left = Counter(states.values()), shown
    detail = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    print(f"sweep {sweep.name}: {len(todo)} of {len(todo) + len(left)} to start" + (f": {detail}" if detail else ""))
    for line in [f"left alone: {len(left)}", *left] if left else []:
        print(line, flush=True)
    return todo


@contextlib.contextmanager
def claimed(jobs: Sequence, sweep: Sweep) -> Iterator[list[Path]]:
    """The missing runs of a sweep, frozen; while entered, no other command looks for runs to start.

    Those that cannot be are among the sweep's failures. Raises `UserError` if there are no others.
    """
    overwrite_once(jobs)
    with launch_lock(sweep.outputs):
        todo = missing(jobs, sweep)
        sweep.save()
        name, runs = sweep.name if len(sweep.runs) > 1 else None, []
        for directory, same in todo.items():
            try:
                for job in same:
                    open_run(job.config, job.choices, name).close()
                runs.append(directory)
            except UserError as error:
                sweep.failures.append(f"{sweep.runs[directory]}: {error}")
        if todo and not runs:
            sweep.check()
        yield runs


@contextlib.contextmanager
def launch_lock(outputs: Path) -> Iterator[None]:
    """While entered, no other command looks for runs to start, or notes a sweep."""
    with new_folder(outputs):
        pass
    with Lock(outputs / ".launch.lock"):
        yield


def overwrite_once(jobs: Sequence) -> None:
    """Has a run that several jobs only evaluate differently be overwritten by the first of them alone."""
    seen = set()
    for job in jobs:
        directory = job.directories[0]
        job.config.overwrite = job.config.overwrite and directory not in seen
        seen.add(directory)


def common_launch(jobs: Sequence) -> DictConfig:
    """The `launch` settings of a sweep, which all its jobs must share, as they must its study and outputs."""
    for job in jobs:
        if job.config.mode != "train":
            raise UserError(f"hydra/launcher: is for training runs; leave it out for mode={job.config.mode}")
        if job.config.seeds:
            raise UserError(f"seeds={list(job.config.seeds)}: {ONE_PROCESS}")
    require_same(jobs, "launch", "study", "paths")
    return jobs[0].config.launch


def require_same(jobs: Sequence, *names: str) -> None:
    """Raises `UserError` if the jobs of a sweep differ in one of these settings."""
    for job in jobs:
        for name in names:
            if job.config[name] != jobs[0].config[name]:
                raise UserError(f"{name}: must be the same for all jobs of a sweep")
