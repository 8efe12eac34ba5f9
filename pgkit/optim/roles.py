"""The place of each leaf in a policy's networks, by its name: some optimizers treat hidden matrices differently."""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from functools import lru_cache

from torch import Tensor

from pgkit.errors import PgkitError
from pgkit.optim.base import ExtraArgs, MemberValues, Transform
from pgkit.types import Params

Role = str
"""``"first"``: the weight of a layer that sees observations; ``"head"``: of a layer whose outputs are a policy's or
value's; ``"hidden"``: of the layers in between; ``"other"``: every other leaf, such as a bias or a gain."""

HIDDEN: frozenset[Role] = frozenset({"hidden"})
NOT_HIDDEN: frozenset[Role] = frozenset({"first", "head", "other"})

_BODIES = ("trunk", "network", "actor.network", "critic.network")
"""Networks whose last layer is followed by those of actor or critic."""


class LeafSubset(dict[str, Tensor]):
    """Some leaves of a tree, which know the names of all: an optimizer of some parameters has to know the others'.

    Args:
        leaves: by name.
        tree: the names of all leaves of the tree.
    """

    def __init__(self, leaves: Mapping[str, Tensor], tree: Collection[str]) -> None:
        super().__init__(leaves)
        self.tree = tree


def roles_of(params: Params) -> Mapping[str, Role]:
    """The role of each leaf; those of a :class:`LeafSubset` have the roles that they have in the whole tree.

    >>> import torch
    >>> leaf = torch.zeros(1, 8, 8)
    >>> roles = roles_of({f"actor.{layer}.weight": leaf for layer in range(3)} | {"actor.1.bias": leaf})
    >>> roles["actor.0.weight"], roles["actor.1.weight"], roles["actor.2.weight"], roles["actor.1.bias"]
    ('first', 'hidden', 'head', 'other')

    Only numbered layers ``(P, in, out)`` of pgkit's MLPs are first, hidden or head. The leaves of a GRU, of a CNN and
    of a module of one's own are "other".
    """
    return _roles_by_name(tuple(params.tree if isinstance(params, LeafSubset) else params))


@lru_cache
def _roles_by_name(names: tuple[str, ...]) -> Mapping[str, Role]:
    return {name: _role(name, names) for name in names}


def _role(name: str, names: Collection[str]) -> Role:
    """The role of one leaf of a tree with these names."""
    layer = re.fullmatch(r"(.+)\.(\d+)\.weight", name)
    if layer is None or "network." in layer[1]:  # the weights of a module inside a network are (out, in)
        return "other"
    network, index = layer[1], int(layer[2])
    if network not in _BODIES and f"{network}.{index + 1}.weight" not in names:
        return "head"
    bodies = ("trunk.", "network.", f"{network}.network.") if network in ("actor", "critic") else ()
    return "hidden" if index or any(other.startswith(bodies) for other in names) else "first"


def check_hidden(transforms: Iterable[Transform], params: Params) -> None:
    """Refuse transforms for hidden matrices where the whole policy has none: they would do nothing, in silence.

    A group of parameters without one is fine, such as biases that need another rate.

    Raises:
        PgkitError: see above.
    """
    if any(part.roles == HIDDEN for part in transforms) and not HIDDEN.intersection(roles_of(params).values()):
        raise PgkitError(
            "an optimizer such as muon is for hidden matrices, and the policy has none: give policy.hidden two layers "
            "or more, such as [64, 64], or take an optimizer for all parameters, such as adamw"
        )


def for_roles(roles: frozenset[Role], transforms: Iterable[Transform], prefix: str = "") -> list[Transform]:
    """The same transforms for leaves of these roles alone, with ``prefix`` before the names of hyperparameters."""
    return [replace(_prefixed(part, prefix), roles=roles) for part in transforms]


def _prefixed(transform: Transform, prefix: str) -> Transform:
    def precompute(hyper: MemberValues, member: MemberValues, extra_args: ExtraArgs) -> MemberValues:
        of_transform = {name.removeprefix(prefix): value for name, value in hyper.items() if name.startswith(prefix)}
        return transform.precompute(of_transform, member, extra_args)

    hyperparameters = {f"{prefix}{name}": value for name, value in transform.hyperparameters.items()}
    return replace(transform, precompute=precompute, hyperparameters=hyperparameters)
