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
# # Add a method
#
# A method chooses two weights per step. This notebook defines one that is not in the library, runs it beside two that
# are, and looks at what its weight did. Everything else (objectives, adapters, accumulation, several GPUs, resuming)
# it inherits. `docs/extending/method.md` lists what may be overridden. Offline, on a CPU, in under two minutes.

# %%
import logging
import os
import tempfile
import warnings
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path

warnings.filterwarnings("ignore", message="IProgress not found")
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it tells that there is no GPU
os.environ["TQDM_DISABLE"] = "1"  # progress bars would fill the page

import matplotlib.pyplot as plt
import pandas as pd

from unlearn_hf import METHODS, FinetuningConfig, FinetuningTrainer, UnlearningConfig, UnlearningTrainer, load_tofu
from unlearn_hf.cli.demo import DemoSettings, new_model, train_tokenizer

folder = Path(tempfile.mkdtemp())
quiet = {"save_strategy": "no", "report_to": "none", "disable_tqdm": True, "use_cpu": True, "weight_decay": 0.0}

# %% [markdown]
# ## The idea
# Keep the retain loss $l_r$ near where it began, $l_0$, by a proportional controller: the further it has risen, the
# more it counts. With a gain $k$, minimise
#
# $$l_f + w\,l_r, \qquad w = 1 + k \max\left(0,\; \frac{l_r}{l_0} - 1\right),$$
#
# where $l_r$ is what the step before measured. A configuration says what there is to choose and refuses what is
# wrong.


# %%
@dataclass
class ProportionalConfig(UnlearningConfig):
    gain: float = field(
        default=1.0, metadata={"help": "How much a relative rise of the retain loss adds to its weight."}
    )

    def __post_init__(self):
        if self.gain < 0:
            raise ValueError(f"gain: {self.gain} is negative, so harm would be rewarded; give 0 or more.")
        super().__post_init__()


class ProportionalTrainer(UnlearningTrainer):
    """Proportional control: minimise `l_f + w l_r`, where w grows with the rise of l_r over its first value."""

    config_class = ProportionalConfig
    paper = {"title": "An example", "url": "https://example.org", "citation": "Nobody, 2026."}

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.first_loss, self.rise = None, 0.0

    def loss_weights(self):
        return 1.0, 1.0 + self.args.gain * max(0.0, self.rise)

    def after_step(self, before, after):
        self.first_loss = self.first_loss or before.retain
        self.rise = before.retain / self.first_loss - 1

    def method_state(self):  # what a checkpoint keeps
        return {"first_loss": self.first_loss, "rise": self.rise}

    def load_method_state(self, state):
        self.first_loss, self.rise = state["first_loss"], state["rise"]


METHODS["proportional"] = ProportionalTrainer  # now the command line and its help know it, too

try:
    ProportionalConfig(output_dir="none", gain=-1)
except ValueError as problem:
    print(problem)

# %% [markdown]
# ## A model that knows forty invented authors

# %%
tofu = load_tofu("forget10", source="mini")
tokenizer = train_tokenizer([f"Question: {row['question']}\nAnswer: {row['answer']}" for row in tofu["full"]], 1000)
target = FinetuningTrainer(
    new_model(tokenizer, DemoSettings(hidden_size=96, layers=4)),
    FinetuningConfig(
        output_dir=str(folder / "target"),
        num_train_epochs=20,
        per_device_train_batch_size=16,
        learning_rate=4e-3,
        lr_scheduler_type="cosine",
        logging_strategy="no",
        **quiet,
    ),
    tofu["full"],
    processing_class=tokenizer,
)
target.train()
target.save_model()

# %% [markdown]
# ## Beside others
# `npo` has fixed weights, `eupmu` a dual variable that follows what each step did. A gain of 0 is `npo` again, which
# is the first thing to check.

# %%
runs = {
    "npo": ("npo", {}),
    "gain 0": ("proportional", {"gain": 0.0}),
    "gain 1": ("proportional", {"gain": 1.0}),
    "gain 5": ("proportional", {"gain": 5.0}),
    "eupmu": ("eupmu", {}),
}
judged = {"forget": tofu["forget"], "retain": tofu["retain"].select(range(0, 360, 6))}
logs, table = {}, []
for name, (method, options) in runs.items():
    trainer_class = METHODS[method]
    trainer = trainer_class(
        model=str(folder / "target"),
        args=trainer_class.config_class(
            output_dir=str(folder / name),
            num_train_epochs=10,
            per_device_train_batch_size=8,
            per_device_eval_batch_size=60,
            learning_rate=3e-4,
            lr_scheduler_type="constant",
            logging_steps=1,
            reference_cache=str(folder / "reference"),
            verdict=False,
            forget_loss="npo",
            retain_loss="nll",
            **options,
            **quiet,
        ),
        forget_dataset=tofu["forget"],
        retain_dataset=tofu["retain"],
        eval_dataset=judged,
    )
    with redirect_stdout(StringIO()):
        trainer.train()
        losses = trainer.evaluate()
    logs[name] = [line for line in trainer.state.log_history if "retain_weight" in line]
    table.append({"run": name, **{f"{part} NLL": losses[f"eval_{part}_loss"] for part in judged}})
pd.DataFrame(table).style.format(precision=3).hide()

# %% [markdown]
# `gain 0` and `npo` agree. The retain loss of a batch, and the weight that followed:

# %%
figure, axes = plt.subplots(1, 2, figsize=(11, 3.6), layout="constrained", sharex=True)
for name, lines in logs.items():
    if name == "gain 0":
        continue
    steps = [line["step"] for line in lines]
    axes[0].plot(steps, [line["retain_loss"] for line in lines], label=name)
    axes[1].plot(steps, [line["retain_weight"] for line in lines])
axes[0].set(xlabel="step", ylabel="retain loss", yscale="log", title="harm")
axes[1].set(xlabel="step", ylabel="weight of the retain loss", yscale="log", title="answer")
figure.legend(loc="outside upper center", ncols=4, frameon=False)
plt.show()
