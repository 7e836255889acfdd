"""The late mean of a run."""

import numpy as np
import pytest
from command_line import genpolicy
from tiny import only_run, records, words

from genpolicy.runs import checkpoint


@pytest.mark.usefixtures("no_figures")
@pytest.mark.parametrize(("per_phase", "points"), [(10, (16, 18, 20)), (5, ())])
def test_the_late_mean_is_of_the_evaluations_at_80_90_and_100_percent(per_phase, points, tmp_path):
    small = ["algo.critic_steps=2", "algo.policy_steps=20", f"eval.per_phase={per_phase}"]
    result = genpolicy(*words(tmp_path, *small))
    directory = only_run(tmp_path)
    logged = {(name, step): value for name, step, value in records(directory)}
    results = checkpoint.load(directory / "last.pt")["state"]["results"]
    if not points:
        assert "late mean" not in results
        assert "late mean" not in result.out
        return
    expected = [logged["eval/return_mean", 2 + step] for step in points]
    assert len(set(expected)) == 3
    late = results["late mean"]
    assert late == {"return_mean": pytest.approx(np.mean(expected)), "return_std": pytest.approx(np.std(expected))}
    assert logged["late/return_mean", 22] == late["return_mean"]
    assert f"late mean {late['return_mean']:.1f}" in " ".join(result.out.split())
