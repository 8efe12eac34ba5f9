# ---
# jupyter: {jupytext: {text_representation: {extension: .py, format_name: percent}}}
# ---
# %% [markdown]
# # From a comparison to a figure for a paper
#
# The tables of a comparison are pandas DataFrames, in Parquet. The figure is yours.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from pgkit import compare

COMPARISON = "comparisons/two-optimizers"  # of the notebook compare_two_optimizers

# %%
tables = Path(COMPARISON) / "tables"
runs = pd.read_parquet(tables / "runs.parquet")
curves = pd.read_parquet(tables / "curves.parquet")
curves.groupby(["stage", "optimizer"]).size()

# %% [markdown]
# Only the runs of fresh seeds are quoted. Tuning runs chose the rate, and would flatter it.

# %%
evaluation = curves[curves["stage"] == "evaluation"]
fresh = runs[runs["stage"] == "evaluation"]
assert set(evaluation["seed"]) == set(fresh["seed"])

# %% [markdown]
# Two columns of a paper are 3.4 inches wide. Thin lines are seeds, the bold one their median.

# %%
figure, axes = plt.subplots(figsize=(3.4, 2.2), layout="constrained")
for color, (optimizer, of_arm) in zip(("#0072b2", "#d55e00"), evaluation.groupby("optimizer"), strict=False):
    for _, seed in of_arm.groupby("seed"):
        axes.plot(seed["env_steps"], seed["return_mean"], color=color, linewidth=0.4, alpha=0.4)
    median = of_arm.groupby("point")[["env_steps", "return_mean"]].median()
    axes.plot(median["env_steps"], median["return_mean"], color=color, linewidth=1.6, label=optimizer)
axes.set_xlabel("environment steps")
axes.set_ylabel("return")
axes.legend(frameon=False)
figure.savefig("figure.pdf")
figure

# %% [markdown]
# The numbers for the caption: runs, mean, interval, failures; and the hash of the plan.

# %%
analysis = compare.load_analysis(COMPARISON)
print(analysis.plan["hash"][:12])
analysis.tables["arms"][["optimizer", "lr", "n", "mean", "bca_low", "bca_high", "failed", "collapses"]]
