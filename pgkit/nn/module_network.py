"""Anyone's ``torch.nn.Module`` as a network of a population, by ``torch.func.functional_call``.

Each member has parameters of its own, drawn with its seed. Members are computed one after the other, with the shapes
that each has alone: whatever operations the module consists of, a member's bits are those of a run alone, as far as
PyTorch repeats its own results.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd

from pgkit.errors import PgkitError, describe_exception
from pgkit.seeding import stream_seed
from pgkit.types import Params

if TYPE_CHECKING:
    from gymnasium.spaces import Box

ModuleClass = Callable[..., nn.Module]
"""``Class(observation_space, **kwargs)``, as Stable-Baselines3 calls its features extractors."""


@dataclass(frozen=True, eq=False)
class ModuleNetwork:
    """A module as a :class:`pgkit.nn.network.Network`.

    >>> from gymnasium.spaces import Box
    >>> class MyNet(nn.Module):
    ...     def __init__(self, observation_space, width=8):
    ...         super().__init__()
    ...         self.layer = nn.Linear(observation_space.shape[0], width)
    ...
    ...     def forward(self, obs):  # (B, *observation_space.shape) -> (B, F)
    ...         return torch.relu(self.layer(obs))
    >>> network = ModuleNetwork.of(MyNet, Box(-1.0, 1.0, (4,)), {"width": 16})
    >>> params = network.init("net", seeds=[0, 1, 2], stream=3)
    >>> params["net.layer.weight"].shape, network.apply(params, "net", torch.zeros(3, 5, 4)).shape
    (torch.Size([3, 16, 4]), torch.Size([3, 5, 16]))

    Attributes:
        create: makes a module with random parameters.
        module: one of them, whose parameters are not used.
        shape: of an observation; one of D numbers comes in for each.
        features: F, the width of what the module returns.
    """

    create: Callable[[], nn.Module]
    module: nn.Module
    shape: tuple[int, ...]
    features: int

    @property
    def memory(self) -> int:
        """Modules remember nothing."""
        return 0

    @classmethod
    def of(cls, module_class: ModuleClass, space: "Box", kwargs: Mapping[str, Any]) -> "ModuleNetwork":
        """The network that a class describes.

        Args:
            module_class: called as ``module_class(space, **kwargs)``.
            space: of observations.
            kwargs: further arguments.

        Raises:
            PgkitError: it cannot be made or applied, does not return ``(B, F)``, has no parameters, or has layers that
                work differently in training (Dropout, BatchNorm).
        """
        name = getattr(module_class, "__qualname__", repr(module_class))

        def create() -> nn.Module:
            return module_class(space, **kwargs)

        shape = tuple(space.shape)
        features = _try(create, name, shape)
        with torch.random.fork_rng(devices=[]):
            module = create()
        return cls(create, module, shape, features)

    def init(self, name: str, seeds: Sequence[int], stream: int) -> Params:
        """Make a module for each member, with PyTorch's generator seeded by the member's seed."""
        modules = []
        with torch.random.fork_rng(devices=[]):
            for seed in seeds:
                torch.manual_seed(stream_seed(seed, "weights", stream))
                modules.append(dict(self.create().named_parameters()))
        return {
            f"{name}.{leaf}": torch.stack([module[leaf].detach() for module in modules]).contiguous()
            for leaf in modules[0]
        }

    def apply(self, params: Params, name: str, x: Tensor) -> Tensor:
        """Apply each member's module to its observations: ``(P, B, D) -> (P, B, F)``."""
        leaves = {leaf: params[f"{name}.{leaf}"].unbind(0) for leaf, _ in self.module.named_parameters()}
        module = self.module.to(x.device)
        features = [
            functional_call(
                module, {leaf: rows[k] for leaf, rows in leaves.items()}, (member.unflatten(1, self.shape),)
            )
            for k, member in enumerate(x.unbind(0))
        ]
        return torch.stack(features)


def _try(create: Callable[[], nn.Module], name: str, shape: tuple[int, ...]) -> int:
    """Make a module and apply it to two observations of zeros; returns F.

    Raises:
        PgkitError: see :meth:`ModuleNetwork.of`.
    """
    problem = f"policy.network: {name}"
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            module = create()
            features = module(torch.zeros(2, *shape))
    except PgkitError:
        raise
    except Exception as error:
        raise PgkitError(f"{problem} for observations of shape {shape}: {describe_exception(error)}") from error
    if not isinstance(features, Tensor) or features.dim() != 2 or len(features) != 2:
        returned = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise PgkitError(f"{problem} must return features (B, F), got {returned} for B = 2")
    if not any(True for _ in module.parameters()):
        raise PgkitError(f"{problem} has no parameters")
    for part in module.modules():
        if isinstance(part, _DropoutNd) or (isinstance(part, _NormBase) and part.track_running_stats):
            layer = type(part).__name__
            raise PgkitError(
                f"{problem} has a {layer}, which works differently in training: its members' results would depend on "
                "more than their parameters; LayerNorm and GroupNorm do not"
            )
    return int(features.shape[1])
