"""Latency tables measured on real devices, as data: `schema.json`, `<device>/<runtime>.json`.

This folder is installed as `hwnas.latency_tables` and holds no code; `hwnas.latency` reads it.
"""
