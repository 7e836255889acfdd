"""Runs of an earlier version, kept in tests/data, still load; and seeded commands give the numbers that they gave.

They were made by `genpolicy <RUNS[name]> <COMMON>` with commit f61d3c8, whose defaults these words give; expected.json
has what their policies did, numbers.json what these commands give since each phase has random numbers of its own, and
the multi-goal data are episode by episode.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from command_line import genpolicy
from tiny import events, only_run, undrawn

from genpolicy import api
from genpolicy.runs.run import load_run, read_frozen

KEPT = Path(__file__).resolve().parents[1] / "data" / "earlier_runs"
NUMBERS = json.loads((KEPT / "numbers.json").read_text())
EXPECTED = json.loads((KEPT / "expected.json").read_text())
RUNS = {
    "bc": "algo=bc model=icfm env=swiss-roll algo.behaviour_lr=3e-4",
    "gmpo": "algo=gmpo model=gvp env=swiss-roll algo.policy_lr=3e-4 critic.q_loss_mean=false",
    "gmpg": "algo=gmpg model=vpsde env=multi-goal algo.behaviour_lr=3e-4 critic.q_loss_mean=false",
    "gtp": "algo=gtp model=trajectory env=swiss-roll",
    "qgpo": "algo=qgpo model=vpsde algo.energy_hidden=[8] env=swiss-roll critic.q_loss_mean=false",
    "fql": "algo=fql model=icfm algo.policy_hidden=[8] env=swiss-roll",
}
COMMON = "tuned=none network.hidden=[8] critic.hidden=[8] budget=0.004 eval.episodes=4 eval.final_episodes=8 "
COMMON += "eval.per_phase=2 eval.log_prob_actions=20 solver.steps=2 likelihood.steps=2 log_every=5 tracking.uri=none"
COMMON += " scaling.observation=none scaling.action=none"
SPEEDS = ("updates_per_second", "ms_per_action", "system/")


@pytest.fixture(params=RUNS)
def earlier(request, tmp_path):
    """The name of a kept run, and a copy of it in a folder of runs."""
    folder = tmp_path / "outputs" / "default" / "task" / request.param / "seed0"
    shutil.copytree(KEPT / request.param, folder)
    return request.param, folder


def test_its_policy_does_what_it_did(earlier):
    name, folder = earlier
    policy, expected = api.load_policy(folder, "device=cpu"), EXPECTED[name]
    observation, action = (np.array(expected[part], np.float32) for part in ("observation", "action"))
    found = {"act": policy.act(observation, seed=1), "sample": policy.sample(observation, 2, seed=2)}
    if policy.has_density:
        found["log_prob"] = policy.log_prob(observation, action, seed=3)
    if policy.has_critic:
        found["q"] = policy.q(observation, action)
    assert found.keys() == expected.keys() - {"observation", "action"}
    for part, values in found.items():
        np.testing.assert_allclose(values, expected[part], rtol=1e-4, atol=1e-5)


def test_a_policy_alone_loads_too():
    observation = np.array(EXPECTED["bc"]["observation"], np.float32)
    found = api.load_policy(KEPT / "bc" / "policy.pt", "device=cpu").act(observation, seed=1)
    np.testing.assert_allclose(found, EXPECTED["bc"]["act"], rtol=1e-4, atol=1e-5)


def test_a_policy_that_mlflow_has_kept_is_served(tmp_path):
    """A logged model holds these two files."""
    for name in ("config.yaml", "policy.pt"):
        shutil.copy(KEPT / "bc" / name, tmp_path)
    observation = np.array(EXPECTED["bc"]["observation"], np.float32)
    found = []
    for act in (api._load_pyfunc(str(tmp_path)).predict, api.load_policy(tmp_path / "policy.pt").act):
        torch.manual_seed(0)
        found.append(act(observation))
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize(("mix", "ratio"), [("union", None), ("half", 0.5)])
def test_what_the_mix_of_online_batches_was_called_is_understood(mix, ratio, tmp_path):
    folder = tmp_path / "outputs" / "default" / "task" / "bc" / "seed0"
    shutil.copytree(KEPT / "bc", folder)
    frozen = yaml.safe_load((folder / "config.yaml").read_text())
    frozen["config"]["online"] = {"steps": 60, "start": 20, "mix": mix}
    (folder / "config.yaml").write_text(yaml.safe_dump(frozen))
    assert load_run(folder).config.online.offline_ratio == ratio


def test_settings_that_changed_nothing_are_left_out(tmp_path):
    folder = tmp_path / "outputs" / "default" / "task" / "bc" / "seed0"
    shutil.copytree(KEPT / "bc", folder)
    frozen = yaml.safe_load((folder / "config.yaml").read_text())
    frozen["config"]["algo"] = {"_target_": "genpolicy.algo.rebrac.ReBRAC", "eta": 1.0, "own_size": False, "alpha": 0.1}
    (folder / "config.yaml").write_text(yaml.safe_dump(frozen))
    assert read_frozen(folder)["config"]["algo"] == {"_target_": "genpolicy.algo.rebrac.ReBRAC", "alpha": 0.1}


@pytest.mark.slow
def test_it_is_shown_and_evaluated_again(earlier):
    name, folder = earlier
    outputs = folder.parents[3]
    shown = genpolicy("mode=status", f"paths.outputs={outputs}")
    assert (shown.code, "1 run: 1 finished" in shown.out) == (0, True), shown.err
    told = genpolicy("mode=eval", f"checkpoint={folder}", "eval.final_episodes=2", f"paths.data={outputs}")
    assert told.code == 0, told.err
    (kept,) = folder.glob("evaluation-*.json")
    assert len(json.loads(kept.read_text())["returns"]) == 2, name


@pytest.mark.parametrize("name", RUNS)
def test_a_seeded_command_gives_the_same_numbers(name, tmp_path):
    """To the bit on the machine that made them; elsewhere, rounding grows over the updates."""
    with undrawn():
        made = genpolicy(*RUNS[name].split(), *COMMON.split(), f"paths.outputs={tmp_path}")
    assert made.code == 0, made.err
    found = {
        f"{metric} {event['step']}": value
        for event in events(only_run(tmp_path))
        for metric, value in event["metrics"].items()
        if not any(speed in metric for speed in SPEEDS)
    }
    assert found.keys() == NUMBERS[name].keys()
    for at, value in found.items():
        np.testing.assert_allclose(value, NUMBERS[name][at], rtol=2e-3, atol=1e-4, err_msg=at)
