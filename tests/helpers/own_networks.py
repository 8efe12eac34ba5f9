"""Networks that somebody else could have written."""

from typing import Any

import torch
from torch import Tensor, nn


class OwnNet(nn.Module):
    """Two layers with a skip, and a normalisation: nothing that pgkit has."""

    def __init__(self, observation_space: Any, width: int = 16) -> None:
        super().__init__()
        self.first = nn.Linear(observation_space.shape[0], width)
        self.norm = nn.LayerNorm(width)
        self.second = nn.Linear(width, width, bias=False)

    def forward(self, obs: Tensor) -> Tensor:
        hidden = torch.tanh(self.norm(self.first(obs)))
        return hidden + torch.relu(self.second(hidden))
