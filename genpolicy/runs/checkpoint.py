"""Checkpoints: written whole or not at all, read without running any code."""

import copy
import io
import zipfile
from pathlib import Path
from typing import Any

import torch

from genpolicy.errors import UserError, message, one_line
from genpolicy.system.files import open_regular, write_atomically


def save(path: Path, state: dict) -> None:
    """Write `state` (tensors, numbers, strings, lists, dicts of these) in place of the file, atomically.

    Raises `UserError` when the file cannot be written; the previous checkpoint is then untouched.
    """
    buffer = io.BytesIO()
    torch.save(_apart(state, {}), buffer)
    write_atomically(Path(path), buffer.getvalue())


def load(path: Path) -> dict:
    """The state that `save` wrote, its tensors on the CPU.

    Raises `UserError` for a missing, truncated or damaged file (every part is checked against its checksum,
    which torch does not do), and for one that holds anything but tensors and plain values.
    """
    try:
        with open_regular(Path(path)) as file:
            with zipfile.ZipFile(file) as archive:
                if any(part.compress_type != zipfile.ZIP_STORED for part in archive.infolist()):
                    raise zipfile.BadZipFile("compressed parts, which torch writes none of and may be of any size")
                damaged = archive.testzip()
            if damaged is not None:
                raise zipfile.BadZipFile(f"wrong checksum of {damaged}")
            file.seek(0)
            return torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such checkpoint") from error
    except UserError:
        raise
    except Exception as error:  # a damaged file raises whatever the reader stumbles over
        said = one_line(error)[:100]
        if "Weights only load failed" in said:  # what follows is how to load it all the same
            said = "it holds more than tensors and plain values"
        raise UserError(
            f"{path}: not a readable checkpoint ({said}); restore it from a copy, or redo the run with overwrite=true"
        ) from error


def mismatch(path: Path, error: Exception) -> UserError:
    """The one line for a checkpoint whose content an algorithm does not take."""
    said = message(error, 200)
    return UserError(f"{path}: does not fit the run's configuration, or comes from another version ({said})")


def _apart(value: Any, copies: dict) -> Any:
    """The same, but for views, which are copied: torch would write all of the memory that they are a part of."""
    if isinstance(value, torch.Tensor):
        if value.untyped_storage().nbytes() == value.nbytes:
            return value
        place = value.data_ptr(), value.shape, value.stride()
        if place not in copies:
            copies[place] = value.clone()
        return copies[place]
    if isinstance(value, dict):
        result = copy.copy(value)
        result.update((name, _apart(part, copies)) for name, part in value.items())
        return result
    return type(value)(_apart(part, copies) for part in value) if isinstance(value, list | tuple) else value
