"""Episodes of a trained policy in Gymnasium's own environment: in a window, or recorded to videos."""

import importlib.util
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pgkit.deploy.policy import TrainedPolicy
from pgkit.envs.action_masks import KEY
from pgkit.envs.errors import env_error
from pgkit.envs.make import find_spec, make_env
from pgkit.envs.registry import find_pgkit_env
from pgkit.envs.seeding import reset_with_seed
from pgkit.errors import PgkitError
from pgkit.seeding import stream_seed
from pgkit.system.files import absolute, as_write_error

if TYPE_CHECKING:
    from gymnasium import Env

SUFFIX = ".mp4"
"""Videos are of this type."""


class EpisodeShown(NamedTuple):
    """An episode that was shown.

    Attributes:
        total: undiscounted return.
        length: steps.
        video: its file; None in a window.
    """

    total: float
    length: int
    video: Path | None = None


def show_in_window(
    policy: TrainedPolicy, episodes: int, deterministic: bool = False, seed: int = 0
) -> list[EpisodeShown]:
    """Show episodes in a window, as fast as a human sees them.

    Args:
        policy: who acts.
        episodes: how many, at least 1.
        deterministic: take the most likely actions instead of sampled ones.
        seed: of the episodes, as in :func:`pgkit.evaluate_run`, whose initial states they have.

    Raises:
        PgkitError: Gymnasium does not have the environment, or cannot open a window.
        EnvError: the environment raised.
    """
    with _opened(policy, "human") as env:
        return list(_episodes(policy, env, episodes, deterministic, seed))


def record_video(
    policy: TrainedPolicy, path: str | Path, episodes: int = 1, deterministic: bool = False, seed: int = 0
) -> list[EpisodeShown]:
    """Record each episode with Gymnasium's ``RecordVideo``.

    >>> import pgkit
    >>> from pgkit.deploy.show import record_video
    >>> record_video(pgkit.load("runs/cartpole-ppo"), "cartpole.mp4")  # doctest: +SKIP

    Args:
        policy: who acts.
        path: of the video, ``.mp4``; of several episodes the files are ``<stem>-1.mp4``, ``<stem>-2.mp4``, ...
        episodes: as for :func:`show_in_window`, as are ``deterministic`` and ``seed``.

    Raises:
        PgkitError: moviepy is missing, the path does not end in ``.mp4`` or cannot be written, or as there.
    """
    target = check_video(path)
    from gymnasium.wrappers import RecordVideo

    with as_write_error(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        work = tempfile.TemporaryDirectory(dir=target.parent, prefix=".video-")
    with work as folder:
        with _opened(policy, "rgb_array") as env:
            recorder = RecordVideo(
                env, f"{folder}/frames", episode_trigger=lambda episode: True, name_prefix="video", disable_logger=True
            )
            shown = list(_episodes(policy, recorder, episodes, deterministic, seed))
            with as_write_error(target):
                recorder.close()  # type: ignore[no-untyped-call] # writes the last episode
        files = [target.with_stem(f"{target.stem}-{k + 1}") for k in range(episodes)] if episodes > 1 else [target]
        for k, file in enumerate(files):
            with as_write_error(file):
                Path(folder, "frames", f"video-episode-{k}{SUFFIX}").replace(file)
    return [episode._replace(video=file) for episode, file in zip(shown, files, strict=True)]


def check_video(path: str | Path) -> Path:
    """Check that videos can be recorded, and return the path as an absolute one.

    Raises:
        PgkitError: moviepy is missing, or the path does not end in ``.mp4``.
    """
    if importlib.util.find_spec("moviepy") is None:
        raise PgkitError("recording a video needs the package moviepy: pip install 'pgkit-rl[video]'")
    target = absolute(Path(path))
    if target.suffix != SUFFIX:
        raise PgkitError(f"the path of a video must end in {SUFFIX}, got {path}")
    return target


@contextmanager
def _opened(policy: TrainedPolicy, render_mode: str) -> "Iterator[Env[Any, Any]]":
    """Gymnasium's environment of a policy with such frames.

    Raises:
        PgkitError: there is none.
    """
    config = policy.config.env
    try:
        spec = find_spec(config.id)
    except PgkitError:
        if find_pgkit_env(config.id) is None:
            raise
        raise PgkitError(f"{config.id} cannot be shown: Gymnasium has no environment of that name") from None
    env = make_env(
        spec, {**config.kwargs, "render_mode": render_mode}, config.max_episode_steps, wrappers=config.wrappers
    )
    try:
        if env.render_mode != render_mode:
            raise PgkitError(f"{config.id} cannot be shown: it has no render_mode {render_mode!r}")
        yield env
    finally:
        env.close()


def _episodes(
    policy: TrainedPolicy, env: "Env[Any, Any]", episodes: int, deterministic: bool, seed: int
) -> Iterator[EpisodeShown]:
    for index in range(episodes):
        env_seed = stream_seed(policy.config.seed, "report_env", seed * episodes + index)
        obs, info = _call(policy, "reset()", partial(reset_with_seed, env, env_seed))
        state = None
        total = 0.0
        length = 0
        over = False
        while not over and length < policy.spaces.info.longest_episode:
            masks = info.get(KEY) if policy.config.env.action_mask else None
            action, state = policy.predict(obs, state, deterministic=deterministic, action_masks=masks)
            obs, reward, terminated, truncated, info = _call(policy, "step()", partial(env.step, action))
            total += float(reward)
            length += 1
            over = bool(terminated or truncated)
        yield EpisodeShown(total, length)


def _call(policy: TrainedPolicy, what: str, function: Callable[[], Sequence[Any]]) -> Sequence[Any]:
    """Call the environment; what it raises becomes one line."""
    try:
        return function()
    except (KeyboardInterrupt, PgkitError):
        raise
    except BaseException as error:
        if "video device" in str(error) or "display" in str(error).lower():
            raise PgkitError(
                f"a window cannot be opened here ({error}): --video FILE{SUFFIX} records instead"
            ) from None
        raise env_error(policy.config.env.id, what, error) from error
