"""Fills `results.json` from what the finished stages of a run left."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import hwnas
from hwnas.engine.run_folder import RunRecord
from hwnas.graph.architecture import Architecture
from hwnas.report.results import (
    ArchitectureRecord,
    Candidate,
    Drawing,
    DrawnEdge,
    DrawnNode,
    GitState,
    HeadlineRow,
    KernelTime,
    LatencyPrediction,
    PredictionCheck,
    RankingCheck,
    RunResults,
    StageTiming,
    TableProvenance,
)
from hwnas.study.journal import Journal

if TYPE_CHECKING:
    from hwnas.graph import Graph
    from hwnas.spaces import SearchSpace

ROLES = ("baseline", "knee", "fastest", "best")
#: The task of runs that were made before there was another.
CLASSIFICATION = "classification"

_NOTES = {
    "baseline": "largest network of the space",
    "knee": "where more accuracy begins to cost much time",
    "fastest": "fastest candidate",
    "best": "best reward within the budget",
}


def record_of(architecture: Architecture, space: SearchSpace) -> ArchitectureRecord:
    """Return id, answers, and the text form that the space has for it."""
    return ArchitectureRecord(
        id=architecture.id, text=space.format(architecture), answers=architecture.to_json()
    )


def collect(run: RunRecord, journal: Journal, device: Mapping[str, Any]) -> RunResults:
    """Return all that the finished stages found.

    Args:
        run: The run folder.
        journal: Its finished stages.
        device: Fingerprint of the device.
    """
    search = journal.get("search") or {}
    budget = journal.get("budget") or {}
    table = journal.get("profile")
    rows = headline(journal)
    chosen = next((row.role for row in reversed(rows) if row.onnx is not None), None)
    exported = [journal.get(key) for key, _ in journal.seconds() if key.startswith("export/")]
    notes = [f"{each['onnx']}: {note}" for each in exported for note in each["notes"]]
    role = next((row for row in rows if row.role == chosen), None)
    drawn = {} if role is None else journal.get(f"drawing/{role.architecture.id}") or {}
    return RunResults(
        name=run.path.name,
        created=datetime.now(UTC),
        hwnas_version=hwnas.__version__,
        command=run.info.get("command", ""),
        seed=run.seed,
        git=GitState(**run.info["git"]) if run.info.get("git") else None,
        budget_ms=budget.get("budget_ms"),
        device=dict(device),
        table=TableProvenance(**table["provenance"]) if table and table["provenance"] else None,
        chosen=chosen,
        headline=rows,
        front=_front(search, journal),
        kernels=[KernelTime(**each) for each in drawn.get("kernels", ())],
        prediction_checks=[PredictionCheck(**each) for each in journal.get("checks") or ()],
        ranking_checks=_ranking(search, journal),
        drawings=[Drawing(**each) for each in drawn.get("drawings", ())],
        timings=[StageTiming(stage=key, seconds=s) for key, s in journal.seconds() if s > 0],
        notes=list(dict.fromkeys(notes)),
    )


def headline(journal: Journal) -> list[HeadlineRow]:
    """Return one row for each role that the search has filled."""
    search = journal.get("search") or {}
    rows = []
    for role in ROLES:
        pick = search.get("picks", {}).get(role)
        if pick is None:
            continue
        identity = pick["architecture"]["id"]
        trained = journal.get(f"train/{identity}") or {}
        exported = journal.get(f"export/{identity}") or {}
        rows.append(
            HeadlineRow(
                role=role,
                architecture=ArchitectureRecord(**pick["architecture"]),
                accuracy_valid=trained.get("accuracy_valid"),
                accuracy_test=trained.get("accuracy_test"),
                inherited_accuracy=pick["accuracy"],
                predicted=_prediction(pick),
                measured_ms=exported.get("measured_ms"),
                measured_wall_ms=exported.get("wall_ms"),
                measured_spread=exported.get("spread"),
                params=pick["params"],
                macs=pick["macs"],
                train_time_s=trained.get("train_time_s"),
                onnx=exported.get("onnx"),
                parity_max_abs_difference=exported.get("max_abs_difference"),
                note=_NOTES[role],
                task=search.get("task", CLASSIFICATION),
            )
        )
    return rows


def candidates(search: Mapping[str, Any]) -> list[Candidate]:
    """Return the compared candidates, best reward first."""
    return [
        Candidate(
            architecture=ArchitectureRecord(**each["architecture"]),
            accuracy=each["accuracy"],
            is_inherited=search["is_inherited"],
            task=search.get("task", CLASSIFICATION),
            predicted=_prediction(each),
        )
        for each in search.get("candidates", ())
    ]


def draw(graph: Graph, shares: Mapping[str, float]) -> list[Drawing]:
    """Return the whole network as boxes and arrows.

    Args:
        graph: The network.
        shares: Part of the latency of each node, by its index as text.
    """
    from hwnas.graph.draw import outline

    boxes, arrows = outline(graph)
    nodes = [
        DrawnNode(
            id=str(box.id),
            label=box.label,
            detail="×".join(str(size) for size in box.shape),
            kind="input" if box.id == 0 else "output" if box.id in graph.outputs else "op",
            share=shares.get(str(box.id)),
        )
        for box in boxes
    ]
    edges = [DrawnEdge(source=str(a), target=str(b)) for a, b in arrows]
    return [Drawing(title="network", nodes=nodes, edges=edges)]


def _front(search: Mapping[str, Any], journal: Journal) -> list[Candidate]:
    found = []
    for each in candidates(search):
        exported = journal.get(f"export/{each.architecture.id}") or {}
        found.append(each.model_copy(update={"measured_ms": exported.get("measured_ms")}))
    return found


def _ranking(search: Mapping[str, Any], journal: Journal) -> list[RankingCheck]:
    if not search.get("is_inherited"):
        return []
    checks: dict[str, RankingCheck] = {}
    for pick in (*search.get("picks", {}).values(), *search["candidates"]):
        identity = pick["architecture"]["id"]
        trained = journal.get(f"train/{identity}")
        if trained is not None and pick["accuracy"] is not None:
            checks[identity] = RankingCheck(
                architecture_id=identity,
                inherited_accuracy=pick["accuracy"],
                retrained_accuracy=trained["accuracy_valid"],
            )
    return list(checks.values())


def _prediction(pick: Mapping[str, Any]) -> LatencyPrediction | None:
    predicted = pick.get("predicted")
    return None if predicted is None else LatencyPrediction(**predicted)
