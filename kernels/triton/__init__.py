"""Triton kernels: the stages of `hwnas.kernels.backend` for GPUs. See docs/kernels.md."""
