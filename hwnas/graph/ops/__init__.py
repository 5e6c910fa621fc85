"""The ops: one file an op or small family."""
