"""LunarLander-v3 as compiled code, to the bit as in Gymnasium; see README.md."""

from pgkit.envs.lunarlander.environment import LunarLander

__all__ = ["LunarLander"]
