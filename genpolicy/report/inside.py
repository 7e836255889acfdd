"""What mode=inspect has drawn of the policies of runs."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from genpolicy.report.document import Choice, Image, Text, file_name
from genpolicy.report.results import Comparison, Result
from genpolicy.system.files import read_regular

FIGURES = "figures/inspect-*.png"  # in a run directory
SHOWN = 10  # runs whose figures are on the page
PNG, LARGEST = b"\x89PNG\r\n\x1a\n", 2**23  # the signature; bytes
SEEN = {
    "samples": "Actions of the policy, and of the data at the nearest observations.",
    "density": "The log-density where the drawn dimensions vary and the others stay as in the data.",
    "trajectories": "From noise to actions.",
    "values": "The critic along an episode of the data.",
}


def inside(comparison: Comparison, drawn: Callable[[Result], Iterable[Path]]) -> Iterator[Choice | Text]:
    """The figures of the first runs that have some; drawn: a run's files."""
    left = []
    runs = [each for each in comparison.listed if not each[2].evaluation]  # which are of the same policies
    found = ((run, f"{method} {task} s{run.seed}", list(drawn(run))) for task, method, run in runs)
    for number, (run, title, files) in enumerate(each for each in found if each[2]):
        if number >= SHOWN:
            left.append(title)
        elif images := list(_images(file_name(run.number), files)):
            yield Choice(f"inside_{file_name(run.number)}", f"Inside the policy: {title}", images)
    yield Text("inside", "More figures of mode=inspect, in the directories of these runs", left)


def _images(run: str, files: Iterable[Path]) -> Iterator[Image]:
    """The figures of a run's last policy."""
    known = {path.stem.removeprefix("inspect-"): path for path in files}
    for kind, note in SEEN.items():
        if kind in known and (content := read_regular(known[kind], LARGEST)).startswith(PNG):
            yield Image(f"inside_{run}_{kind}", kind, content, note)
