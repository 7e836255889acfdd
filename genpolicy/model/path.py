"""Probability paths from data (t = 0) to noise (t = 1): x_t = alpha(t) x_0 + sigma(t) eps, eps ~ N(0, I).

Everything follows from alpha, sigma and their Wronskian D = alpha sigma' - alpha' sigma, which is what keeps the
conversions below free of divisions by alpha: with the marginal velocity v = E[alpha' x_0 + sigma' eps | x_t],

    noise = (alpha v - alpha' x) / D        data = (sigma' x - sigma v) / D        score = -noise / sigma

Times are tensors of any shape; their path coefficients have the same shape and are given a trailing axis where they
meet samples of shape [..., A].
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from genpolicy.config.schema import component, setting

PREDICTIONS = ("velocity", "score", "noise", "data", "preconditioned")


@component
class ProbabilityPath(ABC):
    """x_t = alpha(t) x_0 + sigma(t) eps for t in [t_min, t_max].

    Densities and samples are those at t_min, carried to t = 0 by x_0 = x_{t_min} / alpha(t_min): the error is
    quadratic in sigma(t_min) over the data's standard deviation.
    """

    t_min: float = setting(
        1e-3, ge=0.0, lt=0.1, doc="smallest time t; the density is that of data with noise sigma(t_min)"
    )

    t_max = 1.0
    # Last time at which data can be told from noise (alpha > 0): where a noise or score prediction starts.
    t_max_noise = 1.0 - 1e-3
    # What a network should output on the path: the velocity itself where that has the data's size at every time.
    auto_prediction = "velocity"
    couples = False  # whether noise depends on the action it is paired with
    discrete = False  # whether a network knows the path at some times only, so that it has no density

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        """The signal's coefficient, in [0, 1]."""

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """The noise's coefficient (standard deviation), >= 0."""

    @abstractmethod
    def d_alpha(self, t: Tensor) -> Tensor:
        """The time derivative alpha'(t)."""

    @abstractmethod
    def d_sigma(self, t: Tensor) -> Tensor:
        """The time derivative sigma'(t)."""

    @abstractmethod
    def time(self, signal: Tensor, noise: Tensor) -> Tensor:
        """The time at which alpha : sigma = signal : noise, for signal, noise >= 0 and not both 0."""

    def wronskian(self, t: Tensor) -> Tensor:
        """D(t) = alpha sigma' - alpha' sigma > 0."""
        return self.alpha(t) * self.d_sigma(t) - self.d_alpha(t) * self.sigma(t)

    def perturb(self, data: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_t [..., A] from data and noise [..., A] at times t [...]."""
        return self.alpha(t)[..., None] * data + self.sigma(t)[..., None] * noise

    def training_time(self, unit: Tensor, t_max: float) -> Tensor:
        """Times [...] up to t_max, spread as evenly as numbers [...] are over [0, 1)."""
        return self.t_min + (t_max - self.t_min) * unit

    def network_time(self, t: Tensor) -> Tensor:
        """What networks are told of times [...]."""
        return t

    def couple(self, action: Tensor, noise: Tensor, observation: Tensor) -> Tensor:
        """The noise [B, A] paired with each action [B, A]; independent pairing unless a path says otherwise."""
        return noise

    def data_and_noise(self, prediction: str, value: Tensor, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The data and noise predictions that a prediction of any kind at x_t = x implies; exact.

        value, x: [..., A]; t: [...]; prediction: velocity, score, noise or data.
        """
        alpha, sigma = self.alpha(t)[..., None], self.sigma(t)[..., None]
        if prediction == "velocity":
            d_alpha, d_sigma = self.d_alpha(t)[..., None], self.d_sigma(t)[..., None]
            wronskian = self.wronskian(t)[..., None]
            return (d_sigma * x - sigma * value) / wronskian, (alpha * value - d_alpha * x) / wronskian
        if prediction == "noise":
            return (x - sigma * value) / alpha, value
        if prediction == "score":
            return (x + sigma**2 * value) / alpha, -sigma * value
        if prediction == "data":
            return value, (x - alpha * value) / sigma
        raise ValueError(f"no such prediction: {prediction}")

    def target(self, prediction: str, data: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """The inverse of `data_and_noise`: velocity, score, noise or data [..., A] from a data and a noise."""
        if prediction == "velocity":
            return self.d_alpha(t)[..., None] * data + self.d_sigma(t)[..., None] * noise
        if prediction == "score":
            return -noise / self.sigma(t)[..., None]
        return {"noise": noise, "data": data}[prediction]


@component
class VPSDE(ProbabilityPath):
    """Variance-preserving SDE with linear beta(t) = beta_min + (beta_max - beta_min) t (Song et al. 2021, eq. 11)."""

    beta_min: float = setting(0.1, gt=0.0, le=1e4, doc="noise rate beta at t = 0")
    beta_max: float = setting(20.0, gt=0.0, le=1e4, doc="noise rate beta at t = 1")
    t_min: float = setting(3e-5, gt=0.0, lt=0.1, doc="smallest time t; sigma' is infinite at 0")

    t_max_noise = 1.0
    auto_prediction = "preconditioned"

    def _beta(self, t: Tensor) -> Tensor:
        return self.beta_min + (self.beta_max - self.beta_min) * t

    def _log_alpha(self, t: Tensor) -> Tensor:
        return -0.5 * t * (self.beta_min + 0.5 * (self.beta_max - self.beta_min) * t)

    def alpha(self, t: Tensor) -> Tensor:
        return torch.exp(self._log_alpha(t))

    def sigma(self, t: Tensor) -> Tensor:
        return torch.sqrt(-torch.expm1(2 * self._log_alpha(t)))

    def d_alpha(self, t: Tensor) -> Tensor:
        return -0.5 * self._beta(t) * self.alpha(t)

    def d_sigma(self, t: Tensor) -> Tensor:
        return 0.5 * self._beta(t) * self.alpha(t) ** 2 / self.sigma(t)

    def wronskian(self, t: Tensor) -> Tensor:
        return 0.5 * self._beta(t) * self.alpha(t) / self.sigma(t)

    def time(self, signal: Tensor, noise: Tensor) -> Tensor:
        # -ln alpha as a function of sigma/alpha, then the root of a quadratic that does not cancel.
        exponent = 0.5 * torch.log1p((noise / signal) ** 2)
        half = 0.5 * self.beta_min
        root = torch.sqrt(half**2 + (self.beta_max - self.beta_min) * exponent)
        return 2 * exponent / (half + root)


@component
class GVP(ProbabilityPath):
    """Generalised variance-preserving (trigonometric) path (Ma et al. 2024, SiT)."""

    def alpha(self, t: Tensor) -> Tensor:
        return torch.cos(0.5 * math.pi * t)

    def sigma(self, t: Tensor) -> Tensor:
        return torch.sin(0.5 * math.pi * t)

    def d_alpha(self, t: Tensor) -> Tensor:
        return -0.5 * math.pi * torch.sin(0.5 * math.pi * t)

    def d_sigma(self, t: Tensor) -> Tensor:
        return 0.5 * math.pi * torch.cos(0.5 * math.pi * t)

    def wronskian(self, t: Tensor) -> Tensor:
        return torch.full_like(t, 0.5 * math.pi)

    def time(self, signal: Tensor, noise: Tensor) -> Tensor:
        return 2 / math.pi * torch.atan2(noise, signal)


@component
class ICFM(ProbabilityPath):
    """Independent conditional flow: straight lines from data to noise (Lipman et al. 2023; Tong et al. 2024).

    sigma(t) = sigma_min + (1 - sigma_min) t. The GMPO/GMPG reference code adds noise of 0.1 at every t instead, which
    blurs the density by as much at t = 0.
    """

    sigma_min: float = setting(
        0.0, ge=0.0, lt=0.5, doc="standard deviation of the noise left at t = 0, in action units"
    )

    def alpha(self, t: Tensor) -> Tensor:
        return 1 - t

    def sigma(self, t: Tensor) -> Tensor:
        return self.sigma_min + (1 - self.sigma_min) * t

    def d_alpha(self, t: Tensor) -> Tensor:
        return -torch.ones_like(t)

    def d_sigma(self, t: Tensor) -> Tensor:
        return torch.full_like(t, 1 - self.sigma_min)

    def wronskian(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def time(self, signal: Tensor, noise: Tensor) -> Tensor:
        return (noise - self.sigma_min * signal) / (noise + (1 - self.sigma_min) * signal)


@component
class OTCFM(ICFM):
    """ICFM whose mini-batch pairs actions with noise by optimal transport (Tong et al. 2024, section 3.3).

    A policy's noise must stay independent of the observation, or sampling from N(0, I) at one observation would be
    biased. So every noise carries the observation of its own row, and the transport cost is
    |a_i - z_j|^2 + condition_weight |o_i - o_j|^2 with observations scaled to unit variance: pairs are exchanged only
    between rows with alike observations, and everywhere if there is no observation.
    """

    couples = True

    condition_weight: float = setting(10.0, ge=0.0, le=1e6, doc="cost of pairing rows whose observations differ")
    coupling_size: int = setting(256, ge=2, le=2**16, doc="rows coupled at once; the cost grows with its cube")

    @torch.no_grad()
    def couple(self, action: Tensor, noise: Tensor, observation: Tensor) -> Tensor:
        from scipy.optimize import linear_sum_assignment  # slow to import and needed only here

        centred = observation - observation.mean(0)
        scaled = centred / (centred.square().mean(0).sqrt() + 1e-6)
        coupled = []
        for rows in torch.arange(len(action), device=action.device).split(self.coupling_size):
            cost = torch.cdist(action[rows], noise[rows]) ** 2
            cost = cost + self.condition_weight * torch.cdist(scaled[rows], scaled[rows]) ** 2
            # Equal weights: the optimal plan is a permutation, one partner a row.
            _, partner = linear_sum_assignment(cost.double().cpu().numpy())
            coupled.append(noise[rows[torch.as_tensor(partner, device=action.device)]])
        return torch.cat(coupled)


@component
class EDM(ProbabilityPath):
    """Variance-exploding path with the time axis of Karras et al. 2022, eq. 5: sigma(t)^(1/7) is linear in t."""

    sigma_min: float = setting(0.002, gt=0.0, le=1e6, doc="standard deviation of the noise at t = 0, in action units")
    sigma_max: float = setting(80.0, gt=0.0, le=1e6, doc="standard deviation of the noise at t = 1, in action units")
    t_min: float = setting(0.0, ge=0.0, lt=0.1, doc="smallest time t; sigma(0) is sigma_min already")
    told: str = setting(
        "time", choices=["time", "sigma", "log_sigma"], doc="time input of the network; log_sigma is ln(sigma) / 4"
    )

    t_max_noise = 1.0
    auto_prediction = "preconditioned"
    rho = 7

    def _root(self, t: Tensor) -> Tensor:
        low, high = self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)
        return low + (high - low) * t

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        return self._root(t) ** self.rho

    def d_alpha(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)

    def d_sigma(self, t: Tensor) -> Tensor:
        slope = self.sigma_max ** (1 / self.rho) - self.sigma_min ** (1 / self.rho)
        return self.rho * slope * self._root(t) ** (self.rho - 1)

    def wronskian(self, t: Tensor) -> Tensor:
        return self.d_sigma(t)

    def network_time(self, t: Tensor) -> Tensor:
        if self.told == "time":
            return t
        sigma = self.sigma(t)
        return sigma if self.told == "sigma" else torch.log(sigma) / 4

    def time(self, signal: Tensor, noise: Tensor) -> Tensor:
        low, high = self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)
        return ((noise / signal) ** (1 / self.rho) - low) / (high - low)
