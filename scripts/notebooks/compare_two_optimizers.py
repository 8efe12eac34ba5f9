# ---
# jupyter: {jupytext: {text_representation: {extension: .py, format_name: percent}}}
# ---
# %% [markdown]
# # Compare two optimizers in five minutes
#
# Sgd against Adam with actor-critic on CartPole: every learning rate of a grid, every seed, as one batched computation.
# This notebook is a script with cells, which Jupyter (with jupytext), VS Code and PyCharm open as a notebook.

# %%
from pgkit import compare

STEPS = 100_000  # of each run

# %% [markdown]
# What will run, before anything does. The plan has a hash: whoever repeats it, repeats exactly this.

# %%
overrides = {"optimizers": ["sgd", "adam"], "agents": ["actor-critic"], "steps": STEPS, "name": "two-optimizers"}
plan = compare.read_plan("compare-cartpole", overrides)
plan

# %% [markdown]
# Run it. Stopped here, it continues in the same cell. `workers=1` trains in this process's own children, one at a time.

# %%
analysis = compare.compare("compare-cartpole", overrides, workers=1, progress=True)
analysis

# %% [markdown]
# The learning rate first: where does each optimizer learn, and where does it fall off?

# %%
figures = compare.figures.draw_all(analysis, analysis.cases[0])
figures["sensitivity"]

# %%
figures["learning"]

# %% [markdown]
# The quick tier of ten fresh seeds ranks nothing. `tier="standard"` has twenty, and verdicts.

# %%
analysis.tables["arms"][["optimizer", "lr", "n", "mean", "t_low", "t_high", "learnt", "failed"]]
