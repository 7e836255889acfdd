"""Studies without training, for the tests: run directories as finished runs leave them, with numbers that are given."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from command_line import last
from omegaconf import OmegaConf

from genpolicy.config import compose
from genpolicy.config.arguments import quoted, rewrite
from genpolicy.config.loader import Loader
from genpolicy.runs.job import prepare
from genpolicy.runs.run import open_run

PHASES = {"behaviour": 1.0, "critic": 2.0, "policy": 4.0}  # ms an update
ENTRIES = 100  # of a phase in the journal
STEPS = 100_000  # updates of a phase


def fill(
    outputs: Path,
    configurations: Sequence[Sequence[str]],
    seeds: Sequence[int],
    score: Callable[[Sequence[str], int], float],
    uri: str = "none",
    phases: Sequence[str] = ("behaviour", "critic", "policy"),
    online: int = 0,
) -> list[Path]:
    """Finished runs of each configuration, the words of a command, on each seed; their directories.

    score: of a configuration's last checkpoint, by its words and the seed. phases: those that a run has trained.
    online: steps in the simulator after these.
    """
    loader, directories = Loader(), []
    places = [f"paths.outputs={quoted(str(outputs))}", f"paths.data={quoted(str(outputs))}", f"tracking.uri={uri}"]
    for words in configurations:
        job = prepare(*compose.job(loader, rewrite(last([*places, *words]))))
        for seed in seeds:
            run = open_run(OmegaConf.merge(job.config, {"seed": seed}), job.choices)
            with run.recorded(device="cpu"):
                events = journal(score(words, seed), phases, online)
                run.path("journal.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
            run.close()
            directories.append(run.directory)
    return directories


def journal(score: float, phases: Sequence[str], online: int = 0) -> list[dict]:
    """The events of a finished run whose last checkpoint has this score, after a climb from 10 below it."""
    events, now, updates = [], 10**12, 0

    def log(step: int, metrics: dict[str, float], milliseconds: float) -> None:
        nonlocal now
        now += milliseconds
        events.append({"time": int(now), "step": step, "metrics": metrics})

    def judged(share: float) -> dict[str, float]:
        reached = score - 10 * (1 - share)
        found = {"score_mean": reached, "score_std": 3.0, "return_mean": 10 * reached, "log_prob": share - 2}
        return {f"eval/{name}": value for name, value in found.items()}

    log(0, {"data/episodes": 400.0, "data/return_mean": 250.0, "data/score_mean": 25.0}, 0)
    for phase in [*phases, *(["online"] if online else [])]:
        rate = 1000 / PHASES.get(phase, 8.0)
        for entry in range(1, ENTRIES + 1):
            step = updates + entry * STEPS // ENTRIES
            losses = {f"{phase}/loss_{name}": 1 / entry for name in "abcdef"}
            steps = {"online/environment_steps": online * entry // ENTRIES} if phase == "online" else {}
            log(step, losses | steps | {f"{phase}/updates_per_second": rate}, 1000 * STEPS / ENTRIES / rate)
            if phase != "critic" and entry % (ENTRIES // 5) == 0:
                log(step, judged(entry / ENTRIES if phase != "behaviour" else entry / ENTRIES - 1), 500)
        updates += STEPS
    last_one = {f"final/{name}": value for name, value in {"score_mean": score, "return_mean": 10 * score}.items()}
    log(updates, last_one | {"final/log_prob": -1.0, "final/ms_per_action": 2.5}, 900)
    log(updates, {"best/score_mean": score + 1, "best/return_mean": 10 * score + 10, "best/update": updates}, 0)
    return events
