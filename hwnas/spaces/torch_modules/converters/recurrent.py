"""Recurrent layers."""

from __future__ import annotations

from hwnas.spaces.torch_modules.converting import Call, Traced, Unsupported, converts


@converts("nn.LSTM")
def lstm(call: Call) -> tuple[Traced, tuple[Traced, None]]:
    """Add an lstm for each layer. Its one bias is the sum of PyTorch's two; c is not returned."""
    m, x = call.module, call.tensor()
    call.only(bidirectional=False, proj_size=0, bias=True)
    if call.arg(1, "hx", None) is not None:
        raise Unsupported("can only start from zeros: leave the state out")
    if x.batch != (0 if m.batch_first else 1) or len(x.shape) != 2:
        raise Unsupported("takes [N, T, D] with batch_first=True, or [T, N, D]")
    value, last = x.value, []
    for layer in range(m.num_layers):
        if layer and m.dropout:
            value = call.g.dropout(value, rate=m.dropout)
        width = value.shape[1]
        names = {"input": f"weight_ih_l{layer}", "hidden": f"weight_hh_l{layer}"}
        names["bias"] = f"bias_ih_l{layer}+bias_hh_l{layer}"
        weights = call.weights((4 * m.hidden_size, width), names, f"layer{layer}")
        value = call.g.lstm(value, hidden=m.hidden_size, weights=weights)
        last.append(call.g.slice(value, axis=0, start=x.shape[0] - 1, stop=x.shape[0]))
    h = call.g.join(*last, axis=0) if len(last) > 1 else last[0]
    return Traced(value, x.batch), (Traced(h, 1), None)
