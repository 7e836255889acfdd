"""A run is a directory; everything true about it is there.

    outputs/<study>/<env>/<algo>-<model>-<hash8>/seed<k>/
        config.yaml              what runs: identity, choices, sweep and the whole configuration; written once, but for
                                 where it is tracked and data lie, and what computes it, which each command says anew
        status.json              how it goes: state, process, step, times, the reason of a failure
        journal.jsonl            every metric (genpolicy.runs.journal); journal.index, its last steps, to go on quickly
        last.pt, best.pt         checkpoints (genpolicy.runs.checkpoint)
        policy.pt                the trained policy alone, without what only training needs
        figures/                 pictures, and the video of an episode
        evaluation-*             later evaluations: what was asked, what was found (genpolicy.runs.evaluations)
        export/                  the policy for use without genpolicy (mode=export)
        data.json                what data it is made of (genpolicy.runs.provenance)
        lock                     held by the process that owns the run
        job.json, log.txt        the SLURM job it was given to; what its process printed, if a launcher started it
        tracking.*               what trackers have been told (genpolicy.tracking.tracked)

There is no time in the name: the same command finds the same run.
"""

import contextlib
import json
import os
import platform
import re
import socket
import time
import traceback
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from genpolicy.config import plain_yaml, plugins
from genpolicy.config.plugins import PluginNeeded
from genpolicy.config.run_settings import OF_ONE_MODE, TrainSettings, absolute_uri
from genpolicy.config.schema import TARGET, completed, modules
from genpolicy.config.setting_groups import Chunk, Tracking
from genpolicy.config.validation import check, refuse_interpolation
from genpolicy.errors import UserError, message, one_line, printable
from genpolicy.runs import provenance, records
from genpolicy.runs.evaluations import Evaluation, own_evaluation
from genpolicy.runs.identity import directory_of
from genpolicy.runs.state import read_status
from genpolicy.system.console import remark
from genpolicy.system.files import Lock, is_locked, new_folder, no_link, read_regular, unwritable, write_atomically
from genpolicy.system.git import revision
from genpolicy.system.signals import Interrupted

_ID = re.compile("[0-9a-f]{32}")
POLICY = "policy.pt"
_CONTENT = ("status.json", "last.pt", "best.pt", POLICY, "journal.jsonl", "journal.index")
_CONTENT += ("figures/*.png", "figures/*.mp4", "export/policy.*")
_CONTENT += tuple(f"evaluation-*.{kind}" for kind in ("yaml", "json", "png", "mp4"))
_CONTENT += ("tracking.json", "tracking.log", "log.txt", "job.json", "data.json", "config.yaml")
COMPUTED = ("device", "threads", "compile", "checkpoint_seconds")  # how a run is computed and saved from now on
RECORDED = ("log_every", "eval.per_phase", "eval.episodes")  # what its journal has of it, from its begin to its end
# Settings of an algorithm that an earlier version had, and that changed nothing.
_DROPPED = {"genpolicy.algo.td3_bc.TD3BC": ("own_size",), "genpolicy.algo.rebrac.ReBRAC": ("eta", "own_size")}


class InUse(UserError):
    """Another process owns the run."""


class Run:
    """A run directory. Only the process that got it from `open_run` writes to it.

    `config` is the frozen configuration, `id` names the run for ever, `sweep` the multirun it belongs to,
    `replaces` the ids of the runs that it has overwritten.
    """

    def __init__(self, directory: Path):
        self.directory = no_link(Path(directory))
        frozen = read_frozen(self.directory)
        self.id: str = frozen["id"]
        self.replaces: list[str] = frozen["replaces"]
        self.sweep: str | None = frozen["sweep"]
        self.choices: dict[str, str] = frozen["choices"]
        own = {name: value for name, value in frozen["config"].items() if name not in OF_ONE_MODE}
        self.config: DictConfig = OmegaConf.create(own)
        self.asked: Evaluation | None = None  # what the command wants of it, beside the evaluation at its own end
        self.asks = False  # whether no command has wanted it before
        self._lock: Lock | None = None
        self._status: dict = {}

    @property
    def name(self) -> str:
        """The run's label: 'gmpg-gvp maze2d-umaze-v1 s0'."""
        return printable(f"{self.choices['algo']}-{self.choices['model']} {self.choices['env']} s{self.config.seed}")

    @property
    def outputs(self) -> Path:
        """The folder of all runs, where this one lies now (it may have been moved since it was made)."""
        return self.directory.parents[3]

    def path(self, name: str) -> Path:
        """A file of the run directory."""
        return self.directory / name

    def status(self) -> dict:
        """What `read_status` says of it."""
        return read_status(self.directory)

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to do."""
        return self.status()["state"] == "finished"

    def note(self, **facts: Any) -> None:
        """Write `facts` into status.json, beside what is there."""
        self._status |= facts | {"updated": time.time()}
        write_atomically(self.path("status.json"), json.dumps(self._status, indent=1).encode())

    def noted(self, name: str, default: Any) -> Any:
        """One of the facts that have been noted."""
        return self._status.get(name, default)

    @contextlib.contextmanager
    def recorded(self, **facts: Any) -> Iterator[None]:
        """Keeps status.json true around the work: running, then finished, interrupted or failed, and why.

        Of what was noted before, how far the phases are is kept.
        """
        self._status = _origin(self.config) | {"evaluation": own_evaluation(self).digits} | self._kept() | facts
        self.note(state="running", started=time.time())
        try:
            yield
        except BaseException as error:
            interrupted = isinstance(error, Interrupted | KeyboardInterrupt)
            with contextlib.suppress(UserError):  # a full disk must not hide the first error
                self.note(
                    state="interrupted" if interrupted else "failed",
                    finished=time.time(),
                    reason=getattr(error, "signal", None) or one_line(error),
                    traceback=None if interrupted else traceback.format_exc(),
                )
            raise
        self.note(state="finished", finished=time.time(), reason=None)

    def fail(self, reason: str) -> None:
        """Say that it has failed, of a run that cannot be trained at all; what `recorded` keeps is kept."""
        self._status = self._kept()
        self.note(state="failed", reason=reason)

    def _kept(self) -> dict:
        """How far the phases are, as noted before."""
        before = self.status()
        return {name: before[name] for name in ("phases", "spent", "begun", "extends", "made") if name in before}

    def close(self) -> None:
        """Give the run up, so that another process may own it."""
        if self._lock is not None:
            self._lock.release()


def open_run(config: DictConfig, choices: Mapping[str, str], sweep: str | None = None) -> Run:
    """The run of a checked configuration, owned by this process until `close` or its end.

    A new run directory gets the configuration, frozen. An existing one keeps its own, which is what runs, but for where
    it is tracked and where data lie: the folder may come from other people, and theirs are no places to send or write
    anything to; and, until it has finished, for `COMPUTED`. If the configuration has others of `RECORDED`, which it
    keeps, a line says so. It is asked for an evaluation if the configuration's is another one, made on the device that
    the configuration says. With `overwrite` its content is deleted first, by the names that genpolicy gives and nothing
    else. `sweep` names the multirun. Raises `UserError` if another process owns the run, if its data have changed, or
    if the folder cannot be written.
    """
    directory = directory_of(config, choices)
    with new_folder(directory, own=3) as made, _held(directory, timeout=1.0) as lock:
        frozen = directory / "config.yaml"
        replaces = []
        if config.overwrite and frozen.exists():
            old = Run(directory)
            replaces = [*old.replaces, old.id]
            _clear(directory)
        if not frozen.exists():
            try:
                write_atomically(frozen, _freeze(config, choices, sweep, replaces))
            except UserError:
                if directory in made:
                    lock.path.unlink()
                raise
        run = load_run(directory)
        anew = _places(config) | ({} if run.finished else {name: config[name] for name in COMPUTED})
        differs = any(run.config[name] != anew[name] for name in anew)
        run.config.merge_with(anew)
        provenance.verify(run.directory, run.config)
        if differs:
            run.config = check(run.config, run.choices, root=TrainSettings)
            changed = read_frozen(directory)
            changed["config"] |= anew
            write_atomically(frozen, plain_yaml.dump(changed))
        _remark_recorded(run.config, config)
        asked = Evaluation.of(directory, config, choices)
        if asked.digits != own_evaluation(run).digits:
            run.asked, run.asks = asked, asked.ask()
        if run.finished:
            run.config.device, run.config.threads = config.device, config.threads
        run._lock = lock
    return run


def claim_run(directory: Path, timeout: float) -> Run:
    """An existing run, owned by this process as by `open_run`; waits so many seconds for its owner to end."""
    with _held(Path(directory), timeout) as lock:
        run = load_run(directory)
        provenance.verify(run.directory, run.config)
        run._lock = lock
    return run


@contextlib.contextmanager
def _held(directory: Path, timeout: float) -> Iterator[Lock]:
    """The lock of a run directory, taken; given back if an exception comes."""
    lock = Lock(directory / "lock")
    if not lock.acquire(timeout):
        raise _in_use(lock)
    try:
        yield lock
    except BaseException:
        lock.release()
        raise


def require_free(directory: Path) -> None:
    """Raises `InUse` if a process owns the run directory, which need not be there."""
    if is_locked(directory / "lock"):
        raise _in_use(Lock(directory / "lock"))


def _in_use(lock: Lock) -> InUse:
    return InUse(f"{lock.path.parent}: in use by {lock.holder()}; wait for it, or stop it first")


def load_run(directory: Path) -> Run:
    """An existing run, to read: checked, not owned. Raises `UserError` if the folder is no run directory."""
    run = Run(Path(directory).absolute())
    run.config = _checked(run)
    return run


def find_runs(outputs: Path, study: str = "*") -> Iterator[Path]:
    """The run directories below the folder of all runs, or those of a study, in order of their names.

    The folder of all runs, and a study's, may be links; what is linked to further down is no run of theirs.
    """
    found = (path.parent for path in sorted(Path(outputs).glob(f"{study}/*/*/seed*/config.yaml")))
    return (run for run in found if not any(folder.is_symlink() for folder in (run, *run.parents[:2])))


def _freeze(config: DictConfig, choices: Mapping[str, str], sweep: str | None, replaces: list[str]) -> bytes:
    plain = OmegaConf.to_container(config, resolve=True, enum_to_str=True)
    plain["overwrite"] = False  # a resumed run must not start again
    del plain["launch"], plain["search"], plain["seeds"]  # how it was started is no part of it, and may hold a password
    plain = {name: value for name, value in plain.items() if name not in OF_ONE_MODE}  # neither are other modes
    plain |= _places(config)
    content = {"id": uuid.uuid4().hex, "replaces": replaces, "sweep": sweep}
    content |= {"choices": dict(choices), "config": plain}
    refuse_interpolation(content, "")
    return plain_yaml.dump(content)


def _places(config: DictConfig) -> dict:
    """How a command has its runs tracked, and where things and other runs lie for it, as it is frozen."""
    tracking, paths = (OmegaConf.to_container(config[name], resolve=True) for name in ("tracking", "paths"))
    paths = {name: str(Path(path).expanduser().absolute()) for name, path in paths.items()}
    others = {name: OmegaConf.to_container(config[name]) for name in ("phases", "init")}  # runs that it takes parts of
    return {"tracking": tracking | {"uri": absolute_uri(tracking["uri"])}, "paths": paths} | others


def same_command(overwrites: bool) -> str:
    """What resumes a run that is stopped, for messages. overwrites: whether it was begun with `overwrite`."""
    return "the same command" + " without overwrite=true" * overwrites


def _remark_recorded(own: DictConfig, wanted: DictConfig) -> None:
    """Says which of `RECORDED` a command has other values of than a run that has begun."""
    values = {name: (OmegaConf.select(own, name), OmegaConf.select(wanted, name)) for name in RECORDED}
    kept = [f"{name}={then}, not {now}" for name, (then, now) in values.items() if then != now]
    if kept:
        remark(f"a run that was begun records what it did then: {'; '.join(kept)}; overwrite=true begins anew")


def read_frozen(directory: Path) -> dict:
    """What a run's config.yaml holds: its id, choices, sweep and configuration. Raises `UserError` if it is none."""
    path = directory / "config.yaml"
    try:
        text = read_regular(path)
    except FileNotFoundError as error:
        raise UserError(f"{path.parent}: not a run directory; there is no config.yaml") from error
    try:
        frozen = plain_yaml.parse(text, path)
        if frozen.keys() != {"id", "replaces", "sweep", "choices", "config"}:
            raise ValueError("other keys than genpolicy writes")
        if odd := records.misfit(frozen, records.FROZEN):
            raise ValueError(odd)
        if not all(_ID.fullmatch(number) for number in (frozen["id"], *frozen["replaces"])):
            raise ValueError("its id is none of genpolicy's")
        refuse_interpolation(frozen, "")
        _modernise(frozen["config"])
        return frozen
    except (UserError, ValueError, TypeError, AttributeError) as error:
        said = message(error).removeprefix(f"{path}: ")
        raise UserError(f"{path}: not the frozen configuration of a run ({said}); move it away") from error


def _modernise(config: dict) -> None:
    """Gives what an earlier version called `online.mix` its name of today, and drops what is no setting any more.

    What trackers read has the defaults of settings that it had not.
    """
    for name, kind in {"tracking": Tracking, "chunk": Chunk}.items():
        config[name] = completed(config.get(name, {}), kind)
    online, algo = (config.get(name) for name in ("online", "algo"))
    if isinstance(online, dict) and "mix" in online:
        online["offline_ratio"] = 0.5 if online.pop("mix") == "half" else None
    if isinstance(algo, dict):
        for name in _DROPPED.get(algo.get(TARGET), ()):
            algo.pop(name, None)


def _checked(run: Run) -> DictConfig:
    """Its configuration, checked again: the file may have been edited, or be older than the code."""
    try:
        return check(run.config, run.choices, root=TrainSettings)
    except PluginNeeded as error:
        raise PluginNeeded(f"{run.directory}: {error}") from error
    except UserError as error:
        trained = run.path("last.pt").exists() or run.path(POLICY).exists()  # which nobody is told to throw away
        advice = "it takes the code and packages that the run was made with" if trained else "overwrite=true redoes it"
        raise UserError(f"{run.path('config.yaml')}: {error}; {advice}") from error


def _clear(directory: Path) -> None:
    """Delete what genpolicy wrote: its status first, so that a crash leaves a run that is not finished."""
    for pattern in _CONTENT:
        for path in directory.glob(pattern):
            if path.parent.is_symlink():
                continue  # what lies behind it is not the run's
            try:
                path.unlink()
            except OSError as error:
                raise unwritable(path, error) from error


def slurm_job() -> str | None:
    """The SLURM job that this process belongs to, as squeue names it: '12_3' is task 3 of array 12."""
    array, task = (os.environ.get(f"SLURM_ARRAY_{part}_ID") for part in ("JOB", "TASK"))
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")


def _origin(config: DictConfig) -> dict:
    """Where and from which code this process runs, that of plugins included."""
    facts = {"pid": os.getpid(), "host": socket.gethostname(), "python": platform.python_version()}
    commit, dirty = revision(Path(__file__).parent)
    used = {module.partition(".")[0] for module in modules(OmegaConf.to_container(config))} - {"genpolicy"}
    facts |= {"plugins": plugins.versions(used)} if used else {}
    return facts | {"job": slurm_job(), "commit": commit, "dirty": dirty}
