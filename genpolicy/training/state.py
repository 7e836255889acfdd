"""Where a run stands."""

import dataclasses

import torch


@dataclasses.dataclass
class State:
    """Where a run stands between two updates, beside what the algorithm and the generators hold."""

    phase: int = 0  # the current one
    begun: bool = False  # whether it has begun, perhaps without an update yet
    step: int = 0  # updates done in it
    evaluated: int = 0  # evaluations done in it
    updates: int = 0  # done in all phases
    evaluations: int = 0  # done in all phases
    best: dict[str, float] = dataclasses.field(default_factory=dict)  # metrics of the best evaluation
    results: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)  # of final evaluations
    sums: dict[str, torch.Tensor] = dataclasses.field(default_factory=dict)  # of the metrics not yet read
    counts: dict[str, int] = dataclasses.field(default_factory=dict)  # updates in each of `sums`

    def accumulate(self, metrics: dict[str, torch.Tensor]) -> None:
        """Add the metrics of one step, on the device; not every update is made at every step."""
        self.sums |= {name: torch.zeros_like(value) for name, value in metrics.items() if name not in self.sums}
        torch._foreach_add_([self.sums[name] for name in metrics], [value.detach() for value in metrics.values()])
        self.counts |= {name: self.counts.get(name, 0) + 1 for name in metrics}

    def read(self) -> dict[str, float]:
        """The means since the last reading, in one transfer from the device."""
        sums = torch.stack(list(self.sums.values())).tolist()
        named = {name: total / self.counts[name] for name, total in zip(self.sums, sums, strict=True)}
        self.sums, self.counts = {}, {}
        return named


def is_of_another_device(saved: dict, generator: torch.Generator) -> bool:
    """Whether one of checkpoint and generator is of a GPU and the other is not: their states differ in size."""
    return len(saved["generators"]["run"]) != len(generator.get_state())
