"""Q-guided policy optimization by contrastive energy prediction (Lu et al. 2023)."""

from __future__ import annotations

import torch
from torch import Tensor

from genpolicy.algo.algorithm import Algorithm
from genpolicy.algo.compatibility import require_flow, require_independent_noise
from genpolicy.algo.phase import Phase
from genpolicy.algo.settings import BehaviourSettings, CriticSettings, PolicySettings
from genpolicy.algo.update import Metrics, Update, effective_sample_size
from genpolicy.config.legal import legal_options
from genpolicy.config.schema import EVALUATION, component, locate, setting
from genpolicy.config.validation import Node
from genpolicy.critic.critic import q_of_each
from genpolicy.dataset.transitions import Transitions
from genpolicy.errors import UserError
from genpolicy.model.flow import Capability, standard_normal
from genpolicy.model.generative import GenerativePolicy
from genpolicy.model.guided import GuidedNetwork, GuidedPolicy
from genpolicy.model.policy import Policy
from genpolicy.network.mlp import MLP
from genpolicy.objective.objective import Draws


@component
class QGPO(BehaviourSettings, CriticSettings, PolicySettings, Algorithm):
    """The behaviour model guided by the gradient of an intermediate energy: mu exp(beta Q) at guidance_scale 1.

    The energy is learned by telling which of K perturbed behaviour actions has the larger Q: the cross-entropy of
    softmax_K(f_t(x_k)) against softmax_K(beta Q(s, a_k)) (eq. 12). `policy_*` are the settings of that phase.
    """

    offline_only = "as it draws behaviour actions for the data beforehand"

    beta: float = setting(
        3.0, gt=0.0, le=1e6, doc="inverse temperature, in units of the data set's (transformed) reward"
    )
    guidance_scale: float = setting(
        1.0, ge=0.0, le=1e6, doc="multiple of the energy's gradient that guides", affects=EVALUATION
    )
    num_actions: int = setting(16, ge=2, le=10**4, doc="behaviour actions K a state, drawn once")
    energy_hidden: list[int] = setting([256, 256], ge=1, le=2**14, doc="units of each hidden layer of the energy")
    energy: str = setting(
        "denoised",
        choices=["denoised", "noisy"],
        doc="input of the energy network: the noisy action, as in QGPO's code, or a denoised one",
    )
    target_value: bool = setting(False, doc="learn the energy from the target Q functions; false: from the online ones")
    clip_support: bool = setting(True, doc="clip the behaviour's actions to the action space before they are valued")
    joint: bool = setting(False, doc="train the energy in the critic's phase too, after each critic update")

    @property
    def inverse_temperature(self) -> float | None:
        return self.beta if self.guidance_scale == 1 else None  # a multiple of the energies at t > 0 is no energy

    @classmethod
    def check_compatibility(cls, config: Node) -> None:
        super().check_compatibility(config)
        require_flow(config)
        require_independent_noise(config, "QGPO's energies are those of actions with noise")
        if not guidable(locate(config.model._target_)):
            raise UserError(f"model: a solution map cannot be guided; legal: {legal_options('model', guidable)}")
        # A score of noise alone says nothing of a velocity's change.
        alone = locate(config.model.path._target_).t_max_noise < 1
        if config.algo.energy == "noisy" and alone and config.objective.get("prediction") not in ("noise", "score"):
            raise UserError(
                "algo.energy=noisy: its gradient is unbounded where this path is noise alone; legal: denoised"
            )

    def policies(self, model: Policy) -> tuple[Policy, Policy]:
        sizes = {"action_size": model.action_size, "observation_size": model.network.observation_size}
        noisy = self.energy == "noisy"
        shape = {"time_embedding": "layered", "time_size": 32, "time_scale": 30.0, "output_size": 1} if noisy else {}
        energy = MLP(hidden=self.energy_hidden, **sizes, **shape)
        guided = GuidedPolicy(
            path=model.path,
            sigma_data=model.sigma_data,
            divergence=model.divergence,
            clip_denoised=model.clip_denoised,
            network=GuidedNetwork(model, energy, self.guidance_scale, noisy),
            prediction=model.prediction,
            solver=model.solver,
            likelihood=model.likelihood,
            has_density=model.has_density,
            bounds=None if model.lowest is None else (model.lowest, model.highest),
        )
        return guided, model

    def plan(self) -> list[Phase]:
        energy, schedule = self.policy.network.energy, self.policy_schedule
        update = Update(energy.parameters(), self.policy_lr, self.loss, self.draw, schedule=schedule)
        prepare = self.with_behaviour_actions(self.num_actions)
        policy, critic = self.policy_phase(update, prepare=prepare), self.critic_phase()
        if critic.reads:
            critic.depends += ("algo.clip_support",)
        if self.joint:  # the energy's optimiser goes on in the next phase
            critic.depends = ()
            ahead = critic.prepare or (lambda transitions: transitions)
            critic.prepare = lambda transitions: prepare(ahead(transitions))
            critic.updates = {name or "critic": own for name, own in critic.updates.items()} | {"energy": update}
        return [self.behaviour_phase(), critic, policy]

    def support(self, action: Tensor) -> Tensor:
        return super().support(action) if self.clip_support else action

    def draw(self, batch: Transitions, generator: torch.Generator, progress: float) -> Draws:
        """A time [B] for all actions of a state, and the noise [B, K, A] of each."""
        action = batch["behaviour_action"]
        low, high = self.policy.path.t_min, self.policy.t_max
        unit = torch.rand(batch.size, generator=generator, device=action.device, dtype=action.dtype)
        return {"t": low + (high - low) * unit, "noise": standard_normal(action.shape, generator, action)}

    def loss(self, batch: Transitions, draws: Draws) -> tuple[Tensor, Metrics]:
        """The cross-entropy [B], and metrics."""
        action = batch["behaviour_action"]
        observation = batch.observation.repeat_interleave(self.num_actions, 0)
        with torch.no_grad():
            q = q_of_each(self.critic, batch.observation, self.support(action), self.target_value)
            wanted = torch.softmax(self.beta * q, -1)
        t = draws["t"][:, None].expand(action.shape[:2])
        x = self.policy.path.perturb(action, draws["noise"], t).flatten(0, 1)
        energy = self.policy.network.energies(x, t.flatten(), observation).unflatten(0, action.shape[:2])
        return -(wanted * torch.log_softmax(energy, -1)).sum(-1), {
            "effective_sample_size": effective_sample_size(wanted)
        }


def guidable(model: type) -> bool:
    """Whether a model is the flow at one time, to which a gradient can be added, and no map to its end."""
    return issubclass(model, GenerativePolicy) and model.num_times == 1 and Capability.FIELD in model.supports
