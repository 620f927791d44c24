"""The command line: parsing, run folder, model card, and one module for each verb in `verbs`.

Nothing imports it.
"""
