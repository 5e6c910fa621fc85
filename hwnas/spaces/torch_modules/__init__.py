"""From a `torch.nn.Module` that marks its choices to a graph: pick, make, trace, convert."""
