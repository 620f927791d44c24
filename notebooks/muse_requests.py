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
# # MUSE: requests that come one after the other
#
# Requests to forget do not come all at once. MUSE calls what is left after several *sustainability*: every request is
# unlearned from the model that the one before left. After each, all earlier ones are judged again, as forgetting
# something new may bring back what was forgotten before. With bundled news, offline, on a CPU, in under two minutes.

# %%
import os
import tempfile
import warnings
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

warnings.filterwarnings("ignore", message="IProgress not found")
os.environ["TQDM_DISABLE"] = "1"  # progress bars would fill the page

import matplotlib.pyplot as plt
import numpy as np
from datasets import concatenate_datasets

from unlearn_hf import FinetuningConfig, FinetuningTrainer, MuseEvaluator, NPOConfig, NPOTrainer, load_muse
from unlearn_hf.cli.demo import DemoSettings, new_model, train_tokenizer

folder = Path(tempfile.mkdtemp())
quiet = {
    "save_strategy": "no", "report_to": "none", "disable_tqdm": True, "use_cpu": True, "weight_decay": 0.0,
    "logging_strategy": "no",
}  # fmt: skip

# %% [markdown]
# ## News, and a model that learned them
# Four requests of twenty articles each, articles to keep, and questions on both. The model is small, so it also reads
# the questions and answers; a larger one carries facts over by itself.

# %%
muse = load_muse("news", source="mini")
requests = [f"sust_forget_{number}" for number in range(1, 5)]
print(muse["sust_forget_1"]["text"][0])

# %%
corpus = concatenate_datasets([muse[name] for name in muse if name.startswith("train_")])
tokenizer = train_tokenizer(corpus["text"], 1000)
target = FinetuningTrainer(
    new_model(tokenizer, DemoSettings(hidden_size=144, layers=4)),
    FinetuningConfig(
        output_dir=str(folder / "target"),
        num_train_epochs=25,
        per_device_train_batch_size=8,
        learning_rate=3e-3,
        lr_scheduler_type="cosine",
        warmup_steps=0.1,
        max_length=256,
        **quiet,
    ),
    corpus,
    processing_class=tokenizer,
)
target.train()
target.save_model()

# %% [markdown]
# ## Four requests
# Each trainer begins with the folder that the one before saved. `eval_dataset` holds every request and articles to
# keep, so `evaluate` judges all of them, asked for already or not. MUSE's evaluator asks questions on the articles to
# keep.

# %%
judged = {**{name: muse[name] for name in requests}, "keep": muse["retain1"]}
questions = load_muse("news", source="mini")
for part in set(questions) - {"knowmem_retain_qa", "knowmem_retain_qa_icl"}:
    del questions[part]
utility = MuseEvaluator(questions, batch_size=64)
probabilities, answered, verdicts = [], [], []


def look(trainer):
    losses = trainer.evaluate()
    probabilities.append([np.exp(-losses[f"eval_{name}_loss"]) for name in judged])
    answered.append(utility(trainer.model, tokenizer)["knowmem_retain"])


model = str(folder / "target")
for name in requests:
    trainer = NPOTrainer(
        model=model,
        args=NPOConfig(
            output_dir=str(folder / name),
            num_train_epochs=8,
            per_device_train_batch_size=4,
            per_device_eval_batch_size=20,
            learning_rate=4e-4,
            lr_scheduler_type="constant",
            max_length=256,
            verdict_rows=10,
            verdict_samples=2,
            **quiet,
        ),
        forget_dataset=muse[name],
        retain_dataset=muse["retain1"],
        eval_dataset=judged,
    )
    with redirect_stdout(StringIO()):
        if not probabilities:
            look(trainer)  # the target
        trainer.train()
        trainer.save_model()
        look(trainer)
    verdicts.append(trainer.verdict())
    model = str(folder / name)

# %% [markdown]
# ## Each request right after it was forgotten
# A text is cut in the middle, and what the model says next is compared with how the text goes on.

# %%
for name, verdict in zip(requests, verdicts, strict=True):
    leaks = f"{len(verdict.leaking_rows)} of {verdict.rows['forget']} texts leak"
    shares = f"{verdict.before['forget_prob']:.2f} -> {verdict.after['forget_prob']:.2f}"
    print(f"{name}: forgotten {verdict.forgotten} ({leaks}), Prob {shares}; kept {verdict.kept}")

# %% [markdown]
# ## All requests after every run
# A row is a request, a column the model after a run. Below the steps is what was asked to be forgotten by then; above
# them, what nobody had asked about yet. Texts of one kind are forgotten together: what is above the steps falls, too,
# before its turn comes, and that is why the verdict on a later request has less to forget.

# %%
table = np.array(probabilities).T
figure, axes = plt.subplots(1, 2, figsize=(11, 3.6), layout="constrained", width_ratios=(3, 2))
image = axes[0].imshow(table, cmap="Blues", vmin=0, vmax=1, aspect="auto")
for (row, column), value in np.ndenumerate(table):
    axes[0].text(column, row, f"{value:.2f}", ha="center", va="center", color="white" if value > 0.6 else "black")
axes[0].step([0.5, *np.arange(0.5, 4), 4.5], [-0.5, *np.arange(0.5, 4), 3.5], where="post", color="tab:red")
axes[0].set_xticks(range(5), ["target", *[f"after {number}" for number in range(1, 5)]])
axes[0].set_yticks(range(5), [*[f"request {number}" for number in range(1, 5)], "to keep"])
axes[0].set_title("probability per token")
axes[1].plot(range(5), answered, marker="o")
axes[1].set(
    xlabel="requests unlearned", ylabel="ROUGE-L F1 x 100", title="questions on what is to keep", ylim=(0, 105)
)
axes[1].set_xticks(range(5))
axes[1].grid(alpha=0.3)
plt.show()
