"""The two search loops, the run folder, and the executors."""

from hwnas.engine.progress import Interrupted, Progress, Silent

__all__ = ["Interrupted", "Progress", "Silent"]
