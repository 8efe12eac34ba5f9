"""Environments: Gymnasium's, EnvPool's, and pgkit's own CartPole, all behind one protocol."""

from pgkit.envs.base import Environments, EnvInfo, Transition
from pgkit.envs.make import list_envs, make_envs, resolve_backend

__all__ = ["EnvInfo", "Environments", "Transition", "list_envs", "make_envs", "resolve_backend"]
