"""GMPO: advantage-weighted regression of a generative policy (Zhang et al. 2024, arXiv 2412.01245).

The optimum of max_pi E_pi[Q] - KL(pi || mu) / beta is mu(a|s) exp(beta Q(s, a)) up to its normaliser, so the policy is
fitted by its generative loss to samples of mu that are weighted by a multiple of exp(beta Q).
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from genpolicy.algo.algorithm import Algorithm
from genpolicy.algo.compatibility import require_independent_noise
from genpolicy.algo.phase import Phase
from genpolicy.algo.settings import BehaviourSettings, CriticSettings, PolicySettings
from genpolicy.algo.update import Metrics, Update, effective_sample_size, exponential_weight, imitation
from genpolicy.config.schema import component, setting
from genpolicy.config.validation import Node
from genpolicy.dataset.transitions import Transitions
from genpolicy.model.policy import Policy
from genpolicy.objective.objective import Draws


@component
class GMPO(CriticSettings, PolicySettings, Algorithm):
    """The data's own actions, weighted with min(exp(beta (Q - V)), weight_clamp); no behaviour model is needed.

    Clamping pulls the optimum back towards the behaviour: `clamped` (the share of clamped weights) should stay below
    some per cent.
    """

    uses_samples = False

    beta: float = setting(
        4.0, gt=0.0, le=1e6, doc="inverse temperature, in units of the data set's (transformed) reward"
    )
    weight_clamp: float = setting(100.0, gt=0.0, le=1e30, doc="largest weight of a sample")

    @property
    def inverse_temperature(self) -> float:
        return self.beta

    def plan(self) -> list[Phase]:
        update = imitation(self.policy, self.objective, self.policy_lr, self.weight, schedule=self.policy_schedule)
        return [self.critic_phase(), self.policy_phase(update)]

    @torch.no_grad()
    def weight(self, batch: Transitions, draws: Draws) -> tuple[Tensor, Metrics]:
        """min(exp(beta (Q - V)), weight_clamp) [B], and its statistics."""
        exponent = self.beta * self.critic.advantage(batch.observation, batch.action)
        return exponential_weight(exponent, self.weight_clamp)


@component
class GMPOSoftmax(BehaviourSettings, CriticSettings, PolicySettings, Algorithm):
    """K actions a state from a behaviour model, weighted with softmax_K(beta Q) (GMPO_softmax of the paper's code).

    static: the K actions are drawn once for the whole data set; otherwise afresh in every update.
    """

    offline_only = "as its actions are those of a behaviour model that is fitted to the data beforehand"

    beta: float = setting(
        4.0, gt=0.0, le=1e6, doc="inverse temperature, in units of the data set's (transformed) reward"
    )
    static: bool = setting(True, doc="draw the behaviour model's actions once; false: in every update")
    num_actions: int = setting(16, ge=2, le=10**4, doc="behaviour actions K a state")

    @property
    def inverse_temperature(self) -> float:
        return self.beta

    def policies(self, model: Policy) -> tuple[Policy, Policy]:
        return model, copy.deepcopy(model)

    def plan(self) -> list[Phase]:
        more = {"after": self.policy.update_target, "schedule": self.policy_schedule}
        update = Update(self.policy.parameters(), self.policy_lr, self.loss, self.draw, **more)
        prepare = self.with_behaviour_actions(self.num_actions, source=self.source()) if self.static else None
        return [self.behaviour_phase(), self.critic_phase(), self.policy_phase(update, prepare=prepare)]

    @classmethod
    def check_compatibility(cls, config: Node) -> None:
        super().check_compatibility(config)
        require_independent_noise(config, "GMPO's softmax variants weight pairs of action and noise")

    def source(self) -> Policy:
        """What the K actions are of: the behaviour model."""
        return self.behaviour

    @property
    def num_weighted(self) -> int:
        """How many actions a state are weighted."""
        return self.num_actions

    def actions(self, batch: Transitions, draws: Draws) -> Tensor:
        """The actions [B, K, A] that are weighted."""
        if self.static:
            return batch["behaviour_action"]
        noise = draws["sample_noise"]
        return self.source().sample(batch.observation, num_samples=noise.shape[1], noise=noise.flatten(0, 1))

    def draw(self, batch: Transitions, generator: torch.Generator, progress: float) -> Draws:
        """The noise of the actions, if they are drawn afresh, and the objective's draws for each, [B, K, ...]."""
        size, drawn = batch.size, {}
        if not self.static:
            drawn["sample_noise"] = self.source().draw_noise(size * self.num_actions, generator, batch.action)
        each = (column.repeat_interleave(self.num_weighted, 0) for column in (batch.observation, batch.action))
        drawn |= self.objective.draw(self.policy, *each, generator, progress)  # takes of actions their shape alone
        return {name: draw.unflatten(0, (size, -1)) for name, draw in drawn.items()}

    def loss(self, batch: Transitions, draws: Draws) -> tuple[Tensor, Metrics]:
        """sum_k softmax_K(beta Q)_k loss(a_k | s), [B]."""
        flat = {name: draw.flatten(0, 1) for name, draw in draws.items() if name != "sample_noise"}
        with torch.no_grad():
            action = self.actions(batch, draws)
            several, action = action.shape[:2], action.flatten(0, 1)
            observation = batch.observation.repeat_interleave(several[1], 0)
            q = self.critic.q_min(observation, action).unflatten(0, several)
            weight = torch.softmax(self.beta * q, -1)
        losses = self.objective.loss(self.policy, observation, action, flat).unflatten(0, weight.shape)
        return (weight * losses).sum(-1), {"effective_sample_size": effective_sample_size(weight)}
