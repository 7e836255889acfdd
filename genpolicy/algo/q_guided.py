"""A generative actor that maximises the critic while it imitates the data: Diffusion-QL, Consistency-AC."""

from __future__ import annotations

import torch
from torch import Tensor

from genpolicy.algo.actor_critic import ActorCritic
from genpolicy.algo.update import Metrics, Update
from genpolicy.config.legal import refuse_unused
from genpolicy.config.schema import component, setting
from genpolicy.config.validation import Node
from genpolicy.dataset.transitions import Transitions
from genpolicy.errors import UserError
from genpolicy.objective.objective import Draws


@component
class QGuided(ActorCritic):
    """The actor's generative loss - eta Q(s, pi(s)) / mean |Q|, through the sampler (Wang et al. 2023, eq. 3).

    As in their code, Q is one of the first two of the critic, chosen by a coin, and |Q| is taken from the other.
    """

    eta: float = setting(1.0, ge=0.0, le=1e6, doc="weight of the value, in units of the values' mean absolute value")
    normalize: bool = setting(True, doc="divide by mean |Q|; false: GTP's ablation with a linear Q term")
    own_size: bool = setting(False, doc="mean of the same Q function, as in EDP's code; false: of the other one")

    @classmethod
    def check_compatibility(cls, config: Node) -> None:
        super().check_compatibility(config)
        if config.critic.ensemble < 2:
            raise UserError(
                f"critic.ensemble={config.critic.ensemble}: the actor maximises one of 2 Q functions, "
                "chosen by a coin; legal: 2 or more"
            )
        if not config.algo.normalize:
            refuse_unused(config, "algo", ("own_size",), "with algo.normalize=false Q is not divided by a size")

    def actor_update(self) -> Update:
        return self.maximising_update(self.policy.parameters(), after=self.update_targets)

    def draw(self, batch: Transitions, generator: torch.Generator, progress: float) -> Draws:
        """The generative loss's draws, the noise of the actions, if they are sampled, and the coin."""
        draws = dict(self.objective.draw(self.policy, batch.observation, batch.action, generator, progress))
        if self.uses_samples:
            draws["action_noise"] = self.policy.draw_noise(batch.size, generator, batch.action)
        coin = torch.randint(2, (1,), generator=generator, device=batch.action.device)
        return draws | {"coin": coin.expand(batch.size)}

    def loss(self, batch: Transitions, draws: Draws) -> tuple[Tensor, Metrics]:
        """The generative loss and the value's [B], and metrics."""
        matching = self.objective.loss(self.policy, batch.observation, batch.action, draws)
        action = self.clip(self.action(batch, draws))
        q = self.critic.q(batch.observation, action, 2)
        value = self.value(q, draws)
        return matching - self.eta * value, {"matching": matching.detach().mean(), "q": q.detach().mean()}

    def value(self, q: Tensor, draws: Draws) -> Tensor:
        """What is raised [B], of Q [2, B]: one of two by a coin, in units of the mean absolute value of one."""
        if self.normalize:
            size = q.detach().abs().mean(1, keepdim=True)
            q = q / (size if self.own_size else size.flip(0))
        return torch.where(draws["coin"] == 0, q[0], q[1])

    def action(self, batch: Transitions, draws: Draws) -> Tensor:
        """The policy's actions [B, A] whose value is raised."""
        return self.policy.sample(batch.observation, noise=draws["action_noise"])
