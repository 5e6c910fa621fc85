"""Latency: measure a device kernel by kernel, then predict whole networks.

`Device` says what is measured, `timing` how, `kernels` what the device's runtime makes of a
network, `profiler` fills a `LatencyTable`, `decompose` finds a graph's kernels without exporting
it, and `predictor` turns them into milliseconds with an interval. Importing this package imports
neither onnx nor onnxruntime.
"""
