# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # How the two gradients meet
#
# Unlearning has two gradients: $g_f$ of the forget loss and $g_r$ of the retain loss. Every method here steps against
# $d = w_f g_f + w_r g_r$, and the methods differ in the two weights. This notebook looks at the angle between the two
# gradients during a run, in the whole model and in each of its parts, and at where the methods go. It runs offline on
# a CPU, in about a minute.

# %%
import json
import math
import os
import tempfile
import warnings
from pathlib import Path

warnings.filterwarnings("ignore", message="IProgress not found")
warnings.filterwarnings("ignore", message=".* come more than once")  # facts do so on purpose
os.environ["TQDM_DISABLE"] = "1"  # progress bars would fill the page

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.ticker import FixedLocator, NullLocator

from unlearn_hf import METHODS, FinetuningConfig, FinetuningTrainer, load_tofu
from unlearn_hf.cli.demo import DemoSettings, new_model, train_tokenizer
from unlearn_hf.gradients.weightings import mgda, normalized_sum, pcgrad, unilateral_surgery

folder = Path(tempfile.mkdtemp())
quiet = {"save_strategy": "no", "report_to": "none", "disable_tqdm": True, "use_cpu": True, "weight_decay": 0.0}

# %% [markdown]
# ## A small model that knows forty invented authors

# %%
tofu = load_tofu("forget10", source="mini")
texts = [f"Question: {row['question']}\nAnswer: {row['answer']}" for row in tofu["full"]]
tokenizer = train_tokenizer(texts, 1000)
target = FinetuningTrainer(
    new_model(tokenizer, DemoSettings(hidden_size=96, layers=4)),
    FinetuningConfig(
        output_dir=str(folder / "target"),
        num_train_epochs=20,
        per_device_train_batch_size=16,
        learning_rate=4e-3,
        lr_scheduler_type="cosine",
        logging_strategy="epoch",
        **quiet,
    ),
    tofu["full"],
    processing_class=tokenizer,
)
target.train()
target.save_model()
[round(line["loss"], 2) for line in target.state.log_history if "loss" in line]

# %% [markdown]
# ## Four runs from the same start
# All minimise NPO on the forget rows and the usual cross-entropy on the retain rows. `log_gradient_geometry="layers"`
# writes norms and cosine of the two gradients, by layer and part, to `gradient_geometry.jsonl`; it changes no update.

# %%
runs = {
    "NPO, equal weights": ("npo", {}),
    "NGDiff": ("ngdiff", {"forget_loss": "npo"}),
    "gradient surgery": ("gradient_surgery", {}),
    "EUPMU": ("eupmu", {}),
}
colors = dict(zip(runs, ("tab:gray", "tab:blue", "tab:green", "tab:red"), strict=True))
judged = {"forget": tofu["forget"], "retain": tofu["retain"].select(range(0, 360, 6))}
geometry, losses = {}, {}
for name, (method, options) in runs.items():
    trainer_class = METHODS[method]
    trainer = trainer_class(
        model=str(folder / "target"),
        args=trainer_class.config_class(
            output_dir=str(folder / method),
            num_train_epochs=10,
            per_device_train_batch_size=8,
            per_device_eval_batch_size=60,
            learning_rate=3e-4,
            lr_scheduler_type="constant",
            logging_steps=1,
            eval_strategy="steps",
            eval_steps=2,
            eval_on_start=True,
            reference_cache=str(folder / "reference"),
            log_gradient_geometry="layers",
            **options,
            **quiet,
        ),
        forget_dataset=tofu["forget"],
        retain_dataset=tofu["retain"],
        eval_dataset=judged,
    )
    trainer.train()
    history = trainer.state.log_history
    losses[name] = [
        [line[f"eval_{part}_loss"] for line in history if f"eval_{part}_loss" in line] for part in ("forget", "retain")
    ]
    geometry[name] = [json.loads(line) for line in (folder / method / "gradient_geometry.jsonl").open()]
print(f"{len(geometry['NGDiff'])} steps each")

# %% [markdown]
# ## The angle during the run
# A cosine below zero is a conflict: what forgets raises the retain loss. The weights on the right are the methods'
# answer, as the share of the retain gradient in the length of the update, $w_r\|g_r\| / (w_f\|g_f\| + w_r\|g_r\|)$.

# %%
figure, axes = plt.subplots(1, 2, figsize=(11, 3.6), layout="constrained", sharex=True)
for name, lines in geometry.items():
    steps = [line["step"] for line in lines]
    forget, retain = (
        np.array([line[f"{part}_weight"] * line[f"{part}_gradient_norm"] for line in lines])
        for part in ("forget", "retain")
    )
    axes[0].plot(steps, [line["gradient_cosine"] for line in lines], color=colors[name], label=name, linewidth=1.5)
    axes[1].plot(steps, retain / (forget + retain), color=colors[name], linewidth=1.5)
axes[0].axhline(0, color="black", linewidth=0.8)
axes[0].set(xlabel="step", ylabel=r"$\cos(g_f, g_r)$", title="angle of the two gradients")
axes[1].set(
    xlabel="step", ylabel="share of the retain gradient", title="what the method makes of it", ylim=(-0.03, 1.03)
)
figure.legend(loc="outside upper center", ncols=4, frameon=False)
plt.show()

# %% [markdown]
# ## The angle in each part of the model
# The same cosine taken over the parameters of one part only, in the run of NGDiff. One number for the whole model can
# hide that some parts are in conflict while others are not.


# %%
def heatmap(axis, lines, title):
    groups = [group for group in lines[0]["groups"] if not group.endswith("norm")]
    cosines = np.array([[line["groups"][group]["gradient_cosine"] for line in lines] for group in groups])
    image = axis.imshow(
        cosines, aspect="auto", cmap="RdBu", vmin=-0.8, vmax=0.8, interpolation="nearest",
        extent=(0.5, len(lines) + 0.5, len(groups) - 0.5, -0.5),
    )  # fmt: skip
    axis.set(title=title, xlabel="step", yticks=range(len(groups)))
    axis.set_yticklabels([group.replace("layers.", "layer ").replace(".", " ") for group in groups])
    return image


figure, axes = plt.subplots(1, 2, figsize=(11, 3.6), layout="constrained", sharey=True)
for axis, name in zip(axes, ("NGDiff", "EUPMU"), strict=True):
    image = heatmap(axis, geometry[name], name)
figure.colorbar(image, ax=axes, label=r"$\cos(g_f, g_r)$   (red: conflict)")
plt.show()

# %% [markdown]
# ## Where the methods go from the same point
# Two gradients span a plane, and every method's direction lies in it. Here is the plane at the step of the NGDiff run
# where the conflict was sharpest, with the retain gradient to the right. A step goes *against* $d$, so a $d$ in the
# blue half lowers the retain loss to first order, and one in the red half lowers the forget loss; where they overlap,
# both fall. EUPMU does not choose by the angle: its weight is the dual variable that its steps so far have led to, so
# it is drawn for several values.

# %%
sharpest = min(geometry["NGDiff"], key=lambda line: line["gradient_cosine"])
forget_norm, retain_norm = sharpest["forget_gradient_norm"], sharpest["retain_gradient_norm"]
cosine = sharpest["gradient_cosine"]
cross = cosine * forget_norm * retain_norm
gram = torch.tensor([[forget_norm**2, cross], [cross, retain_norm**2]], dtype=torch.float64)
retain_gradient = np.array([retain_norm, 0.0])
forget_gradient = forget_norm * np.array([cosine, math.sqrt(1 - cosine**2)])
directions = {
    "NGDiff": (normalized_sum(gram), "tab:blue"),
    "surgery": (unilateral_surgery(gram), "tab:green"),
    "PCGrad": (pcgrad(gram), "tab:purple"),
    "MGDA": (mgda(gram), "tab:orange"),
    "EUPMU, dual 1": ((1.0, 1.0), "tab:red"),
    "EUPMU, dual 3": ((1.0, 3.0), "tab:red"),
    "EUPMU, dual 6": ((1.0, 6.0), "tab:red"),
}
figure, axis = plt.subplots(figsize=(6.6, 5.2), layout="constrained")
angle = math.degrees(math.acos(cosine))
for start, color in ((-90, "tab:blue"), (angle - 90, "tab:red")):
    shade = np.radians(np.linspace(start, start + 180, 60))
    axis.fill(9 * np.cos(shade), 9 * np.sin(shade), color=color, alpha=0.08, linewidth=0)
vectors = {"$g_r$": (retain_gradient, "black"), "$g_f$": (forget_gradient, "black")}
for name, ((w_forget, w_retain), color) in directions.items():
    vectors[name] = (w_forget * forget_gradient + w_retain * retain_gradient, color)
for name, (vector, color) in vectors.items():
    # EUPMU's arrows are longer, so that their names stay clear of the others
    tip = (1.45 if name.startswith("EUPMU") else 1.0) * vector / np.linalg.norm(vector)
    gradient = name.startswith("$")
    width = 2.5 if gradient else 1.6
    axis.annotate("", tip, (0, 0), arrowprops={"arrowstyle": "-|>", "color": color, "linewidth": width})
    turn = math.degrees(math.atan2(tip[1], tip[0]))
    place = (1 + 0.05 / np.linalg.norm(tip)) * tip
    style = {"color": color, "fontsize": 14 if gradient else 9, "va": "center", "rotation_mode": "anchor"}
    if turn <= 90:
        axis.text(*place, name, rotation=turn, ha="left", **style)
    else:
        axis.text(*place, name, rotation=turn - 180, ha="right", **style)
axis.set(xlim=(-1.6, 1.6), ylim=(-0.25, 2.2), aspect="equal", xticks=[], yticks=[])
axis.set_title(
    f"directions at step {sharpest['step']}, where the cosine is {cosine:.2f}; lengths have no meaning", fontsize=10
)
plt.show()

# %% [markdown]
# ## Where the runs end up
# The negative log-likelihood of the true answers, on all forget rows and on sixty retain rows. To the right is
# forgotten, upwards is damage; a good run goes right and stays low.
#
# Surgery keeps each step from raising the retain loss to first order, on the rows of that step and before Adam scales
# the direction anew for each parameter; nothing pulls back what slips through, and it adds up. NGDiff always gives the
# retain gradient half of the say. EUPMU answers late, by what its steps have done, and then pulls back.

# %%
figure, axis = plt.subplots(figsize=(6.2, 4.2), layout="constrained")
for name, (forget, retain) in losses.items():
    axis.plot(forget, retain, color=colors[name], marker="o", markersize=3, linewidth=1.5, label=name)
    axis.plot(forget[-1], retain[-1], color=colors[name], marker="s", markersize=8)
axis.plot(forget[0], retain[0], color="black", marker="*", markersize=14, linestyle="none", label="start")
axis.set(xlabel="forget NLL per token", ylabel="retain NLL per token", xscale="log", yscale="log")
for side in (axis.xaxis, axis.yaxis):
    side.set_major_locator(FixedLocator([0.2, 0.3, 0.5, 1, 2, 3, 5, 10]))
    side.set_major_formatter("{x:g}")
    side.set_minor_locator(NullLocator())
axis.legend(frameon=False)
plt.show()

# %%
for name, (forget, retain) in losses.items():
    print(f"{name:<20} forget {forget[0]:.2f} -> {forget[-1]:.2f}   retain {retain[0]:.2f} -> {retain[-1]:.2f}")
