#include "cpu/rnn_plan.h"

#include <algorithm>
#include <stdexcept>
#include <string>

namespace hwnas {

namespace {

constexpr std::int64_t kStagger = 272;  // keeps planes out of each other's cache sets
constexpr std::int64_t kProjectedRows = 256;
constexpr std::int64_t kGradientFloats = std::int64_t{1} << 26;
constexpr std::int64_t kSegmentFloats = 8;  // two pointers, a count, and rounding

std::int64_t pad(std::int64_t features) {
    return (features + 15) / 16 * 16;
}

std::size_t at(std::int64_t index) {
    return static_cast<std::size_t>(index);
}

[[noreturn]] void refuse(std::int64_t cell, std::int64_t node, const std::string& why) {
    throw std::invalid_argument("cell " + std::to_string(cell) + ", node " + std::to_string(node) +
                                ": " + why);
}

}  // namespace

RnnSchedule::RnnSchedule(const RnnSizes& sizes,
                         const std::vector<std::vector<std::int32_t>>& previous,
                         const std::vector<std::vector<std::int32_t>>& activations,
                         const std::vector<std::vector<std::int32_t>>& edge_index,
                         bool carry_last) {
    if (activations.empty() || activations[0].empty() || previous.size() != activations.size() ||
        edge_index.size() != activations.size()) {
        throw std::invalid_argument("previous, activations and edge_index need one list a cell");
    }
    sizes_.steps = sizes.steps;
    sizes_.cells = static_cast<std::int64_t>(activations.size());
    sizes_.batch = sizes.batch;
    sizes_.input = sizes.input;
    sizes_.hidden = sizes.hidden;
    sizes_.nodes = static_cast<std::int64_t>(activations[0].size());
    sizes_.edges = sizes.edges;
    sizes_.carry_last = carry_last;
    const std::size_t all = activations.size() * activations[0].size();
    source_.assign(all, -1);
    activation_.assign(all, 0);
    edge_.assign(all, -1);
    last_.assign(all, 1);
    leaf_.assign(all, 1);
    leaves_.assign(activations.size(), 0);
    for (std::int64_t cell = 0; cell < sizes_.cells; ++cell) {
        take_cell(cell, previous[at(cell)], activations[at(cell)], edge_index[at(cell)]);
    }
    for (std::int64_t level = 0; level < sizes_.nodes; ++level) {
        group_level(level);
    }
    level_.push_back(static_cast<std::int32_t>(groups_.size()));
}

void RnnSchedule::take_cell(std::int64_t cell, const std::vector<std::int32_t>& previous,
                            const std::vector<std::int32_t>& activations,
                            const std::vector<std::int32_t>& edge_index) {
    const std::int64_t nodes = sizes_.nodes;
    if (activations.size() != at(nodes) || previous.size() != at(nodes - 1) ||
        edge_index.size() != at(nodes - 1)) {
        refuse(cell, nodes - 1, "every cell needs as many nodes as the first");
    }
    for (std::int64_t node = 0; node < nodes; ++node) {
        const std::size_t place = at(node * sizes_.cells + cell);
        activation_[place] = activations[at(node)];
        if (activation_[place] < 0 || activation_[place] > 3) {
            refuse(cell, node, "activation " + std::to_string(activation_[place]) + " of 0 to 3");
        }
        if (node == 0) {
            continue;
        }
        const std::int32_t source = previous[at(node - 1)];
        if (source < 0 || source >= node) {
            refuse(cell, node, "reads node " + std::to_string(source));
        }
        const std::int32_t edge = edge_index[at(node - 1)];
        if (edge < 0 || edge >= sizes_.edges) {
            refuse(cell, node, "edge " + std::to_string(edge) + " of " +
                                   std::to_string(sizes_.edges));
        }
        source_[place] = source;
        edge_[place] = edge;
        leaf_[at(source * sizes_.cells + cell)] = 0;
        for (std::int64_t earlier = 1; earlier < node; ++earlier) {
            const std::size_t other = at(earlier * sizes_.cells + cell);
            if (source_[other] == source) {
                last_[other] = 0;
            }
        }
    }
    for (std::int64_t node = 0; node < nodes; ++node) {
        leaves_[at(cell)] += leaf_[at(node * sizes_.cells + cell)];
    }
}

void RnnSchedule::group_level(std::int64_t level) {
    level_.push_back(static_cast<std::int32_t>(groups_.size()));
    const std::size_t base = at(level * sizes_.cells);
    std::vector<std::int32_t> cells(at(sizes_.cells));
    for (std::size_t cell = 0; cell < cells.size(); ++cell) {
        cells[cell] = static_cast<std::int32_t>(cell);
    }
    std::stable_sort(cells.begin(), cells.end(), [&](std::int32_t a, std::int32_t b) {
        return edge_[base + at(a)] < edge_[base + at(b)];
    });
    std::int32_t row = 0;
    for (std::size_t i = 0; i < cells.size(); ++i) {
        const std::size_t place = base + at(cells[i]);
        if (i == 0 || groups_.back().edge != edge_[place]) {
            groups_.push_back(
                {edge_[place], static_cast<std::int32_t>(members_.size()), 0, row, 1});
        } else if (cells[i] != members_.back() + 1 ||
                   source_[place] != source_[base + at(members_.back())]) {
            groups_.back().contiguous = 0;
        }
        members_.push_back(cells[i]);
        ++groups_.back().count;
        row += static_cast<std::int32_t>(sizes_.batch);
    }
}

RnnPlan RnnSchedule::plan() const {
    RnnPlan plan = sizes_;
    plan.rows = plan.cells * plan.batch;
    plan.source = source_.data();
    plan.activation = activation_.data();
    plan.last = last_.data();
    plan.leaf = leaf_.data();
    plan.leaves = leaves_.data();
    plan.groups = groups_.data();
    plan.level = level_.data();
    plan.members = members_.data();
    return plan;
}

std::int64_t rnn_plane(std::int64_t rows, std::int64_t features) {
    return rows * pad(features) + kStagger;
}

std::int64_t rnn_saved(const RnnPlan& plan) {
    return plan.steps * (3 * plan.nodes + 1) * rnn_plane(plan.rows, plan.hidden);
}

std::int64_t rnn_block(const RnnPlan& plan) {
    return std::max<std::int64_t>(1, kProjectedRows / std::max<std::int64_t>(1, plan.rows));
}

std::int64_t rnn_chunk(const RnnPlan& plan) {
    const std::int64_t step = 2 * plan.nodes * rnn_plane(plan.rows, plan.hidden);
    return std::clamp<std::int64_t>(kGradientFloats / step, 1,
                                    std::max<std::int64_t>(1, plan.steps));
}

std::int64_t rnn_segments(const RnnPlan& plan) {
    return rnn_chunk(plan) * plan.nodes *
           (plan.cells + plan.rows / kRnnSegmentRows);
}

std::int64_t rnn_forward_scratch(const RnnPlan& plan) {
    const std::int64_t hidden = pad(plan.hidden);
    return plan.steps * rnn_plane(plan.rows, plan.input) +
           (2 * rnn_block(plan) + 2) * rnn_plane(plan.rows, plan.hidden) +
           2 * hidden * pad(plan.input) + (plan.edges + 1) * 2 * hidden * hidden;
}

std::int64_t rnn_backward_scratch(const RnnPlan& plan, int threads) {
    // Columns of weights come in pairs of panels there.
    const std::int64_t hidden = pad(plan.hidden);
    const std::int64_t planes = 2 * rnn_chunk(plan) * plan.nodes + plan.nodes + 1 + 4;
    return plan.steps * rnn_plane(plan.rows, plan.input) +
           planes * rnn_plane(plan.rows, plan.hidden) +
           2 * hidden * (pad(plan.input) + 16) + (plan.edges + 1) * 2 * hidden * (hidden + 16) +
           threads * rnn_segments(plan) * kSegmentFloats;
}

}  // namespace hwnas
