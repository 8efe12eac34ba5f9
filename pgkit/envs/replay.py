"""How Gymnasium environments go on after their process has ended: their last reset again, and the actions since.

Copying or pickling an environment loses state that lives in other libraries (a Box2D world) and silently gives another
episode. A reset that draws from the same generator state, followed by the same actions, gives the same numbers in every
environment whose episode is a function of these;
:func:`replay_problem` tries that beforehand, :func:`bring_back` checks it.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

from pgkit.errors import PgkitError

if TYPE_CHECKING:
    from gymnasium import Env

Generator = Mapping[str, Any]
"""``np_random.bit_generator.state``; empty for an environment that has none."""


class NotReproduced(PgkitError):
    """A replay that did not end where the environment had been."""


@dataclass
class EnvHistory:
    """One environment since its last reset.

    Attributes:
        seed: that it was last seeded with, at a reset.
        generator: state of its generator right before a last reset without seed; None if the last reset had one.
        actions: those since, as the environment got them.
        obs: ``(D,)`` float32, the last observation.
        total: sum of the rewards since, each rounded to float32.
        over: the episode has ended: the next step is a reset.
    """

    seed: int
    generator: Generator | None
    actions: list[Any]
    obs: np.ndarray
    total: float
    over: bool


def generator_of(env: "Env[Any, Any]") -> Generator:
    """The state of an environment's generator now."""
    generator = getattr(env.unwrapped, "np_random", None)
    return {} if generator is None else generator.bit_generator.state


def bring_back(env: "Env[Any, Any]", life: EnvHistory, flatten: Callable[[Any], np.ndarray], name: str) -> None:
    """Lead a new instance through a life.

    Raises:
        NotReproduced: it ends in another observation, reward or flag.
    """
    seen = env.reset(seed=life.seed)[0]
    if life.generator is not None:
        if life.generator:
            cast(Any, env.unwrapped.np_random.bit_generator).state = life.generator
        seen = env.reset()[0]
    total, over = 0.0, False
    for action in life.actions:
        seen, reward, terminated, truncated, _ = env.step(action)
        total, over = total + float(np.float32(reward)), terminated or truncated
    obs = np.asarray(flatten(seen), dtype=np.float32)
    same = (obs.tobytes(), np.float64(total).tobytes(), bool(over))
    if same != (life.obs.tobytes(), np.float64(life.total).tobytes(), life.over):
        raise NotReproduced(
            f"environment {name!r} did not come back as it was: its last reset and the {len(life.actions)} actions "
            "since, repeated, end elsewhere, so it is no function of its generator and its actions"
        )


def replay_problem(
    create: Callable[[], "Env[Any, Any]"], flatten: Callable[[Any], np.ndarray], name: str
) -> str | None:
    """None if a life is brought back and goes on alike in two new instances, else what went wrong, in one line."""
    first, second = create(), create()
    try:
        first.action_space.seed(0)
        actions = [first.action_space.sample() for _ in range(48)]
        first.reset(seed=1)
        for action in actions[:8]:
            if any(first.step(action)[2:4]):
                break
        first.reset()  # an environment that remembers its earlier episodes has more of them than its replay
        life = EnvHistory(1, generator_of(first), [], np.empty(0), 0.0, False)
        seen, _ = first.reset()
        for action in actions[8:]:
            seen, reward, terminated, truncated, _ = first.step(action)
            life.actions.append(action)
            life.total, life.over = life.total + float(np.float32(reward)), bool(terminated or truncated)
            if life.over:
                break
        life.obs = np.asarray(flatten(seen), dtype=np.float32)
        bring_back(second, life, flatten, name)
        if not life.generator:
            return f"environment {name!r} has no generator np_random, so its resets cannot be repeated"
        again = [np.asarray(flatten(env.reset()[0]), dtype=np.float32).tobytes() for env in (first, second)]
        return None if again[0] == again[1] else f"environment {name!r} goes on differently after a repeated episode"
    except NotReproduced as error:
        return str(error)
    except Exception as error:  # whatever the environment raises, training itself will meet it
        return f"environment {name!r} could not be tried: {type(error).__name__}: {' '.join(str(error).split())}"
    finally:
        first.close()
        second.close()


def pack(lives: Sequence[EnvHistory]) -> dict[str, Tensor]:
    """Lives as tensors of leading axis k: plain data whose rows can be taken like those of parameters.

    Generators are JSON texts, padded with blanks; actions are padded with zeros, ``steps`` counts those that are none.
    """
    count = len(lives)
    texts = [json.dumps(life.generator, default=np.ndarray.tolist).encode() for life in lives]
    generators = np.full((count, max(map(len, texts), default=0)), ord(" "), dtype=np.uint8)
    for row, text in zip(generators, texts, strict=True):
        row[: len(text)] = np.frombuffer(text, dtype=np.uint8)
    sequences = [np.asarray(life.actions) for life in lives]
    longest = max(sequences, key=len, default=np.zeros(0, dtype=np.int64))
    actions = np.zeros((count, *longest.shape), dtype=longest.dtype if len(longest) else np.int64)
    for k, sequence in enumerate(sequences):
        if len(sequence):
            actions[k, : len(sequence)] = sequence
    return {
        "seed": torch.from_numpy(np.array([life.seed for life in lives], dtype=np.uint64).view(np.int64)),
        "generator": torch.from_numpy(generators),
        "steps": torch.tensor([len(sequence) for sequence in sequences], dtype=torch.int64),
        "actions": torch.from_numpy(actions),
        "obs": torch.from_numpy(np.array([life.obs for life in lives], dtype=np.float32)),
        "total": torch.tensor([life.total for life in lives], dtype=torch.float64),
        "over": torch.tensor([life.over for life in lives], dtype=torch.bool),
    }


def unpack(state: Mapping[str, Tensor]) -> list[EnvHistory]:
    """The inverse of :func:`pack`."""
    columns = {name: column.cpu().numpy() for name, column in state.items()}
    lives = []
    for k, seed in enumerate(columns["seed"].view(np.uint64).tolist()):
        actions = columns["actions"][k, : columns["steps"][k]]
        lives.append(
            EnvHistory(
                seed=seed,
                generator=json.loads(columns["generator"][k].tobytes()),
                actions=actions.tolist() if actions.ndim == 1 else list(actions),
                obs=columns["obs"][k],
                total=float(columns["total"][k]),
                over=bool(columns["over"][k]),
            )
        )
    return lives
