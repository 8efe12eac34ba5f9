"""A point mass in A dimensions with Box actions, whose step is compiled; A = 1 or more."""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from torch import Tensor

from pgkit.compiler.elementwise import compile_elementwise
from pgkit.envs.actions import check_action
from pgkit.envs.base import Elementwise, EnvInfo, Transition
from pgkit.seeding import uniform
from pgkit.system.cpu import use_compiled
from pgkit.training import population

POSITION_LIMIT = 1.5


class PointMass:
    """K environments with "next_step" autoreset: push the mass to the origin; too far away the episode terminates.

    The state of an environment is a column of a table: steps, resets, A positions, A velocities.
    """

    def __init__(self, num_envs: int, components: int = 1, max_episode_steps: int = 50) -> None:
        self.components = components
        self.info = EnvInfo(
            name="PointMass-v0",
            num_envs=num_envs,
            obs_dim=2 * components,
            action_space=Box(-1.0, 1.0, (components,)),
            autoreset="next_step",
            max_episode_steps=max_episode_steps,
            backend="pgkit",
            vectorization="native",
            device=torch.device("cpu"),
            can_step_subset=True,
        )
        self.keys = torch.zeros(num_envs, dtype=torch.int64)
        self.table = torch.zeros(2 + 2 * components, num_envs)
        self.over = torch.zeros(num_envs, dtype=torch.bool)
        step = element_step(components, max_episode_steps)
        self.elementwise = Elementwise(step, state=[*self.table, self.over], constants=[self.keys])

    def reset(self, seeds: Sequence[int], index: Tensor | None = None) -> Tensor:
        columns = slice(None) if index is None else index
        self.keys[columns] = torch.from_numpy(np.array(seeds, dtype=np.uint64).view(np.int64))
        self.table[:, columns] = 0.0
        self.over[columns] = True  # the first step resets
        return self.step(torch.zeros(len(seeds), self.components), index).obs

    def step(self, action: Tensor, index: Tensor | None = None) -> Transition:
        count = self.info.num_envs if index is None else len(index)
        check_action(action, count, (self.components,))
        columns = torch.arange(count) if index is None else index
        state = [*self.table[:, columns].unbind(0), self.over[columns], self.keys[columns]]
        numbers = [*action.unbind(1), *state]
        step = self.elementwise.step
        results = compiled(step, numbers) if use_compiled(torch.float32, self.info.device) else step(*numbers)
        rows = len(self.table)
        self.table[:, columns] = torch.stack(results[:rows])
        self.over[columns] = results[rows]
        obs = torch.stack(results[rows + 1 : -4], 1)
        return Transition(obs, *results[-4:])

    def state(self, index: Tensor | None = None) -> dict[str, Tensor]:
        columns = slice(None) if index is None else index
        return {"keys": self.keys[columns], "table": self.table.T[columns].contiguous(), "over": self.over[columns]}

    def restore(self, state: Mapping[str, Tensor], index: Tensor | None = None) -> None:
        columns = slice(None) if index is None else index
        self.keys[columns] = state["keys"]
        self.table[:, columns] = state["table"].T
        self.over[columns] = state["over"]

    def close(self) -> None:
        pass


@lru_cache
def element_step(components: int, limit: int) -> Callable[..., list[Any]]:
    """The step of one environment, see :class:`Elementwise`."""

    def step(*numbers: Any) -> list[Any]:
        action = numbers[:components]
        steps, resets, *moving, over, key = numbers[components:]
        starts = [uniform(key, resets.to(torch.int64) * components + k) - 0.5 for k in range(components)]
        forces = [torch.clamp(force, -1.0, 1.0) for force in action]
        speeds = [speed * 0.8 + force * 0.2 for speed, force in zip(moving[components:], forces, strict=True)]
        places = [place + speed * 0.2 for place, speed in zip(moving[:components], speeds, strict=True)]
        reward = 1.0 - places[0] * places[0]
        for force in forces:
            reward = reward - force * force * 0.01
        valid = ~over
        steps = torch.where(over, 0.0, steps + 1.0)
        resets = torch.where(over, resets + 1.0, resets)
        places = [torch.where(over, start, place) for start, place in zip(starts, places, strict=True)]
        speeds = [torch.where(over, 0.0, speed) for speed in speeds]
        terminated = valid & (torch.abs(places[0]) > POSITION_LIMIT)
        truncated = valid & (steps >= limit)
        state = [steps, resets, *places, *speeds, terminated | truncated]
        return [*state, *places, *speeds, torch.where(valid, reward, 0.0), terminated, truncated, valid]

    return step


def compiled(step: Callable[..., list[Any]], numbers: Sequence[Tensor]) -> list[Tensor]:
    """``step(*numbers)`` as a compiled loop."""
    numbers = [number.contiguous() for number in numbers]
    rows = (len(numbers) - 3) // 3  # A actions, 2 + 2 A numbers of the table, over, key
    obs = numbers[rows + 2 : -2]
    results = [torch.empty_like(number) for number in (*numbers[rows:-1], *obs, obs[0], *[numbers[-2]] * 3)]
    inputs = tuple((number.dtype, 1) for number in numbers)
    outputs = tuple((number.dtype, 1) for number in results)
    kernel = _kernel(step, inputs, outputs)
    kernel(len(numbers[0]), *(tensor.data_ptr() for tensor in (*numbers, *results)))
    return results


_kernel = lru_cache(compile_elementwise)


def use_point_mass(patch: pytest.MonkeyPatch, components: int = 1) -> None:
    """From now on, populations act in point masses, whatever environment their configurations name."""

    def make(env_id: str, num_envs: int, **settings: Any) -> PointMass:
        return PointMass(num_envs, components, settings["max_episode_steps"] or 50)

    patch.setattr(population, "make_envs", make)
    patch.setattr(population, "resolve_backend", lambda *arguments: "pgkit")  # as many as evaluations want
