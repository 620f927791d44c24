"""Likelihoods of answers, lean: logits at answer positions only, in chunks, without padding.

From outside: `answer_likelihood` and `run_pass`.
"""
