"""The small JSON files of a run and a sweep: checked once, when they are read."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from genpolicy.errors import UserError
from genpolicy.system.files import read_regular

Number = int | float
Text = str | None

# file -> what it holds, as far as it is there; a list or {str: kind} says what all items are.
STATUS = {"state": str, "reason": Text, "traceback": Text, "host": str, "pid": int, "job": Text, "device": str}
STATUS |= {"started": Number, "updated": Number, "finished": Number | None, "step": int, "steps": int}
STATUS |= {"plugins": {str: str}, "commit": Text, "dirty": bool | None, "result": {str: Number}}
STATUS |= {"unscaled": str}
DATA = {"name": str, "digest": str, "source": str, "transitions": int, "episodes": int, "example": [Number]}
STATUS |= {"data": DATA | {"shapes": {str: [int]}}}
PHASE = {"key": str, "run": str, "reused": bool, "seconds": Number, "differs": bool}
STATUS |= {"phases": {str: PHASE}, "spent": Number, "begun": {str: str}, "extends": str, "made": {str: str}}
JOB = {"job": str}
SWEEP = {"name": str, "runs": {str: str}}
SHIPPED = {"id": str, "run": str, "experiment": str, "offset": int, "state": str, "files": {str: [int]}, "data": DATA}
SHIPPED |= {"place": {"directory": str, "files": {str: [int]}}, "size": int, "step": int}
TRACKING = {str: SHIPPED}
FROZEN = {"id": str, "replaces": [str], "sweep": Text, "choices": {str: str}}
FROZEN |= {"config": {"study": str, "seed": int, "tracking": {"uri": Text, "model": bool}, "paths": {str: str}}}


def read(path: Path, kinds: Mapping) -> dict | None:
    """The content of the file; None if there is no such file.

    Raises `UserError` if it cannot be read, or holds something else than `kinds` says.
    """
    try:
        content = json.loads(read_regular(path))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not what genpolicy writes there ({error}); move it away") from error
    if odd := misfit(content, kinds):
        raise UserError(f"{path}: not what genpolicy writes there ({odd}); move it away")
    return content


def misfit(value: Any, kind: Any, name: str = "") -> str | None:
    """What of a value is not of its kind, as 'job: [1]'; None if all is."""
    inside = f"{name}." if name else ""
    if isinstance(kind, Mapping) and isinstance(value, dict):
        every = kind.get(str)
        parts = ((key, every or kind[key]) for key in value if every or key in kind)
        found = (misfit(value[key], part, f"{inside}{key}") for key, part in parts)
        return next(filter(None, found), None)
    if isinstance(kind, list) and isinstance(value, list):
        return next(filter(None, (misfit(item, kind[0], name) for item in value)), None)
    fits = not isinstance(kind, Mapping | list) and isinstance(value, kind)
    if fits and not (isinstance(value, bool) and not _takes_bool(kind)):
        return None
    return f"{inside.rstrip('.') or 'content'}: {repr(value)[:40]}"


def _takes_bool(kind: Any) -> bool:
    return kind is bool or bool in getattr(kind, "__args__", ())
