"""Models: loading, what is inside wrappers, shards, fingerprints, selective checkpointing.

Nothing here knows about data or training.
"""
