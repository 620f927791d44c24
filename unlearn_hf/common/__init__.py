"""What every room uses and that knows nothing of models: checks of values, files, versions, optional packages.

All of it is light: neither torch nor transformers is imported.
"""
