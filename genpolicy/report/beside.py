"""A study's numbers beside those of the papers."""

import functools
from collections import defaultdict
from collections.abc import Iterator

from genpolicy.config.arguments import options
from genpolicy.config.option_content import background
from genpolicy.report.document import Table, Text
from genpolicy.report.published import counterpart, published, sources
from genpolicy.report.results import BEST, LAST, LATE, Comparison

PUBLISHED = ("d4rl", "rl_unplugged", "ogbench")  # the options of data sets whose files are the papers'


def beside_published(comparison: Comparison) -> Iterator[Table | Text]:
    """Our numbers and those of the papers that have the same method on the same task; with warnings about either."""
    cells = functools.cache(published)
    rows, tasks, used, others, shortened = [], set(), set(), defaultdict(set), []
    for (task, method), runs in sorted(comparison.runs.items()):
        name, known_there = counterpart(runs[0].choices["algo"], runs[0].choices["model"]), False
        data = runs[0].choices["dataset"]
        about = task if data in PUBLISHED else f"{task}, dataset={data}"
        ours = {which: comparison.cell(task, method, f"{which}/{{kind}}_mean") for which in comparison.checkpoints}
        for cell in cells(runs[0].name):
            if cell.method != name or not len(ours[LAST].values):
                continue
            known_there = True
            if cell.setup != runs[0].setup or cell.kind != comparison.kinds[task]:
                kind = "" if cell.kind == comparison.kinds[task] else f"{cell.kind}s"
                others[task].add(f"{cell.source} ({kind or cell.setup or 'as published first'})")
                continue
            theirs = f"{cell.mean:g}" + ("" if cell.std is None else f" ± {cell.std:g}")
            compared = {"best": BEST, "late": LATE}.get(cell.protocol, LAST)
            mine = ours[compared].values if compared in ours else ()
            difference = f"{mine.mean() - cell.mean:+.1f}" if len(mine) else ""
            shown = [each.text(1, "missing") for each in ours.values()]
            known = ", ".join(filter(None, (cell.source, cell.protocol, cell.comment)))
            rows.append([about, method, *shown, name, theirs, difference, known])
            used.add(cell.source)
        if known_there and (budget := runs[0].known("budget") or "1.0") != "1.0":
            shortened.append(f"{method} on {task}: trained for {budget} of its updates (budget).")
        if known_there:
            tasks.add((task, runs[0].name, data))
    if rows:
        note = (
            "The difference is ours less theirs: of our best checkpoint where they report the best, of our late mean "
        )
        note += (
            "where they report one, else of the last. The same names do not make the same protocol: seeds, episodes, "
        )
        note += "checkpoints, settings and simulators differ."
        head = ["task", "method", *comparison.checkpoints, "published as", "published", "difference", "source"]
        yield Table("published", "Beside published numbers", head, rows, note)
    cited = ((name, source) for name, source in sources().items() if name in used)
    lines = [f"{name}: {source.paper}; {source.table}. {source.comment}" for name, source in cited]
    lines += shortened
    for task, found in sorted(others.items()):
        if found:
            lines.append(f"{task}: not beside those of other protocols: {', '.join(sorted(found))}.")
    for task, name, data in sorted(tasks):
        own = "" if data in PUBLISHED else f"the data come by dataset={data} and may not be the papers'. "
        lines.append(f"{task}: {own}{' '.join(background(options('env')[name]))}")
    if lines:
        yield Text("about_published", "About these numbers", lines)
