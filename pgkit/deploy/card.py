"""The model card of a shared policy, in the format of the Hugging Face Hub, and its learning curve."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pgkit.config.schema import TrainConfig
from pgkit.plots import style

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Measured:
    """Returns of a policy over episodes that no part of training has seen.

    Attributes:
        actions: "sampled" or "most likely".
        mean: return.
        std: standard deviation over episodes.
        episodes: how many.
    """

    actions: str
    mean: float
    std: float
    episodes: int

    def __str__(self) -> str:
        return f"{self.mean:.2f} +/- {self.std:.2f}"


def model_card(
    name: str, config: TrainConfig, measured: Sequence[Measured], training: Mapping[str, str], video: bool
) -> str:
    """Return the text of ``README.md``: metadata that the Hub reads, then what a reader needs.

    Args:
        name: of the policy, its headline.
        config: that it was trained with.
        measured: its returns; the first ones are those that the Hub shows.
        training: facts about the training, by their names.
        video: whether there is a ``replay.mp4``.
    """
    env = config.env.id
    agent = str(config.agent["name"])
    result = {
        "task": {"type": "reinforcement-learning", "name": "reinforcement-learning"},
        "dataset": {"name": env, "type": env},
        "metrics": [{"type": "mean_reward", "value": str(measured[0]), "name": "mean_reward", "verified": False}],
    }
    metadata = {
        "library_name": "pgkit",
        "tags": ["reinforcement-learning", "deep-reinforcement-learning", "pgkit", agent, env],
        "model-index": [{"name": name, "results": [result]}],
    }
    lines = ["---", *(f"{key}: {json.dumps(value)}" for key, value in metadata.items()), "---", ""]
    lines += [f"# {name}: {agent} on {env}", "", "A policy trained with pgkit.", ""]
    lines += ["| actions | mean return | episodes |", "|---|---|---|"]
    lines += [f"| {each.actions} | {each} | {each.episodes} |" for each in measured]
    lines += ["", "Measured after training, on episodes that it has not seen.", "", "![Learning curve](curve.png)", ""]
    lines += ["The video is `replay.mp4`.", ""] if video else []
    lines += ["## Use", "", "```python", *_usage(env), "```", "", "## Training", "", "| | |", "|---|---|"]
    lines += [f"| {key} | {value} |" for key, value in training.items()]
    lines += ["", "`config.toml` is the whole configuration: `pgkit train config.toml` trains it again.", ""]
    lines += ["`provenance.json` names the versions and the machine that it was trained with.", ""]
    return "\n".join(lines)


def curve_png(metrics: "pd.DataFrame", member: int, shown: str) -> bytes:
    """Draw the returns of evaluations while training: one member, and the others of its run thin.

    Args:
        metrics: as :func:`pgkit.logging.read_metrics` returns them.
        member: position of the member.
        shown: what the legend calls it.
    """
    rows = metrics[metrics["tag"] == "eval/return_mean"]
    rows = rows.drop_duplicates(["member", "step"], keep="last")  # the final evaluation has more episodes
    with style.settings():
        figure = style.new_figure(3.0)
        axes = figure.add_subplot()
        for position, of_member in rows.groupby("member"):
            mine = position == member
            axes.plot(
                of_member["step"],
                of_member["value"],
                color="#0072b2" if mine else style.FAINT,
                linewidth=1.8 if mine else 0.6,
                alpha=1.0 if mine else 0.5,
                zorder=3 if mine else 2,
                label=shown if mine else "",
            )
        style.steps_axis(axes)
        axes.set_ylabel("return of evaluations")
        axes.legend(loc="best")
        return style.png(figure)


def _usage(env: str) -> list[str]:
    module, _, short = env.rpartition(":")
    return [
        "import gymnasium",
        *([f"import {module}"] if module else []),
        "import pgkit",
        "",
        'policy = pgkit.load("FOLDER")  # this folder, downloaded',
        f'env = gymnasium.make("{short}")',
        "obs, _ = env.reset(seed=0)",
        "action, _ = policy.predict(obs, deterministic=True)",
    ]
