"""A policy's entropy, held where it is wanted by a temperature that is learned (Haarnoja et al. 2018)."""

from __future__ import annotations

from torch import Tensor

from genpolicy.algo.update import Metrics


def entropy_loss(log_temperature: Tensor, log_prob: Tensor, wanted: float) -> tuple[Tensor, Metrics]:
    """The losses of a policy, temperature log pi, and of the temperature, temperature (entropy - wanted), [B].

    Neither's gradient reaches the other. log_temperature [1]; log_prob [B] of the policy's own actions; wanted [nats].
    """
    temperature, entropy = log_temperature.exp(), -log_prob.detach()
    loss = temperature.detach() * log_prob + temperature * (entropy - wanted)
    return loss, {"entropy": entropy.mean(), "temperature": temperature.detach().mean()}
