"""Runs trained side by side, each in a process of its own: by a SLURM job, or on a workstation.

python -m genpolicy.launch.worker RUN_DIRECTORY      # what each process runs; what it prints goes to the run's log.txt
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from genpolicy.errors import UserError
from genpolicy.system import process
from genpolicy.system.signals import Signals

POLL_SECONDS = 0.2


class Pool:
    """Trains the runs of run directories, as many at once as there are `slots`.

    A slot is the environment of its processes beside this one's, such as the GPU that they see. `ended` is
    called with a directory and its exit code when its process has ended.
    """

    def __init__(
        self,
        directories: Sequence[Path],
        slots: Sequence[Mapping[str, str]],
        ended: Callable[[Path, int], None] = lambda directory, code: None,
    ):
        self.waiting = list(directories)
        self._free = list(slots)
        self.running: dict[Path, tuple[subprocess.Popen, Mapping[str, str]]] = {}
        self._begun: dict[Path, float] = {}
        self._ended = ended
        self.codes: dict[Path, int] = {}

    def run(self, check: Callable[[], None] = lambda: None) -> None:
        """Return when all have ended; `codes` then holds the exit code of each that was started.

        `check` is called now and then, and may raise; `stop` and `run` then bring those to an end that still run.
        """
        while self.waiting or self.running:
            check()
            while self.waiting and self._free:
                self._start(self.waiting.pop(0), self._free.pop(0))
            time.sleep(POLL_SECONDS)
            for directory, (child, slot) in list(self.running.items()):
                if (code := child.poll()) is not None:
                    del self.running[directory]
                    self._free.append(slot)
                    self.codes[directory] = code
                    self._ended(directory, code)

    def stop(self, number: signal.Signals) -> None:
        """Start no more, and send those that run a signal: they save a checkpoint and end. Returns at once."""
        self.waiting = []
        for child, _ in self.running.values():
            child.send_signal(number)

    def _start(self, directory: Path, slot: Mapping[str, str]) -> None:
        self._begun[directory] = time.monotonic()
        try:
            child = process.start(
                "genpolicy.launch.worker", str(directory), log=directory / "log.txt", environment=slot
            )
        except (OSError, UserError) as error:
            print(error, flush=True)
            self._free.append(slot)
            self.codes[directory] = 1
            self._ended(directory, 1)
        else:
            self.running[directory] = child, slot

    def seconds(self, directory: Path) -> float:
        """How long ago a directory was started."""
        return time.monotonic() - self._begun[directory]


def was_interrupted(code: int) -> bool:
    """Whether a process ended because it was told to: by itself, or by the signal before it listened."""
    return -code in Signals.NOTED or code - 128 in Signals.NOTED


def slots(gpus: Sequence[str], at_once: int) -> list[dict[str, str]]:
    """`at_once` slots, dealt out over the GPUs if there are any."""
    if not gpus:
        return [{}] * at_once
    return [{"CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)]} for number in range(at_once)]


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them; nvidia-smi counts them if it is unset."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip()]
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [str(number) for number, line in enumerate(listed.splitlines()) if line.startswith("GPU ")]
