"""Results that papers have published on the tasks, and which of their methods a run is comparable to.

The CSV files beside this module hold one table (or paper) each; `sources.csv` says which, and what is known about all
of a table's numbers. They are normalised scores, but for RL Unplugged's tasks (dmc-*), where they are returns.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources

RETURNS = "dmc-"  # begins the tasks whose numbers are returns
_COUNTERPARTS = {
    ("bc", "consistency"): "C-BC",
    ("bc", "ddpm"): "D-BC",
    ("bc", "gaussian"): "BC",
    ("bdpo", "ddpm_dac"): "BDPO",
    ("bfn", "icfm"): "BFN",
    ("consistency_ac", "consistency"): "Consistency-AC",
    ("dac", "ddpm_dac"): "DAC",
    ("diffusion_ql", "ddpm"): "Diffusion-QL",
    ("dsrl", "icfm"): "DSRL",
    ("dtql", "edm_clipped"): "DTQL",
    ("edp", "ddpm_linear"): "EDP",
    ("expo", "icfm"): "FEdit",
    ("fac", "icfm"): "FAC",
    ("fan", "icfm"): "FAN",
    ("fql", "icfm"): "FQL",
    ("gfp", "icfm"): "GFP",
    ("gmpg", "gvp"): "GMPG-GVP",
    ("gmpg", "icfm"): "GMPG-ICFM",
    ("gmpg", "vpsde"): "GMPG-VPSDE",
    ("gmpo", "gvp"): "GMPO-GVP",
    ("gmpo", "icfm"): "GMPO-ICFM",
    ("gmpo", "vpsde_epsilon"): "GMPO-VPSDE",
    ("gtp", "trajectory"): "GTP",
    ("gtp_bc", "trajectory"): "GTP-BC",
    ("gtp_linear_q", "trajectory"): "GTP-BC + linear Q",
    ("idql", "ddpm_idql"): "IDQL",
    ("ifql", "icfm"): "IFQL",
    ("iql", "gaussian"): "IQL",
    ("ofql", "meanflow"): "OFQL",
    ("qam", "icfm"): "QAM",
    ("qam_e", "icfm"): "QAM-E",
    ("qam_f", "icfm"): "QAM-F",
    ("qc", "icfm"): "QC",
    ("qc_fql", "icfm"): "QC-FQL",
    ("qgpo", "vpsde_epsilon"): "QGPO",
    ("qipo", "icfm"): "QIPO-OT",
    ("qipo", "vpsde_epsilon"): "QIPO-D",
    ("qsm", "ddpm_qsm"): "QSM",
    ("rebrac", "gaussian"): "ReBRAC",
    ("sfbc", "vpsde_epsilon"): "SfBC",
    ("srpo", "vpsde_epsilon"): "SRPO",
    ("td3_bc", "gaussian"): "TD3+BC",
}


@dataclass(frozen=True)
class Published:
    """A cell of a table: a method's mean score on a task.

    source: the table, a key of `sources`. method: spelled the same in all tables. task: an option of `env`.
    std: over seeds, or whatever the source takes it over; None if not published, as is seeds, how many there were.
    protocol: "last" or "best" checkpoint, or "late" for the mean of the last evaluations; "" if not known. comment:
    what holds for this cell alone. setup: what a run must have in common with it, as `Result.setup` has it; on OGBench.
    """

    source: str
    method: str
    task: str
    mean: float
    std: float | None
    seeds: int | None
    protocol: str
    comment: str
    setup: str = ""

    @property
    def kind(self) -> str:
        """Whether it is a 'score' or a 'return'."""
        return "return" if self.task.startswith(RETURNS) else "score"


@dataclass(frozen=True)
class Source:
    """Where a table comes from. paper: authors, title, arXiv number; comment: what holds for all of its numbers."""

    paper: str
    table: str
    comment: str


def published(task: str | None = None) -> list[Published]:
    """All cells of all tables, or those of a task (an option of `env`), in the order of `sources`."""
    cells = [_cell(source, row) for source in sources() for row in _rows(source)]
    return [cell for cell in cells if task in (None, cell.task)]


def sources() -> dict[str, Source]:
    """The tables, by the name that `Published.source` gives."""
    return {row.pop("source"): Source(**row) for row in _rows("sources")}


def counterpart(algo: str, model: str) -> str | None:
    """The published method that a run with these options of `algo` and `model` is to be held against, if there is one.

    The settings beyond the two options are the caller's to judge: see `tuned` for the papers'.
    """
    return _COUNTERPARTS.get((algo, model))


def _rows(name: str) -> Iterator[dict[str, str]]:
    text = resources.files(__name__).joinpath(f"{name}.csv").read_text(encoding="utf-8")
    return csv.DictReader(text.splitlines())


def _cell(source: str, row: dict[str, str]) -> Published:
    std = float(row["std"]) if row["std"] else None
    seeds = int(row["seeds"]) if row["seeds"] else None
    known = (row[name] for name in ("protocol", "comment"))
    return Published(
        source, row["method"], row["task"], float(row["mean"]), std, seeds, *known, setup=row.get("setup", "")
    )
