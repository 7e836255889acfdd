"""What a run uses of its machine, under the names of MLflow's own system metrics."""

import contextlib

import psutil
import torch


class Usage:
    """Looks at the machine when it is called; the shares of CPU time are those since the call before.

    MLflow's names mean the whole machine, and so they do here; what is this process's alone is named `process_*`.
    `gpu_0` is the GPU that the run computes on, whatever number the machine gives it.
    """

    def __init__(self, device: torch.device):
        self._device, self._process = device, psutil.Process()
        self()

    def __call__(self) -> dict[str, float]:
        """The metrics, in percent, megabytes (10^6) and watts. A process of several threads may use more than 100 %."""
        memory = psutil.virtual_memory()
        values = {
            "cpu_utilization_percentage": psutil.cpu_percent(),
            "system_memory_usage_megabytes": memory.used / 1e6,
            "system_memory_usage_percentage": 100 * memory.used / memory.total,
            "process_cpu_utilization_percentage": self._process.cpu_percent(),
            "process_memory_usage_megabytes": self._process.memory_info().rss / 1e6,
        }
        if self._device.type == "cuda":
            values |= {f"gpu_0_{name}": value for name, value in self._gpu().items()}
        return {f"system/{name}": round(value, 1) for name, value in values.items()}

    def _gpu(self) -> dict[str, float]:
        free, total = torch.cuda.mem_get_info(self._device)
        used = total - free
        values = {"memory_usage_megabytes": used / 1e6, "memory_usage_percentage": 100 * used / total}
        with contextlib.suppress(Exception):  # the driver may not tell: a slice of a GPU has no such figures of its own
            values["utilization_percentage"] = torch.cuda.utilization(self._device)
            values["power_usage_watts"] = torch.cuda.power_draw(self._device) / 1000
        return values
