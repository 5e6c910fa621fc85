"""NAS-Bench-101 (Ying et al. 2019) without TensorFlow.

A script that was written for the published package changes its import line and runs::

    from hwnas.benchmarks.nasbench101 import api      # was: from nasbench import api

    nasbench = api.NASBench("nasbench_only108.tfrecord")
    data = nasbench.query(api.ModelSpec(matrix=[[0, 1], [0, 0]], ops=["input", "output"]))

The modules `config`, `graph_util` and `model_spec` stand in the place of those in `nasbench.lib`.
"""
