"""Ready configurations, as data: ``hwnas init RECIPE FILE`` copies one of them.

This folder is installed as `hwnas.recipes` and holds no code; `hwnas.cli` reads it.
"""
