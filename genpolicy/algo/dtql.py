"""Diffusion Trusted Q-learning (Chen et al. 2024, arXiv 2405.19690)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from genpolicy.algo.distilled import Distilled, one_step_policy
from genpolicy.algo.phase import Phase, prefixed
from genpolicy.algo.update import Metrics
from genpolicy.config.legal import legal_options
from genpolicy.config.schema import component, locate, setting
from genpolicy.config.validation import Node
from genpolicy.dataset.transitions import Transitions
from genpolicy.errors import UserError
from genpolicy.model.direct import GaussianPolicy, TanhGaussianPolicy
from genpolicy.model.policy import Policy
from genpolicy.network.activation import INITIALISATIONS
from genpolicy.objective.objective import Draws


@component
class DTQL(Distilled):
    """A Gaussian policy that maximises min_j Q_j where the behaviour's denoiser leaves its actions in place.

    The trust-region loss is the behaviour's denoising error of the policy's actions, as a function of these (eq. 5):
    it is small at the modes of the behaviour only.
    """

    alpha: float = setting(5.0, gt=0.0, le=1e6, doc="weight of the trust region, in units of the (transformed) reward")
    imitation: float = setting(0.0, ge=0.0, le=1e6, doc="weight of -log pi(a|s) of the data's actions (1 for AntMaze)")
    weighted: bool = setting(
        False,
        doc="the trust region is the behaviour model's own loss; false: its squared error, at all noise levels alike",
    )
    squash: str = setting(
        "mean", choices=["mean", "sample"], doc="what the tanh is applied to; sample: and the std depends on the state"
    )
    policy_init: str = setting("pytorch", choices=list(INITIALISATIONS), doc="initialisation of the policy's weights")
    joint: bool = setting(
        False,
        doc="train critic and behaviour model together, and go on in the policy phase; critic_steps and "
        "critic_batch_size are not used then",
    )

    @classmethod
    def check_compatibility(cls, config: Node) -> None:
        super().check_compatibility(config)

        def fits(critic: type) -> bool:
            return critic.next_actions is None

        if config.algo.joint and not fits(locate(config.critic._target_)):
            raise UserError(
                "critic: with algo.joint there is no behaviour model before the critic; "
                f"legal: {legal_options('critic', fits)}"
            )

    def policies(self, model: Policy) -> tuple[Policy, Policy]:
        shape = {"hidden": self.policy_hidden, "activation": self.policy_activation, "init": self.policy_init}
        if self.squash == "sample":
            cls, shape["output_size"] = TanhGaussianPolicy, 2 * model.action_size
        else:
            cls = GaussianPolicy
        return one_step_policy(cls, model, self, **shape), model

    def plan(self) -> list[Phase]:
        behaviour, critic, policy = super().plan()
        if not self.joint:
            return [behaviour, critic, policy]
        critics = prefixed("critic", critic.updates)
        model = {"behaviour": behaviour.updates[""]}
        # In the authors' code the target Q, which selects the action played, does not move before the policy learns.
        waiting = {name: update.variant(before=None, after=None) for name, update in critics.items()}
        decaying = {name: update.variant(schedule=self.policy_schedule) for name, update in (critics | model).items()}
        both = {"trains": behaviour.trains | critic.trains, "depends": (*behaviour.depends, *critic.depends)}
        return [
            replace(behaviour, updates=model | waiting, **both),
            replace(policy, updates=decaying | {"policy": policy.updates[""]}),
        ]

    def loss(self, batch: Transitions, draws: Draws) -> tuple[Tensor, Metrics]:
        loss, metrics = super().loss(batch, draws)
        if self.imitation:
            log_prob = self.policy.latent_log_prob if self.squash == "sample" else self.policy.log_prob
            loss = loss - self.imitation * log_prob(batch.observation, batch.action)
        return loss, metrics

    def penalty(self, action: Tensor, x: Tensor, t: Tensor, noise: Tensor, observation: Tensor) -> Tensor:
        if self.weighted:
            return self.alpha * self.objective.loss(self.behaviour, observation, action, {"t": t, "noise": noise})
        return self.alpha * (self.behaviour.data(x, t, observation) - action).square().sum(-1)

    def gain(self, value: Callable[[Tensor], Tensor], action: Tensor) -> tuple[Tensor, Tensor]:
        q = value(action)
        return q, q.amin(0)
