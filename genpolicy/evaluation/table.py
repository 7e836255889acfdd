"""The table of a run's results: the data's behaviour and each policy, a line each."""

from rich import box
from rich.console import Console
from rich.table import Table

from genpolicy.dataset.transitions import Behaviour
from genpolicy.env.task import Task
from genpolicy.system.console import plain

SOLVER_ERROR = 0.01  # nats of a solver's error that are pointed out
_TITLES = {"final_behaviour": "BC (behaviour)", "final": "trained policy", "offline": "before online"}


def behaviour_metrics(data: Behaviour, task: Task) -> dict[str, float]:
    """What the data's own episodes earned, under the names of an evaluation; empty if none finished."""
    if not data.episodes:
        return {}
    values = {
        "return_mean": data.return_mean,
        "return_std": data.return_std,
        "episodes": float(data.episodes),
    }
    if task.reference_min is not None:
        values["score_mean"] = task.score(data.return_mean)
        values["score_std"] = data.return_std * task.score_scale
    return values


def print_table(title: str, results: dict[str, dict[str, float]], recorded: bool = True, unscaled: str = "") -> None:
    """Return, normalised score, log-likelihood (nats) and latency of each policy, one a line, on stdout.

    Where actions were held out, their log-likelihood is a column of its own. Data of which no return is known are left
    out. recorded: whether there were actions of data to take log-likelihoods of. unscaled: why scores are not the
    benchmark's, if they are not.
    """
    results = {name: values for name, values in results.items() if values}
    apart = any("held_out_log_prob" in values for values in results.values())
    narrow = {"collapse_padding": apart, "pad_edge": not apart}  # to fit 80 columns
    shown = Table(title=plain(title), box=box.SIMPLE_HEAD, title_justify="left", **narrow)
    likelihoods = ("log-\nlikelihood", "held-\nout") if apart else ("log-likelihood",)
    for name in ("", "return", "score", *likelihoods, "latency"):
        shown.add_column(name, justify="right" if name else "left", no_wrap=True, vertical="bottom")
    for name, values in results.items():
        cells = [
            f"{values[f'{kind}_mean']:.1f} ± {values[f'{kind}_std']:.1f}" if f"{kind}_mean" in values else "-"
            for kind in ("return", "score")
        ]
        density = "no density" if recorded and "episode_length" in values else "-"  # data were not evaluated
        unit = "" if apart else " nats"
        cells.append(f"{values['log_prob']:.3f}{unit}" if "log_prob" in values else density)
        if apart:
            cells.append(f"{values['held_out_log_prob']:.3f}" if "held_out_log_prob" in values else "-")
        cells.append(f"{values['ms_per_action']:.2f} ms" if "ms_per_action" in values else "-")
        shown.add_row(_TITLES.get(name, name), *cells)
    Console().print(shown)
    if unscaled and any("score_mean" in values for values in results.values()):
        print(f"score: not the benchmark's, whose reference returns are of the task as published; here: {unscaled}")
    for name, values in results.items():
        change = abs(values["log_prob_halved"] - values["log_prob"]) if "log_prob_halved" in values else 0.0
        if change > SOLVER_ERROR:
            print(
                f"{_TITLES.get(name, name)}: with half the steps of `likelihood` its log-likelihood changes by "
                f"{change:.2g} nats; more steps make it more exact (likelihood.steps)"
            )
