"""Make a language model forget chosen data and keep the rest."""

__version__ = "0.1.0"
