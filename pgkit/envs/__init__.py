"""Environments: Gymnasium's, EnvPool's, and pgkit's own CartPole, all behind one protocol."""

from pgkit.envs.base import EnvInfo, Environments, Transition
from pgkit.envs.make import list_envs, make_envs, resolve_backend
from pgkit.envs.vector_env import wrap_vector_env

__all__ = ["EnvInfo", "Environments", "Transition", "list_envs", "make_envs", "resolve_backend", "wrap_vector_env"]
