"""Converters: one file for each kind of call. None imports torch."""
