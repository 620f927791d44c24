"""Training: configuration, fine-tuning, the base of every unlearning method, checkpoints, callbacks.

From outside: `FinetuningTrainer`, `UnlearningTrainer` and their configurations.
"""
