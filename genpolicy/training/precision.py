"""The arithmetic of an update's matrix products; all else, evaluations above all, is in float32."""

import contextlib
from collections.abc import Iterator

import torch

from genpolicy.errors import UserError


@contextlib.contextmanager
def arithmetic(precision: str, device: torch.device) -> Iterator[None]:
    """Inside, matrix products are computed with float32's 23 bits of mantissa, with 10 (only GPUs do), or with 7."""
    before, torch.backends.cuda.matmul.allow_tf32 = torch.backends.cuda.matmul.allow_tf32, precision != "float32"
    try:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def require(precision: str, device: torch.device) -> None:
    """Raises `UserError` if the device does not compute so."""
    if precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise UserError("precision=bf16: this GPU has no bfloat16; legal: precision=float32|tf32")
