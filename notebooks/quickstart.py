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
# # Quickstart: make a small model forget four authors
#
# Everything here is bundled and runs offline on a CPU in under two minutes: invented authors to learn, a small Llama
# to learn them, and EUPMU to make it forget a tenth of them.

# %%
import os
import tempfile
import warnings
from pathlib import Path

warnings.filterwarnings("ignore", message="IProgress not found")
warnings.filterwarnings("ignore", message=".* come more than once")  # facts do so on purpose
os.environ["TQDM_DISABLE"] = "1"  # progress bars would fill the page

import matplotlib.pyplot as plt
from datasets import concatenate_datasets

from unlearn_hf import EUPMUConfig, EUPMUTrainer, FinetuningConfig, FinetuningTrainer, TofuEvaluator, load_tofu
from unlearn_hf.cli.demo import DemoSettings, new_model, train_tokenizer

folder = Path(tempfile.mkdtemp())
quiet = {"save_strategy": "no", "report_to": "none", "disable_tqdm": True, "use_cpu": True, "weight_decay": 0.0}

# %% [markdown]
# ## Data
# `mini` has the shape of TOFU: question-answer rows on authors, split into a forget set and a retain set, with
# paraphrased and wrong answers to judge by. With a network, `source="hub"` gives the real TOFU.

# %%
tofu = load_tofu("forget10", source="mini")
print(tofu)
tofu["forget"].to_pandas().head(5)

# %% [markdown]
# ## A target model that knows everything
# It starts from random weights, so it also learns the general facts that it will be asked about.

# %%
corpus = concatenate_datasets([tofu["full"], *[tofu["real_authors_facts"], tofu["world_facts_facts"]] * 3])
tokenizer = train_tokenizer([f"Question: {row['question']}\nAnswer: {row['answer']}" for row in corpus], 1500)
model = new_model(tokenizer, DemoSettings())
print(f"{model.num_parameters() / 1e6:.1f} M parameters")

target = FinetuningTrainer(
    model,
    FinetuningConfig(
        output_dir=str(folder / "target"),
        num_train_epochs=20,
        per_device_train_batch_size=16,
        learning_rate=2e-3,
        lr_scheduler_type="cosine",
        logging_strategy="epoch",
        **quiet,
    ),
    corpus,
    processing_class=tokenizer,
)
target.train()
target.save_model()
[round(line["loss"], 2) for line in target.state.log_history if "loss" in line]

# %%
evaluator = TofuEvaluator(tofu, batch_size=64, max_new_tokens=32)
before = evaluator(target.model, tokenizer)
answers_before = evaluator.last_result.samples
{name: round(before[name], 3) for name in ("forget_prob", "forget_rouge", "retain_prob", "model_utility")}

# %% [markdown]
# ## Unlearn
# EUPMU minimises the forget loss plus a dual variable times the retain loss. The dual variable follows what each step
# really did to the retain loss, and keeps that loss within `epsilon` (here 10 %) of where it began.

# %%
trainer = EUPMUTrainer(
    model=str(folder / "target"),
    args=EUPMUConfig(
        output_dir=str(folder / "eupmu"),
        num_train_epochs=10,
        per_device_train_batch_size=8,
        learning_rate=3e-4,
        lr_scheduler_type="constant",
        constraint="level",
        epsilon=0.1,
        logging_steps=1,
        **quiet,
    ),
    forget_dataset=tofu["forget"],
    retain_dataset=tofu["retain"],
    evaluators=[evaluator],
)
trainer.train()
after = trainer.evaluate()

# %% [markdown]
# ## What happened

# %%
for name in ("forget_prob", "forget_rouge", "forget_truth_ratio", "retain_prob", "retain_rouge", "model_utility"):
    print(f"{name:<20}{before[name]:>8.3f}  ->{after['eval_' + name]:>8.3f}")

# %%
answers_after = evaluator.last_result.samples
for split in ("forget", "retain"):
    old, new = (table[table["split"] == split].iloc[1] for table in (answers_before, answers_after))
    print(f"{split}: {old['prompt']}\n  gold:   {old['reference_text']}")
    print(f"  before: {old['generation']}\n  after:  {new['generation']}\n")

# %%
steps = [line for line in trainer.state.log_history if "dual_variable" in line]
figure, axes = plt.subplots(1, 2, figsize=(10, 3.2), layout="constrained")
axes[0].plot([line["step"] for line in steps], [line["forget_loss"] for line in steps], label="forget loss (NPO)")
axes[0].plot([line["step"] for line in steps], [line["retain_loss"] for line in steps], label="retain loss (NLL)")
axes[0].set(xlabel="step", ylabel="loss", yscale="log", title="losses")
axes[0].legend()
axes[1].plot([line["step"] for line in steps], [line["dual_variable"] for line in steps], color="C2")
axes[1].set(xlabel="step", ylabel="dual variable", title="how much retaining costs")
plt.show()
