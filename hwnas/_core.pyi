"""Types of the compiled core (`csrc/`), which cannot be read from the extension itself."""

from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

class TimingStatistics(TypedDict):
    """What anchor-gated timings say; all times are in the unit of the samples.

    Exists for type checkers only: at run time the value is a plain `dict`.

    Attributes:
        anchor_clean: time of the anchor on an undisturbed machine: 10 % quantile of all anchors.
        accepted: number of samples whose both anchors are within tolerance of `anchor_clean`.
        minimum: least accepted sample, or least of all samples where `accepted` is 0.
        median: median of the same samples as `minimum`.
        p20: 20 % quantile of the same samples, linearly interpolated.
        p80: 80 % quantile of the same samples, linearly interpolated.
    """

    anchor_clean: float
    accepted: int
    minimum: float
    median: float
    p20: float
    p80: float

def sum_latencies(
    table: NDArray[np.float64],
    kernel_ids: NDArray[np.int32],
    offsets: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Sum table entries per architecture.

    `K` is the number of kernels in the table, `A` the number of architectures and `M` the number
    of kernels in all of them together. The order of summation is fixed, so the same input gives
    the same bits. The GIL is released: another thread must not write to the operands meanwhile.

    Args:
        table: `[K]` time of each kernel, in any unit.
        kernel_ids: `[M]` indices into `table`, those of one architecture after the other.
        offsets: `[A + 1]` where each architecture starts in `kernel_ids`, and `M` at the end.

    Returns:
        `[A]` `table[kernel_ids[offsets[a]:offsets[a + 1]]].sum()` for each architecture, in the
        unit of `table`.

    Raises:
        ValueError: an id is no index of `table`, or `offsets` does not start at 0, falls, or does
            not end at `M`; the message names the operand, the position and the value.
        TypeError: an operand would lose information in the cast to its dtype.
    """

def timing_statistics(
    samples: NDArray[np.float64],
    anchor_before: NDArray[np.float64],
    anchor_after: NDArray[np.float64],
    tolerance: float,
    anchor_clean: float = 0.0,
) -> TimingStatistics:
    """Summarise the samples that were taken while the machine ran at its clean speed.

    `N` is the number of samples. A sample is accepted if neither anchor is slower than the clean
    anchor time times `1 + tolerance`. If none is accepted, all samples are summarised and
    `accepted` is 0: the caller decides what such numbers are worth.

    Args:
        samples: `[N]` measured times, in any unit.
        anchor_before: `[N]` time of the anchor kernel just before each sample.
        anchor_after: `[N]` time of the anchor kernel just after each sample.
        anchor_clean: time of the undisturbed anchor, in the same unit; 0 to take the 10 %
            quantile of the anchors given here.
        tolerance: how much slower than clean an anchor may be, as a fraction (0.06 is 6 %).

    Returns:
        The statistics of the accepted samples.

    Raises:
        ValueError: `N` is 0, lengths differ, or a time or `tolerance` is negative, NaN or
            infinite; the message names the operand, the position and the value.
    """
