"""Small problems whose gradient noise is known in closed form or by exact quadrature."""

from typing import NamedTuple

import numpy as np

from helpers.tabular import Array, Mdp


class Bandit(NamedTuple):
    """A Gaussian bandit: action ``a = theta + sigma e``, reward ``-a'Qa / 2``."""

    theta: Array = np.array([1.0, -0.5])
    q: Array = np.diag([1.0, 2.0])
    sigma: float = 0.5

    @property
    def gradient(self) -> Array:
        """G, the gradient of the mean reward, (2,)."""
        return -self.q @ self.theta

    @property
    def mean_reward(self) -> float:
        return float(-self.theta @ self.q @ self.theta / 2 - self.sigma**2 * np.trace(self.q) / 2)

    @property
    def best_baseline(self) -> float:
        """The constant baseline of the least variance."""
        return self.mean_reward - self.sigma**2 * float(np.trace(self.q)) / len(self.theta)

    def covariance(self, baseline: float) -> Array:
        """Sigma of one episode's gradient ``(e / sigma)(r - baseline)``, (2, 2)."""
        b = -self.sigma * self.q @ self.theta
        c = -(self.sigma**2) * self.q / 2
        j = self.mean_reward - baseline
        scale = j**2 + b @ b + 2 * np.trace(c @ c)
        second = scale * np.eye(len(b)) + 2 * np.outer(b, b) + 4 * j * c + 8 * c @ c
        return second / self.sigma**2 - np.outer(self.gradient, self.gradient)

    @property
    def reward_variance(self) -> float:
        b = -self.sigma * self.q @ self.theta
        c = -(self.sigma**2) * self.q / 2
        return float(b @ b + 2 * np.trace(c @ c))

    def nsr(self, baseline: float) -> float:
        return float(np.trace(self.covariance(baseline)) / (self.gradient @ self.gradient))

    def reward(self, noise: Array) -> Array:
        """Rewards of the actions with noise e, ``(..., 2) -> (...)``."""
        action = self.theta + self.sigma * noise
        return -np.einsum("...i,ij,...j->...", action, self.q, action) / 2

    def draw(self, rng: np.random.Generator, count: int, baseline: float) -> Array:
        """Gradients of single episodes, (count, 2)."""
        noise = rng.normal(size=(count, len(self.theta)))
        return noise / self.sigma * (self.reward(noise) - baseline)[:, None]


class Lqr(NamedTuple):
    """Two steps of ``x' = 1.2 x + u``, ``u = -gain x + sigma e``, from x = 1; costs ``x^2 + u^2 / 10``, then x^2."""

    gain: float
    sigma: float = 0.5

    def episodes(self, first: Array, second: Array) -> tuple[Array, Array]:
        """Returns, and gradients with reward-to-go in the gain, of episodes with noise ``first`` and ``second``."""
        u0 = -self.gain + self.sigma * first
        x1 = 1.2 + u0
        u1 = -self.gain * x1 + self.sigma * second
        x2 = 1.2 * x1 + u1
        to_go = -(x1**2 + u1**2 / 10) - x2**2
        total = to_go - (1 + u0**2 / 10)
        return total, -first / self.sigma * total - second / self.sigma * x1 * to_go

    def exact(self) -> tuple[float, float, float]:
        """J, dJ/dgain and the variance of one episode's gradient, by quadrature that is exact for polynomials."""
        nodes, weights = np.polynomial.hermite_e.hermegauss(10)
        weights = np.outer(weights, weights) / weights.sum() ** 2
        returns, gradients = self.episodes(nodes[:, None], nodes)
        mean = (weights * gradients).sum()
        return float((weights * returns).sum()), float(mean), float((weights * gradients**2).sum() - mean**2)

    def draw(self, rng: np.random.Generator, count: int) -> Array:
        """Gradients of single episodes, (count, 1)."""
        return self.episodes(*rng.normal(size=(2, count)))[1][:, None]


def two_locks() -> Mdp:
    """State 0: action 0 pays .3 and ends, action 1 leads to state 1; there action 1 pays 1, action 0 nothing."""
    transition = np.zeros((2, 2, 3))
    transition[0, 0, 2] = transition[0, 1, 1] = 1.0
    transition[1, :, 2] = 1.0
    reward = np.zeros_like(transition)
    reward[0, 0, 2] = 0.3
    reward[1, 1, 2] = 1.0
    return Mdp(np.array([1.0, 0.0]), transition, reward)
