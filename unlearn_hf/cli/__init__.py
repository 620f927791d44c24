"""The command line: parsing, run folder, and one module for each verb in `verbs`.

Nothing imports it.
"""
