"""Exact resumption of Gymnasium environments: repeat the last reset and the actions since.

Copying or pickling an environment loses state that lives in other libraries (Box2D's world, for one) and silently gives
another episode. What works for every environment whose episode is a function of its random generator and its actions:
set the generator to its state before the last reset, reset, and repeat the actions.

:func:`replay_problem` tries beforehand whether an environment can be resumed so, :func:`replay` does it and checks that
the last observation and the sum of rewards are the same to the last bit.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

from pgkit.envs.action_masks import find_masks
from pgkit.envs.actions import action_rows
from pgkit.envs.observations import ObsFlattener, obs_flattener
from pgkit.envs.seeding import reset_with_seed
from pgkit.errors import PgkitError, describe_exception

if TYPE_CHECKING:
    from gymnasium import Env

GeneratorState = Mapping[str, Any]
"""``np_random.bit_generator.state`` of an environment; empty if ``np_random`` is no ``numpy.random.Generator``."""

_TRIAL_STEPS = 40
_EARLIER_STEPS = 8


class NotReproduced(PgkitError):
    """A replay ended in another observation, reward or flag than the original episode."""


@dataclass
class EnvHistory:
    """What one environment has done since its last reset.

    Attributes:
        seed: the seed that it was last reset with, perhaps several resets ago.
        generator: state of its generator right before its last reset; None if that reset had the seed.
        actions: the actions since, as the environment received them.
        obs: ``(D,)`` float32, the last observation.
        total: sum of the rewards since, each rounded to float32.
        over: whether the episode has ended, so that the next step is a reset.
    """

    seed: int
    generator: GeneratorState | None
    actions: list[Any]
    obs: np.ndarray
    total: float
    over: bool


def generator_state(env: "Env[Any, Any]") -> GeneratorState:
    """The present state of an environment's random generator; empty unless it is a ``numpy.random.Generator``."""
    try:
        generator = getattr(env.unwrapped, "np_random", None)
    except Exception:  # a property of the environment's, which nothing but resuming asks for
        return {}
    return generator.bit_generator.state if isinstance(generator, np.random.Generator) else {}


def replay(env: "Env[Any, Any]", history: EnvHistory, flatten: ObsFlattener, name: str) -> None:
    """Bring a new instance of an environment to where a history ends.

    Raises:
        NotReproduced: it ends in another observation, sum of rewards, or flag.
    """
    obs = reset_with_seed(env, history.seed)[0]
    if history.generator is not None:
        if history.generator:
            cast(Any, env.unwrapped.np_random.bit_generator).state = history.generator
        obs = env.reset()[0]
    total = 0.0
    over = False
    for action in action_rows(env.action_space, np.asarray(history.actions)):
        obs, reward, terminated, truncated, _ = env.step(action)
        total += float(np.float32(reward))
        over = bool(terminated or truncated)
    # Bytes are compared, because NaN is not equal to itself and -0.0 is equal to 0.0.
    replayed = (_as_row(flatten, obs).tobytes(), np.float64(total).tobytes(), over)
    if replayed != (history.obs.tobytes(), np.float64(history.total).tobytes(), history.over):
        raise NotReproduced(
            f"environment {name!r} did not come back as it was: repeating its last reset and the "
            f"{len(history.actions)} actions since gave another result, so its episodes depend on more than its "
            "generator np_random and its actions"
        )


def replay_problem(create: Callable[[], "Env[Any, Any]"], name: str) -> str | None:
    """Try whether an environment can be replayed exactly.

    There is never more than one instance at a time, because of some simulators there cannot be.

    Args:
        create: makes an instance.
        name: name of the environment, for the message.

    Returns:
        None if the first episode and a later one of one instance are reproduced by another one, and both continue
        alike. Otherwise one line that says what went wrong.
    """
    try:
        with closing(create()) as first:
            flatten = obs_flattener(first.observation_space)
            seeded, history = _trial_histories(first, flatten)
            next_obs = _as_row(flatten, first.reset()[0]).tobytes()
        with closing(create()) as second:
            replay(second, seeded, flatten, name)
            replay(second, history, flatten, name)
            if not history.generator:
                return (
                    f"environment {name!r} has no numpy.random.Generator as np_random, so its resets cannot be repeated"
                )
            pack_histories([history])  # what a checkpoint does
            if next_obs != _as_row(flatten, second.reset()[0]).tobytes():
                return f"environment {name!r} continues differently after a repeated episode"
        return None
    except NotReproduced as error:
        return str(error)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever the environment raises, training itself will meet it
        return f"environment {name!r} failed in a trial: {describe_exception(error)}"


def _trial_histories(env: "Env[Any, Any]", flatten: ObsFlattener) -> tuple[EnvHistory, EnvHistory]:
    """Act at random in a few episodes of an environment; the histories of the first, which has the seed, and the last.

    An environment that remembers earlier episodes has one more of them than when those two are replayed, and so is
    caught.
    """
    env.action_space.seed(0)
    actions = [env.action_space.sample() for _ in range(_EARLIER_STEPS + _TRIAL_STEPS)]
    earlier = actions[:_EARLIER_STEPS]
    seeded = _act(env, flatten, None, earlier)
    _act(env, flatten, generator_state(env), earlier)
    env.reset()
    return seeded, _act(env, flatten, generator_state(env), actions[_EARLIER_STEPS:])


def _act(
    env: "Env[Any, Any]", flatten: ObsFlattener, generator: GeneratorState | None, actions: list[Any]
) -> EnvHistory:
    """Reset an environment, with a seed if ``generator`` is None, and act, as its masks allow; what it has done."""
    from gymnasium.spaces import Discrete, MultiDiscrete

    obs, info = env.reset() if generator is not None else reset_with_seed(env, 1)
    masks = find_masks(env, info) if isinstance(env.action_space, (Discrete, MultiDiscrete)) else None
    history = EnvHistory(1, generator, [], np.empty(0), 0.0, False)
    for action in actions:
        if masks is not None:
            action = masks.keep_to(env.action_space, action, masks.read(obs, info))
        obs, reward, terminated, truncated, info = env.step(action)
        history.actions.append(action)
        history.total += float(np.float32(reward))
        history.over = bool(terminated or truncated)
        if history.over:
            break
    history.obs = _as_row(flatten, obs)
    return history


def _as_row(flatten: ObsFlattener, obs: Any) -> np.ndarray:
    return np.asarray(flatten(obs), dtype=np.float32)


def pack_histories(histories: Sequence[EnvHistory]) -> dict[str, Tensor]:
    """Histories of k environments as tensors of leading axis k, so that rows can be taken as of parameters.

    Generator states are JSON texts padded with blanks. Actions are padded with zeros to the longest episode, and
    ``steps`` says how many of them are real.
    """
    count = len(histories)
    texts = [json.dumps(history.generator, default=np.ndarray.tolist).encode() for history in histories]
    generators = np.full((count, max(map(len, texts), default=0)), ord(" "), dtype=np.uint8)
    for row, text in zip(generators, texts, strict=True):
        row[: len(text)] = np.frombuffer(text, dtype=np.uint8)
    episodes = [np.asarray(history.actions) for history in histories]
    longest = max(episodes, key=len, default=np.zeros(0, dtype=np.int64))
    actions = np.zeros((count, *longest.shape), dtype=longest.dtype if len(longest) else np.int64)
    for row, episode in zip(actions, episodes, strict=True):
        if len(episode):  # an empty list has no action shape
            row[: len(episode)] = episode
    seeds = np.array([history.seed for history in histories], dtype=np.uint64)
    return {
        "seed": torch.from_numpy(seeds.view(np.int64)),
        "generator": torch.from_numpy(generators),
        "steps": torch.tensor([len(episode) for episode in episodes], dtype=torch.int64),
        "actions": torch.from_numpy(actions),
        "obs": torch.from_numpy(np.array([history.obs for history in histories], dtype=np.float32)),
        "total": torch.tensor([history.total for history in histories], dtype=torch.float64),
        "over": torch.tensor([history.over for history in histories], dtype=torch.bool),
    }


def unpack_histories(state: Mapping[str, Tensor]) -> list[EnvHistory]:
    """The inverse of :func:`pack_histories`."""
    columns = {name: column.cpu().numpy() for name, column in state.items()}
    histories = []
    for k, seed in enumerate(columns["seed"].view(np.uint64).tolist()):
        actions = columns["actions"][k, : columns["steps"][k]]
        history = EnvHistory(
            seed=seed,
            generator=json.loads(columns["generator"][k].tobytes()),
            actions=list(actions),
            obs=columns["obs"][k],
            total=float(columns["total"][k]),
            over=bool(columns["over"][k]),
        )
        histories.append(history)
    return histories
