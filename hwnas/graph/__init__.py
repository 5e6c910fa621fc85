"""Graphs, the ops they are made of, and the picks that shape them."""

from __future__ import annotations

from hwnas.graph.architecture import Answer, Architecture
from hwnas.graph.builder import GraphBuilder, Value
from hwnas.graph.graph import Graph, Node
from hwnas.graph.op import (
    BATCH,
    EVAL,
    OPS,
    TRAIN,
    TRAIN_SHARED,
    Composite,
    Op,
    Primitive,
    RunMode,
    Shape,
    WeightSpec,
)
from hwnas.graph.pick import Decision, Pick

__all__ = [
    "BATCH",
    "EVAL",
    "OPS",
    "TRAIN",
    "TRAIN_SHARED",
    "Answer",
    "Architecture",
    "Composite",
    "Decision",
    "Graph",
    "GraphBuilder",
    "Node",
    "Op",
    "Pick",
    "Primitive",
    "RunMode",
    "Shape",
    "Value",
    "WeightSpec",
]
