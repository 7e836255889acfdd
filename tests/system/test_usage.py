"""What a run says of its machine: against the kernel's own figures, and a pretended GPU's."""

import re
import time
from pathlib import Path

import mlflow.system_metrics.metrics.cpu_monitor as cpu
import mlflow.system_metrics.metrics.gpu_monitor as gpu
import numpy as np
import pytest
import torch

from genpolicy.system.metrics import Usage


def test_memory_is_the_kernels():
    usage = Usage(torch.device("cpu"))()
    total = int(re.search(r"MemTotal:\s+(\d+) kB", Path("/proc/meminfo").read_text())[1]) * 1024 / 1e6
    used = usage["system/system_memory_usage_megabytes"]
    assert usage["system/system_memory_usage_percentage"] == pytest.approx(100 * used / total, abs=0.06)
    held = int(re.search(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024 / 1e6
    assert usage["system/process_memory_usage_megabytes"] == pytest.approx(held, rel=0.02)
    assert 0 <= usage["system/cpu_utilization_percentage"] <= 100


def test_cpu_time_is_counted_between_two_looks():
    def now() -> np.ndarray:
        return np.array([time.process_time(), time.monotonic()])

    before = now()
    usage = Usage(torch.device("cpu"))
    begun = now()
    while time.process_time() - begun[0] < 0.5:
        pass
    ended = now()
    busy = usage()["system/process_cpu_utilization_percentage"]
    after = now()  # whatever else the machine does meanwhile
    (least, shortest), (most, longest) = ended - begun, after - before
    tick = 0.02  # of the kernel's count of CPU time, at both ends
    assert 100 * (least - tick) / longest <= busy <= 100 * (most + tick) / shortest
    time.sleep(0.5)
    assert usage()["system/process_cpu_utilization_percentage"] < busy / 2


def test_the_gpu_of_the_run(monkeypatch):
    device = torch.device("cuda", 3)
    told = {"mem_get_info": (60_000_000_000, 80_000_000_000), "utilization": 87, "power_draw": 312_345}
    for name, value in told.items():
        monkeypatch.setattr(torch.cuda, name, lambda asked, value=value: {device: value}[asked])
    usage = Usage(device)()
    assert {name: value for name, value in usage.items() if "gpu" in name} == {
        "system/gpu_0_memory_usage_megabytes": 20_000,
        "system/gpu_0_memory_usage_percentage": 25,
        "system/gpu_0_utilization_percentage": 87,
        "system/gpu_0_power_usage_watts": 312.3,
    }

    def refuses(_):
        raise RuntimeError("Not Supported")

    monkeypatch.setattr(torch.cuda, "utilization", refuses)
    assert "system/gpu_0_memory_usage_megabytes" in Usage(device)()


def test_names_are_mlflows():
    monitor = cpu.CPUMonitor()
    monitor.collect_metrics()
    shared = {f"system/{name}" for name in monitor.aggregate_metrics()}
    assert shared <= set(Usage(torch.device("cpu"))())
    source = Path(gpu.__file__).read_text()
    for name in ("memory_usage_megabytes", "memory_usage_percentage", "utilization_percentage", "power_usage_watts"):
        assert f'f"gpu_{{i}}_{name}"' in source


def test_a_look_is_cheap():
    usage = Usage(torch.device("cpu"))
    begun = time.process_time()
    for _ in range(20):
        usage()
    assert (time.process_time() - begun) / 20 < 0.01
