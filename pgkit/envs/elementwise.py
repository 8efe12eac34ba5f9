"""K environments whose step is written for one: compiled on CPU, tensor operations elsewhere.

All that is common to such environments is here: random streams, episodes and time limits, actions, saving. What is
particular to one is an :class:`pgkit.envs.definition.EnvDefinition`.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import repeat
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pgkit.compiler.control_flow import lazy_where
from pgkit.compiler.lazy import lazy_kernel
from pgkit.envs import pcg64
from pgkit.envs.action_inputs import ActionInput, action_input
from pgkit.envs.actions import check_action
from pgkit.envs.base import Elementwise, EnvInfo, Transition, check_seeds
from pgkit.envs.definition import EnvDefinition, Layout, Random, as_number, check_definition
from pgkit.envs.pcg64 import EMPTY, PCG64
from pgkit.errors import PgkitError
from pgkit.system.cpu import use_compiled

_compile = lazy_kernel("pgkit.compiler.elementwise:compile_elementwise")

_INCREMENTS = (torch.int64, torch.int64)
"""The constants of an environment: the increment of its generator."""


class ElementwiseEnvs:
    """K environments on tensors, with "next_step" autoreset; see :class:`pgkit.envs.Environments`.

    After the same seed, an environment draws what Gymnasium's ``np_random`` would. No step reads a value from a GPU, so
    steps are queued there without waiting.

    Args:
        definition: of one environment.
        name: its id.
        num_envs: K.
        max_episode_steps: time limit in steps, after which an episode is truncated; None for the definition's.
        device: device of the state and of all tensors.
        rescale_actions: rescale components of Box actions as :mod:`pgkit.envs.rescale` says.
        squash_actions: take actions before tanh, as :mod:`pgkit.envs.squash` says.

    Raises:
        PgkitError: a function of the definition cannot be compiled, or their results do not fit together.

    Example:
        >>> import torch
        >>> from pgkit.envs.cartpole import cartpole
        >>> from pgkit.envs.elementwise import ElementwiseEnvs
        >>> envs = ElementwiseEnvs(cartpole(), "CartPole-v1", num_envs=3)
        >>> envs.reset([0, 1, 2]).shape
        torch.Size([3, 4])
        >>> envs.step(torch.tensor([0, 1, 1])).reward
        tensor([1., 1., 1.])
    """

    def __init__(
        self,
        definition: EnvDefinition,
        name: str,
        num_envs: int,
        max_episode_steps: int | None = None,
        device: torch.device | str = "cpu",
        rescale_actions: bool = False,
        squash_actions: bool = False,
    ) -> None:
        device = torch.device(device)
        limit = max_episode_steps or definition.max_episode_steps
        self._action, action_space = action_input(definition.action_space, name, rescale_actions, squash_actions)
        layout = check_definition(definition, name)
        self._columns = _columns(layout)
        self._program = _step_of_one(definition, layout, self._action, limit)
        self._loop: Callable[..., None] | None = None
        self._table = _Table.zeros(self._columns.dtypes, num_envs, device)
        self._increments = torch.zeros(2, num_envs, dtype=torch.int64, device=device)
        self._was_reset = False
        self.info = EnvInfo(
            name=name,
            num_envs=num_envs,
            obs_dim=definition.obs_dim,
            action_space=action_space,
            autoreset="next_step",
            max_episode_steps=limit,
            backend="pgkit",
            vectorization="native",
            device=device,
            can_step_subset=True,
        )
        self.elementwise = Elementwise(
            self._program, state=self._table.columns(), constants=list(self._increments.unbind(0))
        )

    def reset(self, seeds: Sequence[int], index: Tensor | None = None) -> Tensor:
        generators = pcg64.seeded(check_seeds(seeds, index, self.info.num_envs))
        columns = slice(None) if index is None else index
        generator = torch.stack(generators).to(self.info.device)
        self._increments[:, columns] = generator[2:]
        state = self._table.columns()
        state[0][columns] = generator[0]
        state[1][columns] = generator[1]
        if self._columns.draws_integers:
            state[2][columns] = EMPTY
        state[-1][columns] = True  # the episode is over, so the next step is a reset
        self._was_reset = True
        return self._step(self._action.zeros(len(seeds), self.info.device), index).obs

    def step(self, action: Tensor, index: Tensor | None = None) -> Transition:
        check_action(action, self.info.num_envs if index is None else len(index), self._action.shape)
        if not self._was_reset:
            raise PgkitError(f"environment {self.info.name!r}: call reset(seeds) before the first step")
        return self._step(action, index)

    def state(self, index: Tensor | None = None) -> dict[str, Tensor]:
        columns = slice(None) if index is None else index
        tables = {_key(dtype): table for dtype, table in self._table.tables.items()}
        tables["increments"] = self._increments
        return {name: table[:, columns].T.contiguous() for name, table in tables.items()}

    def restore(self, state: Mapping[str, Tensor], index: Tensor | None = None) -> None:
        columns = slice(None) if index is None else index
        tables = {_key(dtype): table for dtype, table in self._table.tables.items()}
        tables["increments"] = self._increments
        shapes = {name: len(table) for name, table in tables.items()}
        if shapes != {name: saved.shape[1] if saved.ndim == 2 else None for name, saved in state.items()}:
            raise PgkitError(f"environment {self.info.name!r}: saved with another state than this version of it has")
        for name, table in tables.items():
            table[:, columns] = state[name].T.to(self.info.device)
        self._was_reset = True

    def close(self) -> None:
        pass

    def _step(self, action: Tensor, index: Tensor | None) -> Transition:
        table = self._table
        increments = self._increments
        if index is not None:
            table = table.select(index)
            increments = increments.index_select(1, index)
        compiled = use_compiled(torch.float64, self.info.device)
        step = self._compiled_step if compiled else self._tensor_step
        transition = step(action, table, increments)
        if index is not None:
            self._table.put(index, table)
        return transition

    def _tensor_step(self, action: Tensor, table: "_Table", increments: Tensor) -> Transition:
        """Step all columns of the table, which changes in place."""
        results = self._program(*self._action.columns(action), *table.columns(), *increments.unbind(0))
        state, (*obs, reward, terminated, truncated, valid) = _split(results, len(self._columns.dtypes))
        table.write(state)
        return Transition(torch.stack(obs, -1), reward, terminated, truncated, valid)

    def _compiled_step(self, action: Tensor, table: "_Table", increments: Tensor) -> Transition:
        """The same in one compiled loop over the columns."""
        action = self._action.checked(action)
        num_envs = increments.shape[1]
        obs = torch.empty(num_envs, self.info.obs_dim)
        reward = torch.empty(num_envs)
        flags = torch.empty(3, num_envs, dtype=torch.bool)
        if self._loop is None:
            self._loop = _compile(self._program, *self._column_types())
        state = table.addresses()
        outputs = [*_addresses(obs, axis=1), reward.data_ptr(), *_addresses(flags, axis=0)]
        inputs = [*self._action.addresses(action), *state, *_addresses(increments, axis=0)]
        self._loop(num_envs, *inputs, *state, *outputs)
        return Transition(obs, reward, *flags.unbind(0))

    def _column_types(self) -> tuple[tuple[tuple[torch.dtype, int], ...], ...]:
        """Types and strides of the columns that a compiled step reads, and of those that it writes."""
        state = tuple((dtype, 1) for dtype in self._columns.dtypes)
        features = self.info.obs_dim
        inputs = (*self._action.column_types, *state, *((dtype, 1) for dtype in _INCREMENTS))
        outputs = (*state, *((torch.float32, features),) * features, (torch.float32, 1), *((torch.bool, 1),) * 3)
        return inputs, outputs


class _Columns(NamedTuple):
    """The numbers that a step changes: generator, steps of the episode, the definition's state, whether it is over.

    Attributes:
        dtypes: of all of them.
        draws_integers: whether the generator has a buffer as its third number.
    """

    dtypes: tuple[torch.dtype, ...]
    draws_integers: bool


def _columns(layout: Layout) -> _Columns:
    generator = (torch.int64,) * (3 if layout.draws_integers else 2)
    return _Columns((*generator, torch.int64, *layout.dtypes, torch.bool), layout.draws_integers)


class _Table(NamedTuple):
    """Columns ``(K,)`` of several dtypes: the rows of one matrix for each dtype.

    Attributes:
        dtypes: of the columns.
        rows: of each column in the matrix of its dtype.
        tables: the matrices.
    """

    dtypes: tuple[torch.dtype, ...]
    rows: tuple[int, ...]
    tables: dict[torch.dtype, Tensor]

    @classmethod
    def zeros(cls, dtypes: tuple[torch.dtype, ...], num_envs: int, device: torch.device) -> "_Table":
        rows = tuple(dtypes[:position].count(dtype) for position, dtype in enumerate(dtypes))
        tables = {
            dtype: torch.zeros(dtypes.count(dtype), num_envs, dtype=dtype, device=device)
            for dtype in dict.fromkeys(dtypes)
        }
        return cls(dtypes, rows, tables)

    def columns(self) -> list[Tensor]:
        rows = {dtype: table.unbind(0) for dtype, table in self.tables.items()}
        return [rows[dtype][row] for dtype, row in zip(self.dtypes, self.rows, strict=True)]

    def addresses(self) -> list[int]:
        """Addresses of the columns."""
        first = {
            dtype: (table.data_ptr(), table.shape[1] * table.element_size()) for dtype, table in self.tables.items()
        }
        return [first[dtype][0] + row * first[dtype][1] for dtype, row in zip(self.dtypes, self.rows, strict=True)]

    def write(self, columns: Sequence[Tensor]) -> None:
        """Overwrite the columns."""
        for dtype, table in self.tables.items():
            torch.stack(
                [column for column, other in zip(columns, self.dtypes, strict=True) if other == dtype], out=table
            )

    def select(self, index: Tensor) -> "_Table":
        """A copy of some environments' numbers."""
        return self._replace(tables={dtype: table.index_select(1, index) for dtype, table in self.tables.items()})

    def put(self, index: Tensor, part: "_Table") -> None:
        """Write the numbers of some environments back."""
        for dtype, table in self.tables.items():
            table.index_copy_(1, index, part.tables[dtype])


@lru_cache(maxsize=256)
def _step_of_one(
    definition: EnvDefinition, layout: Layout, action_input: ActionInput, limit: int | None
) -> Callable[..., list[Any]]:
    """The step of one environment, see :class:`pgkit.envs.base.Elementwise`, on tensors or traced scalars.

    Cached, because compiled code is cached by the identity of the function that it was traced from.
    """

    def step(*numbers: Any) -> list[Any]:
        arguments, rest = _split(numbers, action_input.count)
        *before, increment_high, increment_low = rest
        generator_before, (steps, *state, over) = _split(before, 3 if layout.draws_integers else 2)

        def random_before() -> Random:
            high, low, *buffer = generator_before
            return Random(PCG64(high, low, increment_high, increment_low), *buffer)

        random = random_before()
        maybe_random = [random] if definition.has_random_steps else []
        after, reward, terminated = definition.step(layout.pack(state), action_input.convert(arguments), *maybe_random)
        stepped = [*map(as_number, after, layout.dtypes, repeat(over))]

        def reset() -> list[Any]:
            # The step is ignored where a reset follows, with all that it has drawn.
            random = random_before()
            fresh = definition.reset(random)
            return [*_numbers(random, layout), *map(as_number, fresh, layout.dtypes, repeat(over))]

        chosen = lazy_where(over, reset, [*_numbers(random, layout), *stepped])
        generator, state = _split(chosen, len(generator_before))
        steps = torch.where(over, 0, steps + 1)
        valid = ~over
        terminated = as_number(terminated, torch.bool, over) & valid
        truncated = steps >= limit if limit is not None else over & ~over
        reward = torch.where(over, 0.0, as_number(reward, torch.float32, over))
        obs = [as_number(value, torch.float32, over) for value in definition.observe(layout.pack(state))]
        return [*generator, steps, *state, terminated | truncated, *obs, reward, terminated, truncated, valid]

    return step


def _numbers(random: Random, layout: Layout) -> list[Any]:
    """The numbers of a generator that draws change."""
    return [*random.generator[:2], *([random.buffer] if layout.draws_integers else [])]


def _split(values: Sequence[Any], count: int) -> tuple[list[Any], list[Any]]:
    return list(values[:count]), list(values[count:])


def _key(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _addresses(tensor: Tensor, axis: int) -> list[int]:
    """Addresses of the slices of a tensor along an axis. Making a view of each would take longer than the step."""
    first = tensor.data_ptr()
    stride = tensor.stride(axis) * tensor.element_size()
    return [first + stride * i for i in range(tensor.shape[axis])]
