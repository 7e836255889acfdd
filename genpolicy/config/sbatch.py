"""What sbatch and srun take: the forms of a job's settings (`launch`), for messages before anything is submitted."""

import math
import re
from collections.abc import Mapping
from typing import Any

from genpolicy.errors import UserError

TEXTS = ("partition", "account", "qos", "constraint", "exclude", "mail")
MAIL_TYPES = "END,FAIL"  # of an array once, when its last job has ended

# Options of sbatch that follow from a setting, or from what a job is.
_ARRANGED: dict[str, str | None] = {
    "account": "launch.account",
    "array": "launch.parallel",
    "constraint": "launch.constraint",
    "cpus-per-task": "launch.cpus",
    "exclude": "launch.exclude",
    "gpus": "launch.gpus",
    "gpus-per-node": "launch.gpus",
    "mail-type": "launch.mail",
    "mail-user": "launch.mail",
    "mem": "launch.memory",
    "mem-per-cpu": "launch.memory",
    "mem-per-gpu": "launch.memory",
    "partition": "launch.partition",
    "qos": "launch.qos",
    "time": "launch.minutes",
}
_ARRANGED |= dict.fromkeys(("error", "job-name", "nodes", "no-requeue", "ntasks", "ntasks-per-node", "open-mode"))
_ARRANGED |= dict.fromkeys(("output", "requeue", "signal", "wait", "wrap"))
_OF_SRUN = {"cpus-per-task": "launch.cpus"} | dict.fromkeys(("error", "output", "unbuffered", "nodes", "ntasks"))


def gpu_count(gpus: int | str) -> int:
    """How many GPUs `launch.gpus` asks for: 2 of '2' and of 'a100:2'. Raises `UserError` if it is neither."""
    if isinstance(gpus, bool) or not (form := re.fullmatch(r"(?:[A-Za-z][\w.-]*:)?(\d{1,3})", str(gpus))):
        raise UserError(f"launch.gpus={gpus}: must be a number, or a type and a number as in launch.gpus=a100:1")
    return int(form[1])


def minutes(time: str) -> int:
    """The minutes, rounded up, of a time as SLURM writes it: M, M:S, H:M:S, D-H, D-H:M or D-H:M:S."""
    if not re.fullmatch(r"\d+(:\d+){0,2}|\d+-\d+(:\d+){0,2}", time):
        raise UserError(
            f"launch.time={time}: not a time of SLURM's, such as 90, 12:00:00 or 1-12 (days-hours); "
            "launch.minutes takes 2h, too"
        )
    days, dash, rest = time.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    if dash:
        hours, minute, second = (*parts, 0, 0)[:3]
    elif len(parts) == 3:
        hours, minute, second = parts
    else:
        hours, (minute, second) = 0, (*parts, 0)[:2]
    return math.ceil((int(days or 0) * 24 + hours) * 60 + minute + second / 60)


def check(launch: Any) -> None:
    """Raises `UserError` for settings that SLURM would not understand, or that would end up in the job's script."""
    gpu_count(launch.gpus)
    for name in TEXTS:
        if launch[name] is not None:
            _require_line(f"launch.{name}", launch[name])
    for name, value in launch.extra.items():
        _require_option(f"launch.extra.{name}", str(name), _ARRANGED)
        if not isinstance(value, str | int | float | None):
            raise UserError(
                f"launch.extra.{name}: must be a text, a number, true for an option without a value, or null"
            )
        _require_line(f"launch.extra.{name}", value)
    for word in launch.srun:
        _require_line("launch.srun", word)
        name = word.removeprefix("--").partition("=")[0]
        if not word.startswith("--"):
            raise UserError(f"launch.srun: {word!r} must be an option such as --container-image=<image>")
        _require_option(f"launch.srun: {word}", name, _OF_SRUN)


def options(launch: Any) -> dict[str, Any]:
    """The optional options of sbatch, by name; True for one without a value."""
    given = {name: launch[name] for name in TEXTS if name != "mail"}
    if launch.mail is not None:
        given |= {"mail-user": launch.mail, "mail-type": MAIL_TYPES}
    if gpu_count(launch.gpus):
        given["gpus-per-node"] = launch.gpus
    given |= {str(name): value for name, value in launch.extra.items()}
    return {name: value for name, value in given.items() if value is not None and value is not False}


def _require_line(name: str, value: Any) -> None:
    if not (text := str(value)) or not text.isprintable():
        raise UserError(f"{name}={value!r}: must be a text of one line")


def _require_option(path: str, name: str, arranged: Mapping[str, str | None]) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9-]*", name):
        raise UserError(f"{path}: the name of an option has small letters and hyphens only")
    if name in arranged:
        setting = arranged[name]
        raise UserError(f"{path}: " + (f"write it as {setting}" if setting else "genpolicy sets this itself"))
