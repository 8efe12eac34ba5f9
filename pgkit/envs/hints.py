"""What helps where an environment is unknown or cannot be created: a command or a setting, in words."""

import importlib.util
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gymnasium.envs.registration import EnvSpec

REGISTERED_BY = {
    "ALE/": ("ale_py", "ale-py"),
    "BabyAI-": ("minigrid", "minigrid"),
    "MiniGrid-": ("minigrid", "minigrid"),
    "bsuite/": ("shimmy", "shimmy[bsuite]"),
    "dm_control/": ("shimmy", "shimmy[dm-control]"),
}
"""By the beginning of an id: the module whose import registers it, and what pip installs for it."""

EXTRAS = {"classic_control": "classic-control", "toy_text": "toy-text", "phys2d": "jax", "tabular": "jax"}
"""Extras of Gymnasium whose names are not those of their packages of environments."""

DISTRIBUTIONS = {"cv2": "opencv-python", "PIL": "pillow", "yaml": "pyyaml", "sklearn": "scikit-learn"}
"""What pip installs for modules of another name."""


def unknown_id_hint(name: str) -> str:
    """How to make an id known that is not registered; empty if nothing is known about it."""
    for prefix, (module, distribution) in REGISTERED_BY.items():
        if name.startswith(prefix):
            install = "" if importlib.util.find_spec(module) else f"pip install '{distribution}', then "
            return f"{install}env.id={module}:{name}"
    return ""


def missing_package_hint(error: BaseException, spec: "EnvSpec") -> str:
    """The command that installs what an environment could not import; empty if something else was wrong."""
    if not isinstance(error, ModuleNotFoundError) or error.name is None:
        return ""
    entry_point = spec.entry_point if isinstance(spec.entry_point, str) else ""
    package, _, group = entry_point.partition(":")[0].partition("gymnasium.envs.")
    group = group.partition(".")[0]
    if not package and group:
        return f"pip install 'gymnasium[{EXTRAS.get(group, group)}]'"
    module = error.name.partition(".")[0]
    return f"pip install {DISTRIBUTIONS.get(module, module)}"
