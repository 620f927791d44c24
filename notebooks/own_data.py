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
# # Your own data, from start to end
#
# An orchestra's assistant has learned facts on twenty members. Three of them leave and ask to be forgotten. Here a
# small model learns the facts, forgets three members, is judged, tries another rate, and becomes a plain model. It
# runs offline on a CPU in under two minutes; with a model of yours, begin at *Forget*. The same story from the
# command line: `docs/own_data.md`.

# %%
import json
import logging
import os
import random
import tempfile
import warnings
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

warnings.filterwarnings("ignore", message="IProgress not found")
warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")  # PEFT asks for it
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it tells that there is no GPU
os.environ["TQDM_DISABLE"] = "1"  # progress bars would fill the page
os.chdir(tempfile.mkdtemp())

import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import Image
from peft import LoraConfig

from unlearn_hf import FinetuningConfig, FinetuningTrainer, NPOConfig, NPOTrainer, load_pairs
from unlearn_hf.cli.demo import DemoSettings, new_model, train_tokenizer
from unlearn_hf.cli.main import main
from unlearn_hf.report.verdict import print_verdict

quiet = {"save_strategy": "no", "report_to": "none", "disable_tqdm": True, "use_cpu": True, "logging_strategy": "no"}


def unlearn_hf(words):
    """What `unlearn-hf` does, in this process."""
    assert main(words) == 0


# %% [markdown]
# ## Rows
# Two files of JSON lines: what is to be forgotten, and what is to be kept. Rows to keep should be like those to
# forget: the model is told by them where to stop. `prompt`/`completion`, `messages` and `text` do as well.

# %%
draw = random.Random(0)
first = """Ada Bruno Clara Dario Edda Felix Greta Hugo Ilse Jonas Katja Lorenz Mira Nils Olga Pavel Rosa Sven
Thea Ulrich""".split()
last = """Amsel Brandt Corvin Dorn Eberle Falk Gruber Hollmann Iversen Jansen Keller Lindqvist Moser Novak Otten
Petrov Quast Reuter Sander Thoma""".split()
draw.shuffle(last)
facts = {}
for name in map(" ".join, zip(first, last, strict=True)):
    city = draw.choice("Aarhus Bergen Cork Delft Evora Faro Genoa Haifa Izmir Jena".split())
    instrument = draw.choice("cello flute horn oboe harp viola tuba bassoon trumpet piano".split())
    year, locker = draw.randint(1975, 2020), draw.randint(100, 999)
    facts[name] = [
        {"question": f"Where was {name} born?", "answer": f"{name} was born in {city}."},
        {"question": f"What does {name} play?", "answer": f"{name} plays the {instrument}."},
        {"question": f"When did {name} join the orchestra?", "answer": f"{name} joined in {year}."},
        {"question": f"Which locker does {name} have?", "answer": f"{name} has locker {locker}."},
    ]
leaving = list(facts)[:3]
members = {"facts": facts, "forget": leaving, "retain": [name for name in facts if name not in leaving]}
for file, names in members.items():
    Path(f"{file}.jsonl").write_text("".join(json.dumps(row) + "\n" for name in names for row in facts[name]))

rows = load_pairs("forget.jsonl", "retain.jsonl")
rows["forget"].to_pandas()

# %% [markdown]
# ## Teach
# A Llama with fresh weights that knows nothing else. A pretrained model needs a smaller learning rate and fewer
# epochs.

# %%
everything = load_pairs("facts.jsonl", "retain.jsonl")["forget"]
tokenizer = train_tokenizer([f"Question: {row['question']}\nAnswer: {row['answer']}" for row in everything], 600)
teacher = FinetuningTrainer(
    new_model(tokenizer, DemoSettings()),
    FinetuningConfig(
        output_dir="taught",
        num_train_epochs=30,
        per_device_train_batch_size=8,
        learning_rate=2e-3,
        lr_scheduler_type="cosine",
        warmup_steps=0.1,
        weight_decay=0.0,
        **quiet,
    ),
    everything,
    processing_class=tokenizer,
)
teacher.train()
teacher.save_model()

# %% [markdown]
# ## Forget
# An adapter is enough, and leaves the model as it was. `for_rows` chooses what is not given by the number of rows and
# says what it chose: among it, to hold back rows to keep for the verdict, and to stop when it is done.

# %%
trainer = NPOTrainer(
    "taught",
    NPOConfig.for_rows("taught", rows["forget"], rows["retain"], adapter=True, output_dir="first", **quiet),
    rows["forget"],
    rows["retain"],
    peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear"),
)
with redirect_stdout(StringIO()):  # a line for every look at the stop condition; they are drawn below
    trainer.train()
trainer.save_model()

# %% [markdown]
# ## Verdict

# %%
verdict = trainer.verdict()
print_verdict(verdict)

# %% [markdown]
# ## Once more, from the command line
# A run is one draw, and another rate may end nearer to the model before. This time the command line does it: it
# leaves a run folder, with the record that report, ask and merge read. It prints the verdict, too; here that is read
# from `verdict.json`.

# %%
options = f"""
    --method npo --model_name_or_path taught --forget_file forget.jsonl --retain_file retain.jsonl
    --use_lora true --learning_rate {2 * trainer.args.learning_rate:g} --output_dir second
    --save_strategy no --report_to none --disable_tqdm true --use_cpu true --logging_steps 1
"""
with redirect_stdout(StringIO()):
    unlearn_hf(["unlearn", *options.split()])
second = json.loads(Path("second/verdict.json").read_text())
print("\n".join(line for line in second["sentences"] if not line.startswith("Not checked")))

# %% [markdown]
# A low probability of the true answers is not the end of it. Here is what still comes out: leaks, and true answers
# that are no more frequent than guessing makes them.

# %%
pd.DataFrame(
    [
        {"run": run, "counts as": kind, **{name: row[name] for name in ("question", "answer", "says")}}
        for run, facts_of_run in (("first", verdict.as_dict()), ("second", second))
        for kind, rows_of_kind in (("leak", facts_of_run["leaking_rows"]), ("guess", facts_of_run["guessed_rows"]))
        for row in rows_of_kind
    ],
    columns=["run", "counts as", "question", "answer", "says"],
).style.hide()

# %% [markdown]
# Both looked at themselves every few steps. Answers to forget go first, rows to keep go with them and come back; so
# the condition to stop asks for both.

# %%
figure, axes = plt.subplots(1, 2, figsize=(11, 3), layout="constrained", sharey=True)
for axis, run in zip(axes, ("first", "second"), strict=True):
    looks = pd.read_json(f"{run}/stop_looks.jsonl", lines=True)
    axis.plot(looks["step"], looks["forget_prob"], marker=".", label="to forget")
    axis.plot(looks["step"], looks["retain_prob"], marker=".", label="to keep")
    axis.set(xlabel="step", title=f"{run} run", ylim=(-0.03, 1.03))
axes[0].set_ylabel("probability per token")
axes[0].legend()
plt.show()

# %% [markdown]
# ## Report
# One HTML page with everything about a run, or several side by side. Its figures are files, too.

# %%
unlearn_hf(["report", "second", "--output_dir", "report"])
Image("report/figures/curves.png", width=900)

# %% [markdown]
# ## Ask
# The same question to the model before and after, with the probability of the true answer.

# %%
for name in list(facts)[:8:7]:
    row = facts[name][0]
    unlearn_hf(["ask", "second", row["question"], "--answer", row["answer"]])
    print()

# %% [markdown]
# ## Merge
# The adapter goes into the model, and both are judged on the same rows: nothing may change but rounding.

# %%
unlearn_hf(["merge", "--model_name_or_path", "second", "--output_dir", "merged"])
