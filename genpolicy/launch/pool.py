"""Runs trained side by side, each in a process of its own: by a SLURM job, or on a workstation.

python -m genpolicy.launch.worker RUN_DIRECTORY [PHASE]  # what each runs; what it prints goes to the run's log.txt
"""

import itertools
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence

from genpolicy.errors import UserError
from genpolicy.launch.graph import Task
from genpolicy.system import process
from genpolicy.system.signals import Signals

POLL_SECONDS = 0.2


class Pool:
    """Carries out tasks, as many at once as there are `slots`; each after those that it waits for, if they succeed.

    A slot is the environment of its processes beside this one's, such as the GPU that they see. `ended` is
    called with a task and its exit code when its process has ended.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        slots: Sequence[Mapping[str, str]],
        ended: Callable[[Task, int], None] = lambda task, code: None,
    ):
        self.waiting = list(tasks)
        self._free = list(slots)
        self.running: dict[Task, tuple[subprocess.Popen, Mapping[str, str]]] = {}
        self._begun: dict[Task, float] = {}
        self._ended = ended
        self.codes: dict[Task, int] = {}

    def run(self, check: Callable[[], None] = lambda: None) -> None:
        """Return when all have ended; `codes` then holds the exit code of each that was started.

        `check` is called now and then, and may raise; `stop` and `run` then bring those to an end that still run.
        """
        while self.waiting or self.running:
            check()
            while self._free and (task := self._next()) is not None:
                self._start(task, self._free.pop(0))
            time.sleep(POLL_SECONDS)
            for task, (child, slot) in list(self.running.items()):
                if (code := child.poll()) is not None:
                    del self.running[task]
                    self._free.append(slot)
                    self._end(task, code)

    def stop(self, number: signal.Signals) -> None:
        """Start no more, and send those that run a signal: they save a checkpoint and end. Returns at once."""
        self.waiting = []
        for child, _ in self.running.values():
            child.send_signal(number)

    def _next(self) -> Task | None:
        """A task that waits for nothing any more; those end at once that wait for one that has failed."""
        for task in list(self.waiting):
            if any(self.codes.get(before) for before in task.after):
                self.waiting.remove(task)
                self._end(task, 1)
            elif all(before in self.codes for before in task.after):
                self.waiting.remove(task)
                return task
        return None

    def _start(self, task: Task, slot: Mapping[str, str]) -> None:
        self._begun[task] = time.monotonic()
        log = task.run / "log.txt"
        try:
            child = process.start("genpolicy.launch.worker", *task.words, log=log, environment=slot)
        except (OSError, UserError) as error:
            print(error, flush=True)
            self._free.append(slot)
            self._end(task, 1)
        else:
            self.running[task] = child, slot

    def _end(self, task: Task, code: int) -> None:
        self.codes[task] = code
        self._ended(task, code)

    def seconds(self, task: Task) -> float:
        """How long ago a task was started."""
        return time.monotonic() - self._begun[task]


def was_interrupted(code: int) -> bool:
    """Whether a process ended because it was told to: by itself, or by the signal before it listened."""
    return -code in Signals.NOTED or code - 128 in Signals.NOTED


def slots(gpus: Sequence[str], at_once: int) -> list[dict[str, str]]:
    """`at_once` slots, dealt out over the GPUs if there are any."""
    if not gpus:
        return [{}] * at_once
    return [{"CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)]} for number in range(at_once)]


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them; nvidia-smi counts them if it is unset.

    Of a GPU that is divided (MIG), its parts. As for CUDA, a negative number ends the list: -1 alone hides them all.
    """
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        names = itertools.takewhile(lambda name: not name.startswith("-"), map(str.strip, named.split(",")))
        return [name for name in names if name]
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    found: dict[str, list[str]] = {}
    for line in listed.splitlines():
        if line.startswith("GPU "):
            found[gpu := str(len(found))] = []
        elif (part := re.search(r"^\s+MIG .*\(UUID: ([^)]+)\)", line)) and found:
            found[gpu].append(part[1])
    return [name for gpu, parts in found.items() for name in parts or [gpu]]
