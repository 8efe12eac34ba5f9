"""Convolutional networks for images, as plain modules that :mod:`pgkit.nn.module_network` applies.

An image is ``(C, H, W)``. Spaces may hold ``(H, W, C)``, or stacks of frames ``(K, H, W)`` and ``(K, H, W, C)``, as
Gymnasium's wrappers make them: frames and colours all become channels.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from pgkit.errors import PgkitError

NATURE_SIDE = 36
"""The least side of an image that Nature's three convolutions can halve and quarter."""


class NatureCNN(nn.Module):
    """The network of Mnih et al. 2015 (doi 10.1038/nature14236): three convolutions, then ``features`` units.

    >>> import numpy as np
    >>> from gymnasium.spaces import Box
    >>> network = NatureCNN(Box(0, 255, (84, 84, 4), np.uint8))
    >>> network(torch.zeros(2, 84, 84, 4)).shape
    torch.Size([2, 512])

    Args:
        observation_space: a Box of pixels.
        features: units of the last layer.

    Raises:
        PgkitError: the space holds no images, or too small ones.
    """

    def __init__(self, observation_space: Any, features: int = 512) -> None:
        super().__init__()
        self.image = ToChannels(observation_space)
        channels, height, width = self.image.shape
        if min(height, width) < NATURE_SIDE:
            raise PgkitError(
                f"policy.network 'nature-cnn' needs images of at least {NATURE_SIDE} x {NATURE_SIDE} pixels, these "
                f"are {height} x {width}: 'minatar-cnn' takes small ones"
            )
        self.convolutions = nn.Sequential(
            nn.Conv2d(channels, 32, 8, stride=4),
            nn.ReLU(),
            nn.Conv2d(32, 64, 4, stride=2),
            nn.ReLU(),
            nn.Conv2d(64, 64, 3),
            nn.ReLU(),
            nn.Flatten(),
        )
        self.last = _last_layer(self.convolutions, self.image.shape, features)
        _orthogonal(self)

    def forward(self, obs: Tensor) -> Tensor:
        """Features ``(B, features)`` of observations ``(B, *shape)`` of the space."""
        return torch.relu(self.last(self.convolutions(self.image(obs))))


class MinAtarCNN(nn.Module):
    """The network of Young and Tian 2019 (arXiv 1903.03176) for small grids: 16 filters of 3 x 3, then 128 units.

    >>> import numpy as np
    >>> from gymnasium.spaces import Box
    >>> MinAtarCNN(Box(0, 1, (10, 10, 4), np.bool_))(torch.zeros(2, 10, 10, 4)).shape
    torch.Size([2, 128])

    Args:
        observation_space: a Box of at least 3 x 3 cells.
        features: units of the last layer.

    Raises:
        PgkitError: the space holds no images.
    """

    def __init__(self, observation_space: Any, features: int = 128) -> None:
        super().__init__()
        self.image = ToChannels(observation_space)
        self.convolutions = nn.Sequential(nn.Conv2d(self.image.shape[0], 16, 3), nn.ReLU(), nn.Flatten())
        self.last = _last_layer(self.convolutions, self.image.shape, features)
        _orthogonal(self)

    def forward(self, obs: Tensor) -> Tensor:
        """Features ``(B, features)`` of observations ``(B, *shape)`` of the space."""
        return torch.relu(self.last(self.convolutions(self.image(obs))))


class ToChannels(nn.Module):
    """Images of a space as ``(B, C, H, W)``; bytes, or numbers up to 255, are scaled to 0..1.

    Attributes:
        shape: ``(C, H, W)``.
    """

    def __init__(self, space: Any) -> None:
        super().__init__()
        shape = tuple(space.shape)
        if len(shape) not in (2, 3, 4):
            raise PgkitError(f"policy.network: a CNN needs images (H, W, C), (C, H, W) or stacks of them, got {shape}")
        if len(shape) == 2:
            shape = (1, *shape)
        leading = tuple(range(len(shape) - 2))  # the batch, and frames of a stack
        first, second, third = range(len(shape) - 2, len(shape) + 1)
        # Channels are the shorter end, as Stable-Baselines3 has it.
        channels_last = shape[-1] < shape[-3]
        self.order = (*leading, third, first, second) if channels_last else (*leading, first, second, third)
        rows = shape[-3:-1] if channels_last else shape[-2:]
        self.shape = (math.prod(shape) // math.prod(rows), *rows)
        self.scale = 1.0 / 255.0 if float(space.high.max()) == 255.0 else 1.0

    def forward(self, obs: Tensor) -> Tensor:
        """Permute, merge and scale observations ``(B, *shape)`` of the space."""
        if obs.dim() == 3:
            obs = obs.unsqueeze(1)
        return obs.permute(self.order).reshape(len(obs), *self.shape) * self.scale


def _last_layer(convolutions: nn.Module, shape: tuple[int, ...], features: int) -> nn.Linear:
    """The layer from what the convolutions make of an image to the features."""
    with torch.no_grad():
        inputs = convolutions(torch.zeros(1, *shape)).shape[1]
    return nn.Linear(inputs, features)


def _orthogonal(module: nn.Module) -> None:
    """Orthogonal weights of gain sqrt(2) and zero biases, as CleanRL and Stable-Baselines3 begin."""
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.orthogonal_(layer.weight, 2**0.5)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
