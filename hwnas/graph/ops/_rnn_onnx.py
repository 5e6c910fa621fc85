"""The recurrent cell of ENAS in standard ONNX ops: one step, unrolled, or inside a Scan."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from onnx import NodeProto

    from hwnas.graph.op import OnnxNodeWriter
    from hwnas.graph.ops.rnn_cell import RnnCell

#: ONNX's names of the activations 0 to 3; the identity has none.
_FUNCTIONS = ("Tanh", "Relu", "", "Sigmoid")

Emit = Callable[..., str]


class CellWriter:
    """Writes a cell.

    Args:
        cell: The op.
        writer: Takes constants and weights, which a Scan's body sees too.
    """

    def __init__(self, cell: RnnCell, writer: OnnxNodeWriter) -> None:
        self.cell = cell
        self.writer = writer
        size = cell.hidden
        self.axis = writer.constant("axis", np.array([1], np.int64))
        self.one = writer.constant("one", np.array(1, np.float32))
        self.ends = [writer.constant(f"end{end}", np.array([end * size])) for end in range(3)]
        self.count = writer.constant("leaves", np.array(len(cell.averaged()), np.float32))
        if cell.clip is not None:
            self.clip = writer.constant("clip", np.array(cell.clip, np.float32))

    def step(self, emit: Emit, x: str, state: str | None) -> tuple[str, str]:
        """Write one step: `[N, E]` and a state `[N, H]`, None for zeros, to output and state."""
        cell, weight = self.cell, self.writer.weight
        pre = emit("Gemm", [x, weight(cell.weight_names()["input"])], transB=1)
        if state is not None:
            pre = emit("Gemm", [state, weight(cell.weight_names()["hidden"]), pre], transB=1)
        nodes = [self._highway(emit, pre, state, cell.activations[0])]
        for (source, node), name in cell.edge_names().items():
            pre = emit("Gemm", [nodes[source], weight(name)], transB=1)
            nodes.append(self._highway(emit, pre, nodes[source], cell.activations[node]))
        total = emit("Sum", [nodes[each] for each in cell.averaged()])
        mean = emit("Div", [total, self.count])
        after = nodes[-1] if cell.carry_last else mean
        if cell.clip is not None:
            norm = emit("Max", [emit("ReduceL2", [after, self.axis]), self.clip])
            after = emit("Mul", [after, emit("Div", [self.clip, norm])])
        return mean, after

    def unrolled(self, x: str, state: str | None, steps: int) -> str:
        """Write the cell once for each step; `[N, T, E]` to `[N, T, H]`, with the state behind."""
        writer = self.writer
        row = writer.constant("row", np.array([-1, writer.input_shapes[0][1]]))
        places = [writer.constant(f"step{t}", np.array([t])) for t in range(steps + 1)]
        outputs = []
        if state is not None:
            state = self._flat(state)
        for t in range(steps):
            here = writer.emit("Slice", [x, places[t], places[t + 1], self.axis])
            here = writer.emit("Reshape", [here, row])
            output, state = self.step(writer.emit, here, state)
            outputs.append(writer.emit("Unsqueeze", [output, self.axis]))
        if self.cell.with_state and state is not None:
            outputs.append(writer.emit("Unsqueeze", [state, self.axis]))
        return writer.emit("Concat", outputs, axis=1)

    def scan(self, x: str, state: str | None) -> str:
        """Write the cell once, as the body of a Scan over the steps."""
        from onnx import TensorProto, helper

        writer = self.writer
        nodes: list[NodeProto] = []

        def emit(op_type: str, inputs: list[str], **attributes: Any) -> str:
            name = f"{self.axis}.scan{len(nodes)}"
            nodes.append(helper.make_node(op_type, inputs, [name], **attributes))
            return name

        width, size = writer.input_shapes[0][1], self.cell.hidden
        inputs = [f"{self.axis}.state", f"{self.axis}.x"]
        output, after = self.step(emit, inputs[1], inputs[0])
        results = [emit("Identity", [after]), emit("Identity", [output])]
        info = helper.make_tensor_value_info
        sizes = [[None, size], [None, width]]
        body = helper.make_graph(
            nodes,
            "step",
            [info(n, TensorProto.FLOAT, s) for n, s in zip(inputs, sizes, strict=True)],
            [info(name, TensorProto.FLOAT, [None, size]) for name in results],
        )
        start = self._zeros(x) if state is None else self._flat(state)
        last, sequence = writer.emit_many(
            "Scan",
            [start, x],
            2,
            body=body,
            num_scan_inputs=1,
            scan_input_axes=[1],
            scan_output_axes=[1],
        )
        if not self.cell.with_state:
            return sequence
        return writer.emit(
            "Concat", [sequence, writer.emit("Unsqueeze", [last, self.axis])], axis=1
        )

    def _flat(self, state: str) -> str:
        shape = self.writer.constant("flat", np.array([-1, self.cell.hidden]))
        return self.writer.emit("Reshape", [state, shape])

    def _zeros(self, x: str) -> str:
        writer = self.writer
        batch = writer.emit("Shape", [x], start=0, end=1)
        size = writer.constant("size", np.array([self.cell.hidden], np.int64))
        return writer.emit("ConstantOfShape", [writer.emit("Concat", [batch, size], axis=0)])

    def _highway(self, emit: Emit, pre: str, before: str | None, activation: int) -> str:
        gate, value = (
            emit("Slice", [pre, self.ends[half], self.ends[half + 1], self.axis])
            for half in range(2)
        )
        gate = emit("Sigmoid", [gate])
        function = _FUNCTIONS[activation]
        value = emit(function, [value]) if function else value
        new = emit("Mul", [gate, value])
        if before is None:
            return new
        kept = emit("Mul", [emit("Sub", [self.one, gate]), before])
        return emit("Add", [new, kept])
