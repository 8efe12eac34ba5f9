"""Trained policies that pgkit ships: one safetensors file each, with configuration and provenance in its metadata.

``pgkit play`` shows them, ``pgkit.load(pgkit.pretrained.path(NAME))`` loads one; README.md says how they were made.

>>> from pgkit import pretrained
>>> pretrained.names()
['cartpole-ppo', 'lunarlander-ppo']
>>> pretrained.about("cartpole-ppo")["environment"]
'CartPole-v1'
"""

from pathlib import Path

from pgkit.errors import PgkitError, unknown_name
from pgkit.system.tensor_files import read_metadata

SUFFIX = ".safetensors"

KEYS = (
    "environment",
    "return",
    "evaluation",
    "training",
    "seed",
    "pgkit_version",
    "versions",
)
"""What the metadata of a file says beside its configuration, in the order in which it is shown."""


def names() -> list[str]:
    """The names of all shipped policies."""
    return sorted(file.name.removesuffix(SUFFIX) for file in Path(__file__).parent.glob(f"*{SUFFIX}"))


def path(name: str) -> Path:
    """The file of a shipped policy.

    Raises:
        PgkitError: there is none of that name.
    """
    if name not in names():
        raise PgkitError(unknown_name("pretrained policy", name, names()))
    return Path(__file__).with_name(f"{name}{SUFFIX}")


def about(name: str) -> dict[str, str]:
    """Where a shipped policy comes from and what it reaches: the texts of its file named in :data:`KEYS`.

    Raises:
        PgkitError: there is none of that name.
    """
    texts = read_metadata(path(name))
    return {key: texts[key] for key in KEYS if key in texts}
