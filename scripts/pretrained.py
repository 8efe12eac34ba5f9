"""Train the policies that pgkit ships (``pgkit play``), or measure those that it ships.

``python scripts/pretrained.py`` trains each configuration below with its seeds, takes the member with the best final
evaluation, measures it on other episodes, and writes ``pgkit/pretrained/<name>.safetensors``.
``python scripts/pretrained.py --measure`` measures the stored files again and compares with what they say.
"""

import sys
import tempfile
from pathlib import Path

import pgkit
from pgkit import pretrained
from pgkit.deploy.policy import TrainedPolicy
from pgkit.rollouts.evaluate import EvalKey, evaluate_policy
from pgkit.runs import provenance
from pgkit.system.cpu import available_cpus, configure_cpu
from pgkit.system.tensor_files import read_metadata
from pgkit.training.population import build_evaluation_envs
from pgkit.training.result import evaluation_row

FOLDER = Path(pretrained.__file__).parent

CONFIGS = {"cartpole-ppo": 8, "lunarlander-ppo": 8}
"""Shipped configurations, and with how many seeds each is trained."""

EPISODES = 1000
"""Episodes of the measurement. They are not those that selected the member."""


def main(arguments: list[str]) -> int:
    """Train, or measure what is stored."""
    configure_cpu()
    if arguments == ["--measure"]:
        differing = [name for name in pretrained.names() if _measure_stored(name)]
        return int(bool(differing))
    for name, seeds in CONFIGS.items():
        with tempfile.TemporaryDirectory() as folder:
            _train(name, seeds, Path(folder, name))
    return 0


def _train(name: str, seeds: int, run: Path) -> None:
    """Train one configuration, and write the file of its best member."""
    config = pgkit.load_config(name, {"seeds": seeds})
    result = pgkit.train(config, run, progress=True, workers=min(available_cpus(), seeds))
    best = max(result.table, key=lambda row: row["return_mean"])
    policy = pgkit.load(run, member=best["seed"])
    versions = provenance.collect([])["versions"]
    texts = {
        "environment": config.env.id,
        "seed": str(best["seed"]),
        "return": measure(policy),
        "evaluation": "python scripts/pretrained.py --measure",
        "training": f"pgkit train {name} seeds={seeds}: the best final evaluation of {seeds}",
        "versions": ", ".join(f"{name} {number}" for name, number in versions.items() if number is not None),
    }
    policy.save(FOLDER / f"{name}.safetensors", texts)
    print(f"{name}: seed {best['seed']}, {texts['return']}")


def measure(policy: TrainedPolicy) -> str:
    """The mean return with sampled and with the most likely actions, on pgkit's own environment."""
    envs = build_evaluation_envs(policy.config, EPISODES, policy.spaces.info.device)
    parts = []
    for words, deterministic in (("sampled", False), ("most likely actions", True)):
        episodes = evaluate_policy(
            policy.policy,
            policy.params,
            envs,
            [EvalKey(policy.config.seed, 1)],
            EPISODES,
            stream="report",
            deterministic=deterministic,
            obs_stats=policy.obs_stats,
        )
        row = evaluation_row(episodes.returns[0], episodes.lengths[0])
        parts.append(f"{row['return_mean']:.1f} +- {row['return_std']:.1f} {words}")
    envs.close()
    return f"{', '.join(parts)} ({EPISODES:,} episodes)"


def _measure_stored(name: str) -> bool:
    """Print what a stored file says and what it reaches now; whether they differ."""
    path = pretrained.path(name)
    said = read_metadata(path)["return"]
    measured = measure(pgkit.load(path))
    print(f"{name}: {measured}" + ("" if measured == said else f", but the file says {said}"))
    return measured != said


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
