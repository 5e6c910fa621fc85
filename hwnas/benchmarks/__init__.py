"""Benchmarks of architecture search: tables that answer instead of a training."""
