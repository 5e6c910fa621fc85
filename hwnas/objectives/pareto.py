"""Fronts of accuracy against latency: who is not beaten, how good the front is, where it bends.

A point is (accuracy, latency in ms): accuracy is maximised, latency minimised. Points with a NaN
or an infinite coordinate (failed or unmeasured trials) are never on a front and count for nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hwnas.errors import HwnasError

_MAXIMISE = [True, False]


def front(points: ArrayLike) -> NDArray[np.int64]:
    """Return the indices of the points that no other point beats.

    Args:
        points: `[N, 2]` accuracy and latency_ms; `N` may be 0.

    Returns:
        Indices into `points` by rising latency, and so by rising accuracy. Of equal points only
        the first is listed.

    Raises:
        HwnasError: `points` is not `[N, 2]`.
    """
    array = _as_points(points)
    finite = np.flatnonzero(np.isfinite(array).all(axis=1))
    if len(finite) == 0:
        return np.empty(0, np.int64)
    import moocore

    chosen = finite[moocore.is_nondominated(array[finite], maximise=_MAXIMISE)]
    return np.asarray(chosen[np.argsort(array[chosen, 1])], np.int64)


def hypervolume(points: ArrayLike, reference: Sequence[float]) -> float:
    """Return the area that the points beat, seen from a reference point.

    Args:
        points: `[N, 2]` accuracy and latency_ms; points that do not beat the reference in both
            coordinates add nothing.
        reference: Accuracy and latency_ms that are just not good enough.

    Returns:
        Area in accuracy (0 to 1) times ms; 0 without points.

    Raises:
        HwnasError: `points` is not `[N, 2]`, or the reference is not two finite numbers.
    """
    array = _as_points(points)
    corner = np.asarray(reference, np.float64)
    if corner.shape != (2,) or not np.isfinite(corner).all():
        raise HwnasError(f"a reference point is two finite numbers, not {reference}")
    array = array[np.isfinite(array).all(axis=1)]
    if len(array) == 0:
        return 0.0
    import moocore

    return float(moocore.hypervolume(array, ref=corner, maximise=_MAXIMISE))


def reference_point(points: ArrayLike) -> tuple[float, float]:
    """Return a reference a little worse than every point, so that each one counts.

    Args:
        points: `[N, 2]` accuracy and latency_ms, at least one of them finite.

    Returns:
        The worst accuracy and the worst latency_ms, worse by a tenth of the range (of the value
        where the range is zero, of 1 where that is zero too).

    Raises:
        HwnasError: There is no finite point.
    """
    array = _finite(points)
    low, high = array.min(axis=0), array.max(axis=0)
    size = np.where(high > low, high - low, np.abs(high))
    margin = 0.1 * np.where(size > 0, size, 1.0)
    return float(low[0] - margin[0]), float(high[1] + margin[1])


def knee(points: ArrayLike) -> int:
    """Return the index of the point where the front bends most.

    With both coordinates of the front scaled to 0..1, it is the point farthest above the straight
    line from the fastest to the most accurate point: beyond it, a little accuracy costs a lot of
    time (Das 1999, "On characterizing the knee of the Pareto curve"). Where nothing lies above
    that line (a front of one or two points, or a hollow one), it is the most accurate point.

    Args:
        points: `[N, 2]` accuracy and latency_ms, at least one of them finite.

    Returns:
        An index into `points`, always one of `front(points)`.

    Raises:
        HwnasError: There is no finite point.
    """
    _finite(points)
    array = _as_points(points)
    indices = front(array)
    on_front = array[indices]
    low, high = on_front.min(axis=0), on_front.max(axis=0)
    scaled = (on_front - low) / np.where(high > low, high - low, 1.0)
    height = scaled[:, 0] - scaled[:, 1]
    best = int(np.argmax(height))
    # The ends are at 0; what rounding leaves of a straight line is no knee.
    return int(indices[best] if height[best] > 1e-9 else indices[-1])


def _as_points(points: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(points, np.float64)
    if array.size == 0:
        return np.empty((0, 2))
    if array.ndim != 2 or array.shape[1] != 2:
        raise HwnasError(f"points must be [N, 2] (accuracy, latency_ms), not {list(array.shape)}")
    return array


def _finite(points: ArrayLike) -> NDArray[np.float64]:
    array = _as_points(points)
    array = array[np.isfinite(array).all(axis=1)]
    if len(array) == 0:
        raise HwnasError("there is no point with a finite accuracy and latency")
    return array
