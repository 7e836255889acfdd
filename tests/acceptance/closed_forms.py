"""What is learned where the answer is known, on the paths and with the seeds of which the tests have one.

python -m pytest tests/acceptance/closed_forms.py
"""

import sys
from pathlib import Path

import pytest

sys.path.extend(str(Path(__file__).parents[1] / folder) for folder in ("helpers", "algo", "model"))
import test_actor_critic
import test_algorithms
import test_bandit
import test_chain_values
import test_critic_gradients
import test_meanflow
import test_trajectory


@pytest.mark.parametrize("path", ["vpsde", "otcfm", "gvp", "icfm"])
def test_gmpg_converges_to_the_known_optimum(path):
    test_algorithms.assert_gmpg_converges(path, 0)


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize(("kind", "settings"), test_critic_gradients.CASES)
def test_dac_and_qsm_converge_to_what_their_losses_are_least_for(kind, settings, seed):
    test_critic_gradients.assert_converges(kind, settings, seed)


@pytest.mark.parametrize(("objective", "heun"), test_trajectory.LEARNED, ids=str)
def test_what_is_learned_for_a_gaussian_is_the_chain_of_the_grid_s_steps(objective, heun):
    test_trajectory.assert_learned(objective, heun, 1)


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_one_jump_of_a_mean_flow_is_a_gaussians_exact_map(seed):
    test_meanflow.assert_learned(seed)


def test_bdpo_converges_to_the_best_chain_and_so_to_the_tilted_density():
    test_chain_values.assert_learned()


def test_bf16_learns_as_much():
    test_bandit.assert_learned("td3_bc", 0, "bf16")


@pytest.mark.parametrize(("cls", "settings"), test_actor_critic.GUIDED)
def test_guidance_moves_the_policy_towards_the_better_actions(cls, settings):
    test_actor_critic.assert_guided(cls, settings, 1)
