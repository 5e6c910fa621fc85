"""Types of the compiled core (`csrc/`), which cannot be read from the extension itself."""

from typing import Any, TypedDict

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

# Kernels (csrc/cpu/kernels). Addresses are integers, 0 is null; the callers in kernels/_cpu_*.py
# have checked dtype, layout and shape. A norm is a tuple (statistics, scale, shift, epsilon,
# is_batch) or None, an upstream gradient (gradient, z, norm, sums, gate, relu): kernels/_arena.py.

#: Largest window of a separable convolution.
largest_kernel: int

def isa() -> str:
    """Return the instruction set that kernels run with: ``v2``, ``v3``, ``v4`` or ``plain``.

    Raises:
        UserInputError: HWNAS_ISA names none, or one that this processor lacks; every kernel does.
    """

def best_isa() -> str:
    """Return the best that this processor and its operating system can run."""

def choose_isa(asked: str | None, best: str) -> str:
    """Return what ``HWNAS_ISA=asked`` would choose on a processor that can run `best`.

    Raises:
        UserInputError: `asked` names none, or a better one; or `best` is below what kernels need.
    """

def arena_tensor(shape: tuple[int, ...], is_bytes: bool = False) -> Any:
    """Return a DLPack capsule of an uninitialised float32 (or uint8) tensor in the arena.

    Four dimensions are an image, NHWC in memory; everything else is in C order.

    Raises:
        ValueError: A side is negative, or there are more than five.
        MemoryError: The system has no more.
    """

def arena_state() -> dict[str, int]:
    """Return bytes `in_use`, `cached`, and the `peak` in use since `arena_reset_peak`."""

def arena_reset_peak() -> None:
    """Start a new peak from what is in use."""

def arena_trim() -> None:
    """Return kept blocks to the system."""

def arena_poison(on: bool) -> None:
    """Fill every block with NaN before it is handed out."""

# Their operands are described beside their argument structs, csrc/cpu/kernels/*.h.
def separable(*operands: Any) -> None: ...
def separable_backward(*operands: Any) -> None: ...
def pointwise(*operands: Any) -> None: ...
def pointwise_backward(*operands: Any) -> None: ...
def dense(*operands: Any) -> None: ...
def dense_backward(*operands: Any) -> None: ...
def sampled(*operands: Any) -> None: ...
def sampled_backward(*operands: Any) -> None: ...
def pool(*operands: Any) -> None: ...
def pool_backward(*operands: Any) -> None: ...
def combine(*operands: Any) -> None: ...
def combine_backward(*operands: Any) -> None: ...
def accumulate(*operands: Any) -> None: ...
def rnn_plane(rows: int, features: int) -> int: ...
def rnn_cell(*operands: Any) -> None: ...
def rnn_cell_backward(*operands: Any) -> None: ...
def cell_hash(edges: int, labels: bytes) -> str:
    """Hash a cell of NAS-Bench-101; isomorphic cells, and no others, have the same hash.

    Args:
        edges: Bit ``x + y * (y - 1) // 2`` for an edge from vertex x to vertex y > x.
        labels: One signed byte a vertex, 2 to 8 of them: -1 input, -2 output, else the op's index.

    Returns:
        32 hexadecimal digits, those of the published `ModelSpec.hash_spec`.

    Raises:
        ValueError: The number of vertices is out of range, or an edge names others.
    """

def cell_hashes(
    vertices: NDArray[np.uint8], edges: NDArray[np.uint32], labels: NDArray[np.int8]
) -> NDArray[np.uint8]:
    """Hash N cells, as `cell_hash` does one. The GIL is released.

    Args:
        vertices: Number of vertices, `[N]`.
        edges: `[N]`, coded as for `cell_hash`.
        labels: `[N, 8]`; what stands behind the last vertex is not read.

    Returns:
        Digests, `[N, 16]`.

    Raises:
        ValueError: The shapes do not fit, or a cell is not one.
    """

def enumerate_cells(
    max_vertices: int, max_edges: int, ops: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint32], NDArray[np.int8]]:
    """Return one cell of each class of isomorphic cells, in the published order.

    Args:
        max_vertices: Input and output included, 2 to 7.
        max_edges: Cells with more are left out.
        ops: Number of ops that a vertex between can have, 1 to 16.

    Returns:
        Vertices `[N]`, edges `[N]` and labels `[N, 8]`, coded as for `cell_hashes`.

    Raises:
        ValueError: An argument is out of range.
    """

def cell_distances(
    vertices: NDArray[np.uint8],
    edges: NDArray[np.uint32],
    labels: NDArray[np.int8],
    pairs: NDArray[np.int64],
) -> NDArray[np.uint8]:
    """Return the graph edit distance of P pairs of N cells. The GIL is released.

    Args:
        vertices: As for `cell_hashes`, `[N]`.
        edges: Likewise, `[N]`.
        labels: Likewise, `[N, 8]`.
        pairs: Indices of two cells, `[P, 2]`.

    Returns:
        Number of edits, `[P]`.

    Raises:
        ValueError: The shapes do not fit, a cell is not one, or an index names none.
    """

def masked_crc32c(data: bytes | bytearray | memoryview) -> int:
    """Return the CRC-32C of some bytes in the masked form that TFRecord files store."""

def tfrecord_spans(file: Any) -> NDArray[np.int64]:
    """Find and check all records of a TFRecord file. The GIL is released.

    Args:
        file: The file's bytes, such as an `mmap`.

    Returns:
        Offset and size of the data of each record, `[R, 2]`.

    Raises:
        ValueError: A record is cut off or damaged; the message says which.
    """
