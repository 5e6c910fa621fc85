// What a set of timings says about a kernel, on a machine that is shared with others.
//
// No statistic of one burst repeats there: neighbours slow the memory system by up to two times for
// seconds on end, and the noise is one-sided (nothing ever makes a kernel run faster than it can).
// So a tiny anchor kernel is timed just before and just after every sample, and a sample counts
// only if both anchors ran at their clean speed. The minimum of those is the estimate; the
// quantiles say how far to trust it.
#pragma once

#include <cstddef>

namespace hwnas {

struct TimingStatistics {
    double anchor_clean;   // time of the anchor on an undisturbed machine
    std::size_t accepted;  // samples whose both anchors are within tolerance of anchor_clean
    double minimum;        // of the accepted samples, or of all samples where accepted is 0
    double median;
    double p20;
    double p80;
};

// Gates `count` samples by their anchors and summarises those that pass.
//
// Where the caller knows how fast the undisturbed anchor is, from more anchors than these, it gives
// that as `anchor_clean`. If that is 0, it is the 10 % quantile of all `2 * count` anchor times, taken as an observed value
// (the one of rank ceil(0.1 * 2 * count)): as long as a tenth of the run was undisturbed it is a
// clean time, and a single timer glitch in a long run does not move it. A sample is accepted if
// neither anchor is slower than anchor_clean * (1 + tolerance). Other quantiles interpolate
// linearly between order statistics. The unit is the caller's, the same for all times.
//
// Throws std::invalid_argument, naming the operand, the position and the value: there is no
// sample, or a time or the tolerance is negative, NaN or infinite.
TimingStatistics timing_statistics(const double* samples, const double* anchor_before,
                                   const double* anchor_after, std::size_t count,
                                   double tolerance, double anchor_clean = 0.0);

}  // namespace hwnas
