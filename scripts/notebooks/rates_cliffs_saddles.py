# ---
# jupyter: {jupytext: {text_representation: {extension: .py, format_name: percent}}}
# ---
# %% [markdown]
# # Learning rates, cliffs and saddle points
#
# A lecture in three pictures. Gradient descent is sensitive to its learning rate, and it can stall where the gradient
# is nearly zero. With policies both are worse, and both can be seen.

# %%
import matplotlib.pyplot as plt
import torch

import pgkit
from pgkit.diagnose.landscape.run import landscape

STEPS = 100_000  # of each run
RATES = [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1]

# %% [markdown]
# ## 1. One gradient method, seven learning rates
#
# Seven agents train together as one population. They differ in nothing but the rate.

# %%
base = pgkit.load_config("cartpole-actor-critic", {"steps": STEPS, "seeds": 1, "optimizer.schedule.lr": "constant"})
configs = [base.model_copy(update={"optimizer": {**base.optimizer, "lr": rate}}) for rate in RATES]
result = pgkit.train(configs)
result

# %%
figure, axes = plt.subplots(figsize=(5, 3), layout="constrained")
axes.semilogx(RATES, [row["return_mean"] for row in result.table], marker="o")
axes.set_xlabel("learning rate")
axes.set_ylabel("return after training")
figure

# %% [markdown]
# Too small: it has not arrived yet. Too large: it is thrown off again and again. Between them is a window, and in RL
# it is narrow.
#
# ## 2. A cliff
#
# The return along a straight line through a trained policy, in the direction of its gradient. On a hill one comes back
# by walking back; behind a cliff the data that would lead back are no longer collected.

# %%
run = pgkit.train(base.model_copy(update={"seeds": 2, "steps": STEPS}), "runs/lecture", overwrite=True)
picture = landscape("runs/lecture", member=0, plane="none", episodes=5)
print(picture.words["lines"])
picture.figures[0]

# %% [markdown]
# ## 3. A saddle
#
# On x^2 - y^2 the gradient is zero at the origin, which is no minimum: along y it goes down. Plain gradient descent
# that begins near the ridge stays long. Momentum leaves sooner, because it adds up what points the same way; Adam at
# once, because it scales what is small.

# %%
start = torch.tensor([[1.0, 1e-5]])
figure, axes = plt.subplots(figsize=(5, 3), layout="constrained")
for name, rate in (("sgd", 0.05), ("momentum", 0.05), ("adam", 0.05)):
    params, optimizer = {"x": start.clone()}, pgkit.optim.make(name, lr=rate)
    state, heights = optimizer.init(params), []
    for _ in range(100):
        x, y = params["x"][0]
        heights.append((x**2 - y**2).item())
        updates, state = optimizer.update({"x": torch.stack([2 * x, -2 * y])[None]}, state, params)
        params = pgkit.optim.apply_updates(params, updates)
    axes.plot(heights, label=name)
axes.set_ylim(-1, 1)
axes.set_xlabel("update")
axes.set_ylabel("x\u00b2 - y\u00b2")
axes.legend(frameon=False)
figure
