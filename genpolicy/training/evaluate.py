"""Evaluations of a policy that is trained, beside the one at its run's end."""

import contextlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from genpolicy.config.schema import build
from genpolicy.dataset.transitions import Transitions
from genpolicy.errors import UserError, counted
from genpolicy.evaluation.evaluator import Evaluator
from genpolicy.evaluation.table import behaviour_metrics, print_table
from genpolicy.runs import provenance
from genpolicy.runs.evaluations import Evaluation
from genpolicy.runs.journal import Journal
from genpolicy.runs.protocol import unscaled
from genpolicy.runs.run import Run
from genpolicy.system.progress import Progress
from genpolicy.training.final import draw_steps, steps_name
from genpolicy.training.setup import choose_device, fresh_algorithm, load, restore, stage_after


def evaluate(
    run: Run,
    asked: Evaluation,
    path: Path,
    device: str,
    check: Callable[[], None] = lambda: None,
    transitions: Transitions | None = None,
) -> UserError | None:
    """Makes an evaluation of the policy in a checkpoint, keeps and shows it; what is wrong with its video, if anything.

    check: called at each step, as that of `Evaluator`. transitions: the run's, on its device, if loaded. Of the trained
    policy, the run's journal has its metrics, too.
    """
    config, device = asked.configuration(run), choose_device(device)
    task, now = build(config.env), provenance.stamp(config)
    if transitions is None:
        transitions = load(config, task, device)
    provenance.compare(run.directory, transitions, now)
    algorithm = fresh_algorithm(config, task, device)
    updates = restore(algorithm, path)
    if asked.stage:  # of a run in training, which may have saved another checkpoint since it was asked
        asked = replace(asked, stage=stage_after(path, updates))
    with Progress(transient=True) as progress:
        evaluator = Evaluator(task, transitions, algorithm, config, check, progress)
        episodes = config.eval.final_episodes
        by_steps = {count: evaluator.with_steps(count, episodes) for count in config.eval.steps}
        metrics, returns = evaluator.final(algorithm.policy, episodes)
    results = {"behaviour data": behaviour_metrics(transitions.behaviour, task)}
    results |= {"policy" if asked.stage else "final": metrics | evaluator.latency(algorithm.policy)}
    results |= {steps_name(count): values for count, (values, _) in by_steps.items()}
    kept = asked.path(".json")
    if not asked.stage:
        with contextlib.closing(Journal(run.path("journal.jsonl"))) as journal:
            journal.log(updates, {f"{kept.stem}/{key}": value for key, value in metrics.items()}, returns)
            for count, (values, earned) in by_steps.items():
                journal.log(count, {f"{kept.stem}/steps/{key}": value for key, value in values.items()}, earned)
            journal.sync()
    asked.keep(run, checkpoint=path.name, updates=updates, metrics=metrics, returns=returns, results=results)
    draw_steps(results, config.eval.steps, asked.path(".png"))
    show(run, asked)
    try:
        if config.eval.video:
            evaluator.film(asked.path(".mp4"))
            print(asked.path(".mp4"))
    except UserError as error:
        return error
    return None


def show(run: Run, asked: Evaluation) -> None:
    """Prints what an evaluation has found, and where it is kept."""
    record = asked.record()
    at = f"{record['checkpoint']} after {counted(record['updates'], 'update')}"
    recorded = run.status().get("data", {}).get("transitions") != 0
    title = f"{run.name}: {at}, {asked.title(run)}"
    print_table(title, record["results"], recorded, unscaled(run.config, run.choices))
    print(asked.path(".json"))
