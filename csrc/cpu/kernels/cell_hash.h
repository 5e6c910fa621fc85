// The isomorphism-invariant hash of NAS-Bench-101's cells, byte for byte the published one.
//
// Published: `hash_module` of nasbench/lib/graph_util.py. Each vertex starts from the MD5 of
// "(out-degree, in-degree, label)"; as many times as there are vertices, it becomes the MD5 of its
// predecessors' digests, sorted, "|", its successors', sorted, "|", its own; the cell's hash is the
// MD5 of the sorted list of digests as Python prints it. The vertices of a round do not depend on
// each other: they are hashed side by side, one a lane.
#pragma once

#include <cstdint>

#include "cpu/cell.h"
#include "cpu/isa.h"

namespace hwnas {

struct CellHashArgs {
    const Cell* cells;  // [count], each of 1 to kCellVertices vertices
    std::int64_t count;
    std::uint8_t* digests;  // [count, 16]
};

HWNAS_KERNEL(cell_hashes, CellHashArgs)

}  // namespace hwnas
