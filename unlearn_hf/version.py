"""The version, where every room can read it without the public names."""

__version__ = "0.2.0"
