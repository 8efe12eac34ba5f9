"""From a run directory, or the file of a policy, to a policy that one can use."""

import tomllib
from pathlib import Path

from torch import Tensor

from pgkit.config.device import resolve_device
from pgkit.config.load import parse_config
from pgkit.config.schema import TrainConfig
from pgkit.deploy.policy import TrainedPolicy
from pgkit.deploy.spaces import find_spaces
from pgkit.errors import PgkitError
from pgkit.runs.directory import as_directory, find_run
from pgkit.runs.reader import find_member, saved_members
from pgkit.runs.writer import labels
from pgkit.system.process_state import isolated_process
from pgkit.system.tensor_files import load_tensors
from pgkit.training.build_policy import build_policy
from pgkit.tree import map_tree
from pgkit.types import Params

POLICY = "policy.safetensors"
"""The policy in a folder that ``pgkit export`` wrote."""


def load(
    run: str | Path, member: str | int | None = None, best: bool = False, seed: int = 0, device: str = "cpu"
) -> TrainedPolicy:
    """Load one trained policy.

    >>> import pgkit
    >>> policy = pgkit.load("runs/cartpole-ppo", member=3)  # doctest: +SKIP
    >>> policy = pgkit.load(pgkit.pretrained.path("cartpole-ppo"))
    >>> action, _ = policy.predict([0.0, 0.0, 0.1, 0.5], deterministic=True)
    >>> int(action)  # push the cart to the right
    1

    Args:
        run: a run directory, its name below ``runs/``, a folder that ``pgkit export`` wrote, or a file that
            :meth:`TrainedPolicy.save` wrote.
        member: which of several: a seed, or a label such as ``"seed-3"``. A run with one member needs none.
        best: take the member as it was at its best evaluation during training, instead of the latest checkpoint.
        seed: of sampled actions.
        device: where to compute.

    Raises:
        PgkitError: there is no such run or file, it cannot be read, its environment cannot be created, or the run has
            several members and none is named.
    """
    as_directory(run)  # refuses what is no path
    with isolated_process():
        file = Path(run, POLICY) if Path(run, POLICY).is_file() else Path(run)
        if file.suffix == ".safetensors":
            if member is not None or best:
                raise PgkitError(f"{run} is one policy: member and best have no effect")
            config, params, obs_stats = _read_file(file)
            source = as_directory(run).name
        else:
            directory = find_run(str(run))
            configs, all_params, all_stats = saved_members(as_directory(directory), best)
            names = labels(configs)
            index = find_member(directory, names, [each.seed for each in configs], member)
            config = configs[index]
            params, obs_stats = map_tree(lambda leaf: leaf[index : index + 1].clone(), (all_params, all_stats))
            source = f"{directory}, {names[index]}"
        policy = _assemble(config, params, obs_stats, source, device)
        policy.set_random_seed(seed)
        return policy


def _assemble(
    config: TrainConfig, params: Params, obs_stats: dict[str, Tensor], source: str, device: str
) -> TrainedPolicy:
    """Put a policy together from one member's parameters, leaves ``(1, ...)``."""
    target = resolve_device(device)
    spaces = find_spaces(config, target)
    params, obs_stats = map_tree(lambda leaf: leaf.to(target), (params, obs_stats))
    return TrainedPolicy(
        config=config,
        policy=build_policy(config, spaces.info),
        params=params,
        obs_stats=obs_stats if config.env.normalize_observations else None,
        spaces=spaces,
        source=source,
    )


def _read_file(path: Path) -> tuple[TrainConfig, Params, dict[str, Tensor]]:
    """Configuration, parameters and statistics, leaves ``(1, ...)``, of a file of :meth:`TrainedPolicy.save`."""
    tensors, texts = load_tensors(path)
    if "config" not in texts:
        raise PgkitError(f"{path} is no policy of pgkit: its metadata has no config")
    config = parse_config(tomllib.loads(texts["config"]), str(path))
    params, obs_stats = (
        {name.removeprefix(prefix): tensor[None] for name, tensor in tensors.items() if name.startswith(prefix)}
        for prefix in ("params.", "obs_stats.")
    )
    return config, params, obs_stats
