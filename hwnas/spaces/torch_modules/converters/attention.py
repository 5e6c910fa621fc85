"""Matrix products of two tensors, and attention."""

from __future__ import annotations

from hwnas.graph.builder import Value
from hwnas.spaces.torch_modules.converters.layers import add_linear
from hwnas.spaces.torch_modules.converting import Call, Traced, Unsupported, converts


@converts("matmul", "bmm")
def matmul(call: Call) -> Traced:
    """Add a matmul; leading axes are broadcast."""
    a, b = call.tensor(0), call.tensor(1, "other")
    if a.ndim < 2 or b.ndim < 2:
        raise Unsupported("takes matrices: vectors need an axis more")
    shape = call.shape
    batch = call.common_batch([a, b], len(shape))
    if batch is None or batch >= len(shape) - 2:
        raise Unsupported("multiplies along the batch")
    values = [call.fitted(each, (*shape[:-2], *each.shape[-2:]), batch) for each in (a, b)]
    return Traced(call.g.matmul(*values), batch)


@converts("scaled_dot_product_attention")
def scaled_dot_product_attention(call: Call) -> Traced:
    """Add an attention."""
    if call.arg(3, "attn_mask", None) is not None or call.arg(5, "is_causal", default=False):
        raise Unsupported("masks cannot be converted")
    if call.kwargs.get("enable_gqa", False):
        raise Unsupported("enable_gqa cannot be converted")
    tensors = [call.tensor(i, name) for i, name in enumerate(("query", "key", "value"))]
    batch = tensors[0].batch
    if batch is None or batch >= tensors[0].ndim - 2 or len({t.batch for t in tensors}) != 1:
        raise Unsupported("takes three tensors [N, …, T, D]")
    rate = float(call.arg(4, "dropout_p", 0.0))
    scale = call.kwargs.get("scale")
    value = call.g.attention(*(t.value for t in tensors), scale=scale, dropout=rate)
    return Traced(value, batch)


@converts("nn.MultiheadAttention")
def multihead_attention(call: Call) -> tuple[Traced | None, ...]:
    """Add self-attention: one linear for queries, keys and values, attention, one linear."""
    m = call.module
    x, key, value = (call.tensor(i, name) for i, name in enumerate(("query", "key", "value")))
    if not x == key == value:
        raise Unsupported("can only be self-attention: query, key and value are one tensor")
    call.only(_qkv_same_embed_dim=True, bias_k=None, bias_v=None, add_zero_attn=False)
    for place, name in ((3, "key_padding_mask"), (5, "attn_mask")):
        if call.arg(place, name, None) is not None:
            raise Unsupported(f"{name} cannot be converted")
    if x.batch != (0 if m.batch_first else 1) or len(x.shape) != 2:
        raise Unsupported("takes [N, T, D] with batch_first=True, or [T, N, D]")
    length, width = x.shape
    names = ("in_proj_weight", "in_proj_bias")
    has_bias = m.in_proj_bias is not None
    packed = add_linear(call, x, (3 * width, width), has_bias=has_bias, part="in_proj", names=names)

    def heads(which: int) -> Value:
        """Return queries, keys or values as (heads, T, D / heads)."""
        part = call.g.slice(packed.value, axis=1, start=which * width, stop=(which + 1) * width)
        split = call.g.reshape(part, size=(length, m.num_heads, width // m.num_heads))
        return call.g.permute(split, axes=(1, 0, 2))

    seen = call.g.attention(heads(0), heads(1), heads(2), dropout=m.dropout)
    joined = call.g.reshape(call.g.permute(seen, axes=(1, 0, 2)), size=(length, width))
    result = add_linear(
        call,
        Traced(joined, x.batch),
        (width, width),
        has_bias=m.out_proj.bias is not None,
        part="out_proj",
        names=("out_proj.weight", "out_proj.bias"),
    )
    return result, None
