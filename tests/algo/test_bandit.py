"""What the algorithms learn on a bandit with known optimal policies, each through its own configuration."""

import bandit
import pytest
import torch
from command_line import jobs
from scipy.optimize import brentq
from small import begun

from genpolicy.algo.algorithm import Algorithm, assemble
from genpolicy.training.precision import arithmetic

SMALL = ["tuned=none", "network=mlp", "network.hidden=[64,64,64]", "critic.hidden=[64,64,64]", "critic.lr=1e-2"]
SMALL += ["critic.target_rate=0.02"]
CRITIC = ["algo.critic_steps=400", "algo.critic_batch_size=256"]
BEHAVIOUR = ["model=gvp", "algo.behaviour_steps=1000", "algo.behaviour_batch_size=256", "algo.behaviour_lr=5e-3"]
POLICY = ["algo.policy_steps=800", "algo.policy_batch_size=256", "algo.policy_lr=5e-3"]
FINETUNE = ["algo.policy_steps=100", "algo.policy_batch_size=128", "algo.policy_lr=3e-3"]
ENERGY = ["algo.policy_steps=1000", "algo.policy_batch_size=64", "algo.policy_lr=2e-2", "algo.energy_hidden=[64,64]"]
DISTIL = ["algo.policy_steps=400", "algo.policy_batch_size=128", "algo.policy_lr=5e-3", "algo.policy_hidden=[64,64]"]
JOINT = ["algo.steps=800", "algo.batch_size=128", "algo.lr=4e-3", "model.target_rate=0.02"]
VPSDE = ["model=vpsde", "objective=noise_prediction", "solver=dpm"]  # few steps are exact enough
DENOISED = ["algo.energy=denoised", "solver=dpm"]  # a path that ends in noise alone has no other energy
BETA, TAU, ETA = 4.0, 0.9, 3.0


RETURN_STD = bandit.transitions(0).reward.std().item()  # by which SfBC's returns are divided


def boltzmann(rewards):
    return (BETA * rewards).exp()


def expectile_weight(rewards):
    return torch.where(rewards < bandit.expectile(TAU), 1 - TAU, TAU)


def trajectory_weighted() -> float:
    """The value of the policy pi = mu exp(eta max(0, A) / std A), A being the advantage over pi itself."""

    def improved(value: float) -> float:
        scale = ETA / bandit.behaviour_std()
        return bandit.value(bandit.tilted(lambda rewards: (scale * (rewards - value).clamp(min=0)).exp()))

    return brentq(lambda value: improved(value) - value, 0.0, 1.0)


# algorithm -> its settings, and the value of what it converges to
LEARNED = {
    "gmpo": ([*CRITIC, *POLICY, f"algo.beta={BETA}"], lambda: bandit.value(bandit.tilted(boltzmann))),
    "sfbc": (
        [*BEHAVIOUR, *CRITIC, "algo.rounds=1", f"select.beta={BETA * RETURN_STD}", "solver=dpm", "solver.steps=16"],
        lambda: bandit.value(bandit.tilted(boltzmann)),
    ),
    "idql": (
        [
            *[*BEHAVIOUR, "critic=iql", *CRITIC, "select=expectile", f"critic.expectile={TAU}"],
            *["solver=dpm", "solver.steps=16", "algo.average=false"],
        ],
        lambda: bandit.value(bandit.tilted(expectile_weight)),
    ),
    "iql": ([*JOINT, "algo.beta=6"], bandit.best),
    "awr": (
        [
            *["algo.steps=800", "algo.batch_size=256", "algo.iteration=400", "algo.temperature=0.3"],
            *["algo.lr=2e-3", "algo.value_lr=0.3", "algo.value_every=1"],
        ],
        bandit.best,
    ),
    "srpo": ([*BEHAVIOUR, *CRITIC, *DISTIL, "algo.beta=0.5"], bandit.best),
    "td3_bc": (JOINT, bandit.best),
}

# Those whose updates tests/parity holds to closed forms or their authors' code, and whose draws and samplers have tests
# of their own: what a run would show is seen there. With three seeds in `tests/acceptance/bandit_seeds.py` alone.
ONE_STEP = ["algo.policy_hidden=[64,64]", "solver.steps=4"]
FLOW = ["algo.density_steps=4", "algo.behaviour_steps=600", "algo.behaviour_batch_size=256", "algo.behaviour_lr=5e-3"]
# A temperature falls from 1 in that many steps to where it does not matter.
LONGER = [*JOINT, *ONE_STEP, "algo.steps=1600", "algo.lr=8e-3", "critic.lr=8e-3", "critic.ensemble=2"]
FASTER = ["algo.lr=1.6e-2", "critic.lr=1.6e-2"]
CHAIN = ["model.path.steps=5", "solver.steps=5", "model.target_rate=0.02", "algo.policy_delay=1", "algo.lr=4e-3"]
CHAIN += ["algo.warm_up_steps=200", "algo.steps=700", "algo.batch_size=64", "critic.target_rate=0.1"]
LEARNED_TOO = {
    "gmpg": (
        [*BEHAVIOUR, *CRITIC, *FINETUNE, f"algo.beta={BETA}", "algo.behaviour_steps=2000"],
        lambda: bandit.value(bandit.tilted(boltzmann)),
    ),
    "qgpo": (
        [
            *BEHAVIOUR,
            *CRITIC,
            *ENERGY,
            f"algo.beta={BETA}",
            "critic.candidates=2",
            "algo.behaviour_steps=1500",
            *DENOISED,
        ],
        lambda: bandit.value(bandit.tilted(boltzmann)),
    ),
    "dtql": (
        [*BEHAVIOUR, "model=edm", *CRITIC, *DISTIL, "algo.alpha=1", "select.num_candidates=32"],
        bandit.best,
    ),
    "fql": ([*JOINT, "algo.alpha=0.3", "algo.policy_hidden=[64,64]", "solver.steps=4"], bandit.best),
    "diffusion_ql": ([*JOINT, "algo.eta=0.3", "solver.steps=4"], bandit.best),
    "edp": ([*JOINT, *VPSDE, "algo.eta=50", "solver.steps=4"], bandit.best),
    "consistency_ac": ([*JOINT, "algo.eta=3"], bandit.best),
    "gtp": ([*JOINT, f"algo.eta={ETA}"], trajectory_weighted),
    "gfp": ([*JOINT, *ONE_STEP, "algo.alpha=0.5"], bandit.best),
    "fac": ([*JOINT, *ONE_STEP, *FLOW, "algo.alpha=0.3", "algo.alpha_q=0.3"], bandit.best),
    "fan": ([*JOINT, *ONE_STEP, "algo.alpha=0.1", "critic.penalty=0.1"], bandit.best),
    "ofql": ([*JOINT, "algo.eta=1"], bandit.best),
    "dsrl": ([*LONGER, "algo.noise_scale=1.5", "algo.entropy=-2"], bandit.best),
    "expo": ([*LONGER, *FASTER, "algo.edit_scale=1.2", "algo.edit_entropy=-3"], bandit.best),
    "qipo": (  # two renewals of half of beta
        [*BEHAVIOUR, *CRITIC, *POLICY, "critic.candidates=2", f"algo.beta={BETA / 2}", "algo.renew_every=400"],
        lambda: bandit.value(bandit.tilted(boltzmann)),
    ),
    "bdpo": (
        [*BEHAVIOUR[1:], *CHAIN, f"algo.eta={1 / BETA}", "critic.ensemble=2", "critic.candidates=2", "select=none"],
        lambda: bandit.value(bandit.tilted(boltzmann)),
    ),
    "meanflow_ql": ([*JOINT, "algo.alpha=0.3", "algo.policy_schedule=constant"], bandit.best),
}


def learned(name: str, seed: int, precision: str = "tf32") -> Algorithm:
    """The algorithm trained to its end, its learning rates annealed to zero."""
    [(job, _)] = jobs(f"algo={name}", *SMALL, *(LEARNED | LEARNED_TOO)[name][0])
    torch.manual_seed(seed)
    algorithm = assemble(job.config, 1, -torch.ones(1), torch.ones(1))
    data, generator = bandit.transitions(seed, size=4000), torch.Generator().manual_seed(seed)
    for phase in algorithm.phases:
        source = begun(phase, data)
        for update in phase.updates.values():
            update.schedule = "cosine"
        for step in range(phase.steps):
            if phase.refresh and step and step % phase.refresh == 0:
                source = begun(phase, data)
            with arithmetic(precision, torch.device("cpu")):
                phase.update(source.sample(phase.batch_size, generator), generator, step)
    return algorithm


@pytest.mark.slow
@pytest.mark.parametrize("name", LEARNED)
def test_the_expected_reward_is_within_5_percent_of_the_optimum(name):
    """With one seed; `tests/acceptance/bandit_seeds.py` has more."""
    assert_learned(name, 0)


def assert_learned(name: str, seed: int, precision: str = "tf32") -> None:
    algorithm, optimum = learned(name, seed, precision), (LEARNED | LEARNED_TOO)[name][1]()
    context = bandit.CONTEXTS.repeat(2000, 1)
    action = algorithm.clip(algorithm.act(context, torch.Generator().manual_seed(1)))
    earned = bandit.reward(context, action).mean().item()
    assert earned == pytest.approx(optimum, rel=0.05)
    if name in ("gmpo", "gmpg", "qgpo"):  # whose policy is mu exp(beta Q)
        assert divergence(algorithm) < 0.2


def divergence(algorithm: Algorithm) -> float:
    """KL(mu exp(beta Q) || policy) in the worse context, in nats; that of mu is .48."""
    wanted = bandit.tilted(boltzmann)[:, ::15]
    points = bandit.GRID[::15, None].float()
    log_prob = torch.stack([algorithm.log_prob(c.expand(len(points), 1), points) for c in bandit.CONTEXTS]).double()
    gap = torch.where(wanted > 0, wanted * (wanted.log() - log_prob), 0.0)
    return (gap.sum(-1) * 15 * bandit.STEP).max().item()
