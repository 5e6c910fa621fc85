"""Weights by name, running a graph with them, and training them."""
