#include "timing_stats.h"

#include <algorithm>
#include <cmath>
#include <sstream>
#include <stdexcept>
#include <vector>

namespace hwnas {

namespace {

void check_time(const char* name, const double* values, std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) {
        if (!(std::isfinite(values[i]) && values[i] >= 0.0)) {
            std::ostringstream message;
            message << name << "[" << i << "] = " << values[i]
                    << " is not a time: it must be finite and not negative";
            throw std::invalid_argument(message.str());
        }
    }
}

// The observed value that a tenth of all anchors do not exceed.
double clean_speed(const double* before, const double* after, std::size_t count) {
    std::vector<double> anchors(before, before + count);
    anchors.insert(anchors.end(), after, after + count);
    const std::size_t rank = (anchors.size() + 9) / 10 - 1;
    const auto position = anchors.begin() + static_cast<std::ptrdiff_t>(rank);
    std::nth_element(anchors.begin(), position, anchors.end());
    return *position;
}

double quantile(const std::vector<double>& sorted, double q) {
    const double position = q * static_cast<double>(sorted.size() - 1);
    const auto below = static_cast<std::size_t>(position);
    const std::size_t above = std::min(below + 1, sorted.size() - 1);
    const double share = position - static_cast<double>(below);
    return sorted[below] + share * (sorted[above] - sorted[below]);
}

}  // namespace

TimingStatistics timing_statistics(const double* samples, const double* anchor_before,
                                   const double* anchor_after, std::size_t count,
                                   double tolerance, double anchor_clean) {
    if (count == 0) {
        throw std::invalid_argument("samples is empty: at least one timing is needed");
    }
    if (!(std::isfinite(tolerance) && tolerance >= 0.0)) {
        std::ostringstream message;
        message << "tolerance = " << tolerance << " must be finite and not negative";
        throw std::invalid_argument(message.str());
    }
    check_time("samples", samples, count);
    check_time("anchor_before", anchor_before, count);
    check_time("anchor_after", anchor_after, count);

    TimingStatistics result{};
    check_time("anchor_clean", &anchor_clean, 1);
    result.anchor_clean =
        anchor_clean > 0.0 ? anchor_clean : clean_speed(anchor_before, anchor_after, count);
    const double limit = result.anchor_clean * (1.0 + tolerance);
    std::vector<double> kept;
    kept.reserve(count);
    for (std::size_t i = 0; i < count; ++i) {
        if (anchor_before[i] <= limit && anchor_after[i] <= limit) {
            kept.push_back(samples[i]);
        }
    }
    result.accepted = kept.size();
    if (kept.empty()) {
        kept.assign(samples, samples + count);
    }
    std::sort(kept.begin(), kept.end());
    result.minimum = kept.front();
    result.median = quantile(kept, 0.5);
    result.p20 = quantile(kept, 0.2);
    result.p80 = quantile(kept, 0.8);
    return result;
}

}  // namespace hwnas
