"""Every algorithm finds the bandit's optimum with other seeds, too.

    python -m pytest -n 2 tests/acceptance/bandit_seeds.py

needs some eight minutes.
"""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))
sys.path.insert(0, str(Path(__file__).parents[1] / "algo"))
from test_bandit import LEARNED, LEARNED_TOO, assert_learned

CASES = [(name, seed) for name in LEARNED for seed in (1, 2)] + [
    (name, seed) for name in LEARNED_TOO for seed in (0, 1, 2)
]


@pytest.mark.parametrize(("name", "seed"), CASES)
def test_the_expected_reward_is_within_5_percent_of_the_optimum(name, seed):
    assert_learned(name, seed)
