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
# unlearned from the model that the one before left. `--continue_from` does that, judges all earlier requests again
# (as training may bring back what was forgotten before), and keeps a ledger. With bundled news, offline, on a CPU, in
# under two minutes.

# %%
import json
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
os.chdir(tempfile.mkdtemp())

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from datasets import concatenate_datasets
from transformers import AutoModelForCausalLM

from unlearn_hf import FinetuningConfig, FinetuningTrainer, MuseEvaluator, load_muse
from unlearn_hf.cli.demo import DemoSettings, new_model, train_tokenizer
from unlearn_hf.cli.main import main

# %% [markdown]
# ## News, and a model that learned them
# Four requests of twenty articles each, articles to keep, and questions on them. The model is small, so it also reads
# the questions and answers; a larger one carries facts over by itself.

# %%
muse = load_muse("news", source="mini")
requests = [f"request_{number}" for number in range(1, 5)]
for number, request in enumerate(requests, start=1):
    muse[f"sust_forget_{number}"].to_json(f"{request}.jsonl")
muse["retain1"].to_json("keep.jsonl")
print(muse["sust_forget_1"]["text"][0])

# %%
corpus = concatenate_datasets([muse[name] for name in muse if name.startswith("train_")])
tokenizer = train_tokenizer(corpus["text"], 1000)
target = FinetuningTrainer(
    new_model(tokenizer, DemoSettings(hidden_size=144, layers=4)),
    FinetuningConfig(
        output_dir="target",
        num_train_epochs=25,
        per_device_train_batch_size=8,
        learning_rate=3e-3,
        lr_scheduler_type="cosine",
        warmup_steps=0.1,
        max_length=256,
        weight_decay=0.0,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        logging_strategy="no",
    ),
    corpus,
    processing_class=tokenizer,
)
target.train()
target.save_model()

# %% [markdown]
# ## Four requests
# The first begins with the target, each other one with the run before. MUSE's evaluator asks the questions on
# articles to keep after each.

# %%
questions = load_muse("news", source="mini")
for part in set(questions) - {"knowmem_retain_qa", "knowmem_retain_qa_icl"}:
    del questions[part]
utility = MuseEvaluator(questions, batch_size=64)


def answered(folder):
    return utility(AutoModelForCausalLM.from_pretrained(folder), tokenizer)["knowmem_retain"]


options = """
    --method npo --retain_file keep.jsonl --num_train_epochs=10 --per_device_train_batch_size 4 --learning_rate 4e-4
    --lr_scheduler_type constant --weight_decay 0 --max_length 256 --held_back_rows 0 --stop_when null
    --verdict_samples 2 --final_evaluation false --report_to none --disable_tqdm true --use_cpu true
""".split()
knows = [answered("target")]
begin = ["--model_name_or_path", "target"]
for request in requests:
    words = ["unlearn", *begin, "--forget_file", f"{request}.jsonl", "--output_dir", request, *options]
    with redirect_stdout(StringIO()):
        assert main(words) == 0
    knows.append(answered(request))
    begin = ["--continue_from", request]

# %% [markdown]
# ## The ledger
# A line for each request, without text: rows as hashes, method, verdict, the same for every earlier request, and the
# hash of the line before, so that a line that was changed is noticed.

# %%
ledger = [json.loads(line) for line in Path(requests[-1], "ledger.jsonl").read_text().splitlines()]
{name: value for name, value in ledger[1].items() if name in ("request", "method", "verdict", "earlier")}

# %% [markdown]
# ## All requests after every run
# A text is cut in the middle, and what the model says next is compared with how the text goes on. A row is a request,
# a column the model after a run: the diagonal is the verdict on the request of that run, right of it are earlier
# requests, judged again. A request may have little to forget by its turn, as texts of one kind are forgotten
# together: the second number is how many of its texts the model knew until then.

# %%
leaking, texts = np.full((4, 4), np.nan), {}
for column, entry in enumerate(ledger):
    for request, found in {**entry["earlier"], entry["request"]: entry["verdict"]}.items():
        row = requests.index(request)
        if found.get("known"):
            leaking[row, column] = found["leaking"] / found["known"]
            texts[row, column] = f"{found['leaking']} of {found['known']}"
        else:
            texts[row, column] = "not known"

figure, axes = plt.subplots(1, 2, figsize=(11, 3.4), layout="constrained", width_ratios=(3, 2))
axes[0].imshow(leaking, cmap="Reds", vmin=0, vmax=1, aspect="auto")
for (row, column), text in texts.items():
    dark = leaking[row, column] > 0.6
    axes[0].text(column, row, text, ha="center", va="center", color="white" if dark else "black")
axes[0].set_xticks(range(4), [f"after {number}" for number in range(1, 5)])
axes[0].set_yticks(range(4), [f"request {number}" for number in range(1, 5)])
axes[0].set_title("texts that leak, of those that the model knew")
axes[1].plot(range(5), knows, marker="o")
axes[1].set(
    xlabel="requests unlearned", ylabel="ROUGE-L F1 x 100", title="questions on what is to keep", ylim=(0, 105)
)
axes[1].set_xticks(range(5))
axes[1].grid(alpha=0.3)
plt.show()

# %% [markdown]
# ## Each run in numbers

# %%
verdicts = [json.loads(Path(request, "verdict.json").read_text()) for request in requests]
pd.DataFrame(
    [
        {
            "run": request,
            "forgotten": verdict["forgotten"],
            "forget Prob before": verdict["before"]["forget_prob"],
            "after": verdict["after"]["forget_prob"],
            "kept": verdict["kept"],
            "share kept": verdict["kept_share"]["mean"],
        }
        for request, verdict in zip(requests, verdicts, strict=True)
    ]
).style.format(precision=3).hide()
