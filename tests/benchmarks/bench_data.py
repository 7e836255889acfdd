"""A batch, beside the same number of rows gathered from a table of the same width, and one from the host's memory."""

from dataclasses import replace

import pytest
import torch

BATCH = 4096


@pytest.mark.parametrize("what", ["sample", "host", "gather"])
@pytest.mark.parametrize("rows", [10**5, 10**6, 10**7])
def test_batch(row, transitions, device, rows, what):
    data, generator = transitions(rows), torch.Generator(device).manual_seed(0)
    if what == "host":
        data = replace(data, table=data.table.cpu(), target=device)

    def gather():
        data.table.index_select(0, torch.randint(rows, (BATCH,), generator=generator, device=device))

    row(
        f"batch of {BATCH} of {rows:.0e} rows",
        gather if what == "gather" else lambda: data.sample(BATCH, generator),
        300,
    )
