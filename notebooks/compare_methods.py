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
# # Compare methods
#
# One number per method compares learning rates more than methods. So here every method runs at several rates, and
# what is compared is its *frontier*: how much is forgotten for how much harm. It runs offline on a CPU in under two
# minutes.

# %%
import logging
import os
import tempfile
import warnings
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

warnings.filterwarnings("ignore", message="IProgress not found")
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it tells that there is no GPU
os.environ["TQDM_DISABLE"] = "1"  # progress bars would fill the page

import matplotlib.pyplot as plt
import pandas as pd

from unlearn_hf import METHODS, FinetuningConfig, FinetuningTrainer, TofuEvaluator, load_tofu
from unlearn_hf.cli.demo import DemoSettings, new_model, train_tokenizer

folder = Path(tempfile.mkdtemp())
quiet = {
    "save_strategy": "no", "report_to": "none", "disable_tqdm": True, "use_cpu": True, "weight_decay": 0.0,
    "logging_strategy": "no",
}  # fmt: skip

# %% [markdown]
# ## The target, and the model that never saw the forget set
# `retain_only` is the gold standard: forget quality asks whether a model can be told from it. Whoever has it has no
# need to unlearn, so it judges here and chooses nothing.

# %%
tofu = load_tofu("forget10", source="mini")
texts = [f"Question: {row['question']}\nAnswer: {row['answer']}" for row in tofu["full"]]
tokenizer = train_tokenizer(texts, 1000)


def memorise(name, rows):
    trainer = FinetuningTrainer(
        new_model(tokenizer, DemoSettings(hidden_size=96, layers=4)),
        FinetuningConfig(
            output_dir=str(folder / name),
            num_train_epochs=20,
            per_device_train_batch_size=16,
            learning_rate=4e-3,
            lr_scheduler_type="cosine",
            **quiet,
        ),
        rows,
        processing_class=tokenizer,
    )
    with redirect_stdout(StringIO()):
        trainer.train()
    trainer.save_model()
    return trainer.model


def judge(model, retain_results=None):
    evaluator = TofuEvaluator(tofu, retain_results, batch_size=64, max_new_tokens=24, max_rows=40)
    return evaluator(model, tokenizer), evaluator.last_result.samples


retain_only, gold = judge(memorise("retain_only", tofu["retain"]))
target, _ = judge(memorise("target", tofu["full"]), gold)

# %% [markdown]
# ## Four methods at three learning rates
# All minimise NPO on the forget rows and cross-entropy on the retain rows for the same number of steps. They differ
# in how they weigh the two gradients.

# %%
methods = {"npo": {}, "ngdiff": {"forget_loss": "npo"}, "gradient_surgery": {}, "eupmu": {}}
rates = (1e-4, 3e-4, 1e-3)
rows = []
for method, options in methods.items():
    trainer_class = METHODS[method]
    for rate in rates:
        trainer = trainer_class(
            model=str(folder / "target"),
            args=trainer_class.config_class(
                output_dir=str(folder / f"{method}-{rate:g}"),
                num_train_epochs=6,
                per_device_train_batch_size=8,
                learning_rate=rate,
                lr_scheduler_type="constant",
                reference_cache=str(folder / "reference"),
                verdict=False,
                **options,
                **quiet,
            ),
            forget_dataset=tofu["forget"],
            retain_dataset=tofu["retain"],
        )
        with redirect_stdout(StringIO()):
            seconds = trainer.train().metrics["train_runtime"]
        rows.append({"method": method, "rate": rate, "seconds": seconds, **judge(trainer.model, gold)[0]})
runs = pd.DataFrame(rows)

# %% [markdown]
# ## The table
# Forget quality is the p-value of TOFU's test against `retain_only`; above 0.05 the two cannot be told apart.

# %%
columns = ["method", "rate", "forget_prob", "forget_rouge", "forget_quality", "retain_prob", "retain_rouge", "seconds"]
anchors = pd.DataFrame([{"method": "target", **target}, {"method": "retain_only", **retain_only}])
table = pd.concat([anchors, runs])[columns]
formats = {
    "rate": "{:.0e}", "forget_quality": "{:.2g}", "seconds": "{:.1f}",
    **dict.fromkeys(["forget_prob", "forget_rouge", "retain_prob", "retain_rouge"], "{:.3f}"),
}  # fmt: skip
table.style.format(formats, na_rep="").hide()

# %% [markdown]
# ## The frontier
# To the left is forgotten, upwards is kept. A line joins the runs of one method in the order of their rates; a method
# is better where its line passes nearer to `retain_only`. Where lines cross, or lie within what another seed would
# change, there is no better one.

# %%
figure, axes = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
for axis, (across, up) in zip(axes, [("forget_prob", "retain_prob"), ("forget_rouge", "retain_rouge")], strict=True):
    for method, lines in runs.groupby("method", sort=False):
        axis.plot(lines[across], lines[up], marker="o", label=method)
        for _, line in lines.iterrows():
            axis.annotate(f"{line['rate']:.0e}", (line[across], line[up]), xytext=(4, 4), textcoords="offset points",
                          fontsize=7, color="grey")  # fmt: skip
    for name, values, marker in (("target", target, "*"), ("retain_only", retain_only, "P")):
        axis.plot(
            values[across], values[up], marker=marker, markersize=12, color="black", linestyle="none", label=name
        )
    axis.set(xlabel=across, ylabel=up)
    axis.grid(alpha=0.3)
figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=6, frameon=False)
plt.show()

# %% [markdown]
# ## A choice by a stated rule
# Of the runs that keep at least 95 % of the target's retain Prob, each method's most forgetting one. The rule never
# looks at `retain_only`; `unlearn-hf sweep` chooses likewise, and searches more than three rates. A method that is
# missing kept too little at each of its rates: these runs are short, and end before what was lost of the rows to keep
# comes back.

# %%
allowed = runs[runs["retain_prob"] >= 0.95 * target["retain_prob"]]
chosen = allowed.loc[allowed.groupby("method", sort=False)["forget_prob"].idxmin()] if len(allowed) else allowed
chosen[columns].style.format(formats).hide()
