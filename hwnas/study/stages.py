"""The stages of a run: each does its work and returns what it found as a JSON value."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwnas.engine.derive import Candidate
from hwnas.engine.progress import Progress
from hwnas.engine.run_folder import RunFolder
from hwnas.engine.seeds import derive_seed
from hwnas.errors import UserInputError
from hwnas.graph.architecture import Architecture
from hwnas.graph.counts import macs, params
from hwnas.study import results
from hwnas.study.config import TrainConfig
from hwnas.study.context import Context
from hwnas.study.journal import Journal
from hwnas.study.picks import largest

if TYPE_CHECKING:
    from hwnas.study.pricing import Pricing

_BASELINE_SAMPLES = 50
#: A pick reaches at least this part of the best candidate's accuracy.
_USEFUL = 0.9


def search_stage(
    context: Context,
    folder: RunFolder,
    journal: Journal,
    pricing: Pricing,
    budget_ms: float | None,
    progress: Progress,
) -> dict[str, Any]:
    """Search, and choose the picks among the candidates."""
    from hwnas.study.searching import Search

    train_time = pricing.train_time_predictor(journal)
    ms = None if context.config.latency.skip else pricing.ms
    found = Search(context, folder, ms, budget_ms, train_time, progress).run()
    if context.space.given is not None:
        only = _candidate(context, pricing, found[0])
        return {
            "is_inherited": False,
            "task": context.dataset.task,
            "length": "no search",
            "candidates": [only],
            "picks": {"best": only},
        }
    is_inherited = context.config.search.loop == "one_shot"
    done = folder.checkpoints.steps()[-1] if is_inherited else folder.trials.count()
    return {
        "is_inherited": is_inherited,
        "task": context.dataset.task,
        "length": f"{done} {'epochs' if is_inherited else 'trials'}",
        "candidates": [_candidate(context, pricing, each) for each in found],
        "picks": _picks(context, pricing, found),
    }


def train_stage(
    context: Context,
    folder: Path,
    architecture: Architecture,
    settings: TrainConfig,
    progress: Progress,
) -> dict[str, Any]:
    """Train one pick from scratch and evaluate it on the test split."""
    from hwnas.study.training import Training

    training = Training(settings, folder, context.dataset, context.config.seed, progress)
    return training.run(architecture, context.deployed.graph(architecture)).to_json()


def export_stage(
    context: Context,
    folder: Path,
    journal: Journal,
    architecture: Architecture,
    pricing: Pricing,
    pick: str,
    out: Path | None,
    *,
    verify: bool,
) -> dict[str, Any]:
    """Write the ONNX file and the model card, compare with PyTorch, measure.

    Raises:
        UserInputError: The pick has not been trained.
        DeviceError: The file computes something else than PyTorch.
        RunFolderError: The file cannot be written.
    """
    from hwnas.engine.files import replace_file
    from hwnas.export.onnx import OPSET, to_onnx
    from hwnas.study.exporting import (
        Exported,
        check_parity,
        judge_latency,
        weights_of,
        write_card,
    )
    from hwnas.study.training import Trained, load_weights

    found = journal.get(f"train/{architecture.id}")
    if found is None:
        raise UserInputError(
            f"{pick} ({architecture.id}) has not been trained",
            f"hwnas train {folder} --pick {pick}",
        )
    trained = Trained.from_json(found)
    graph, store = context.deployed.graph(architecture), load_weights(folder, trained)
    model = to_onnx(graph, weights_of(store))
    path = out or folder / f"{pick}.onnx"
    card = path.with_suffix(".md")
    replace_file(path, model.SerializeToString())

    (predicted,) = pricing.records([architecture])
    predicted_ms = None if predicted is None else predicted["ms"]
    budget_ms = (journal.get("budget") or {}).get("budget_ms")
    if pick == "baseline":
        budget_ms = None  # it is there to compare with, not to meet the budget
    facts: dict[str, Any] = {
        "onnx": path.name if out is None else str(path.resolve()),
        "card": card.name if out is None else str(card.resolve()),
        "opset": OPSET,
        "predicted_ms": predicted_ms,
        "low_ms": None if predicted is None else predicted["low_ms"],
        "high_ms": None if predicted is None else predicted["high_ms"],
        "budget_ms": budget_ms,
        "accuracy_test": trained.accuracy_test,
        "task": context.dataset.task,
    }
    if verify:
        difference, samples, same = check_parity(model, graph, store, context.dataset)
        facts |= {
            "max_abs_difference": difference,
            "parity_samples": samples,
            "same_class": same,
        }
    if verify and pricing.can_measure:
        measured = pricing.measure({"model": model})["model"]
        facts |= {
            "measured_ms": measured.ms,
            "wall_ms": measured.wall_ms,
            "spread": measured.spread,
            "accepted": measured.accepted,
            "notes": judge_latency(measured, predicted_ms, budget_ms),
        }
    exported = Exported(**facts)
    write_card(path, exported, _card_facts(context, folder, architecture, trained))
    _draw(context, journal, architecture, pricing)
    return exported.to_json()


_DRAWS_PER_CHECK = 5


def check_stage(context: Context, pricing: Pricing) -> list[dict[str, Any]]:
    """Measure random networks of the space that were not profiled, and predict each."""
    from hwnas.export.onnx import to_onnx

    if context.config.latency.skip or not pricing.can_measure:
        return []
    rng = random.Random(derive_seed(context.config.seed, "check"))
    count = context.config.latency.check_samples
    profiled = {each.id.rpartition("/")[2] for each in pricing.table.networks}
    drawn = dict.fromkeys(context.space.sample(rng) for _ in range(_DRAWS_PER_CHECK * count))
    samples = [each for each in drawn if each.id not in profiled][:count]
    if not samples:
        return []
    models = {each.id: to_onnx(context.deployed.graph(each)) for each in samples}
    measured = pricing.measure(models)
    return [
        {
            "architecture_id": each.id,
            "predicted": prediction,
            "measured_ms": measured[each.id].ms,
            "was_profiled": False,
        }
        for each, prediction in zip(samples, pricing.records(samples), strict=True)
    ]


def _picks(
    context: Context, pricing: Pricing, found: Sequence[Candidate]
) -> dict[str, dict[str, Any]]:
    """Return the candidate of each role: best, knee, fastest; and the largest network."""
    from hwnas.objectives.pareto import knee

    # Among the front's fastest are networks that have learned nothing: nobody wants those.
    least = _USEFUL * max(each.accuracy for each in found)
    useful = [each for each in found if each.accuracy >= least]
    points = [(each.accuracy, each.latency_ms or 1.0) for each in useful]
    rng = random.Random(derive_seed(context.config.seed, "baseline"))
    samples = [context.space.sample(rng) for _ in range(_BASELINE_SAMPLES)]
    baseline = largest(context.deployed, samples)
    known = {each.architecture: each for each in found}
    picks = {
        "best": found[0],
        "knee": useful[knee(points)],
        "fastest": min(useful, key=lambda each: (each.latency_ms or 0.0, -each.accuracy)),
        "baseline": known.get(baseline) or Candidate(baseline, float("nan"), None, float("nan")),
    }
    return {role: _candidate(context, pricing, each) for role, each in picks.items()}


def _candidate(context: Context, pricing: Pricing, candidate: Candidate) -> dict[str, Any]:
    graph = context.deployed.graph(candidate.architecture)
    is_known = candidate.accuracy == candidate.accuracy
    (predicted,) = pricing.records([candidate.architecture])
    record = results.record_of(candidate.architecture, context.deployed)
    return {
        "architecture": record.model_dump(mode="json"),
        "accuracy": candidate.accuracy if is_known else None,
        "reward": candidate.reward if is_known else None,
        "predicted": predicted,
        "params": params(graph),
        "macs": macs(graph),
    }


def _card_facts(
    context: Context, folder: Path, architecture: Architecture, trained: Any
) -> dict[str, Any]:
    from hwnas.supernet.tasks import task_of

    dataset = context.dataset
    text = context.deployed.format(architecture)
    return {
        "run": folder.name,
        "architecture": {"id": architecture.id, **architecture.to_json()},
        **({} if text is None else {"architecture_text": text}),
        "data": context.config.data.name,
        "input": task_of(dataset).card(dataset),
        "classes": list(dataset.class_names),
        "params": trained.params,
        "macs": trained.macs,
        "training": {
            "epochs": trained.epochs,
            "accuracy_valid": trained.accuracy_valid,
            "accuracy_test": trained.accuracy_test,
            "seed": context.config.seed,
        },
        "device": context.device.fingerprint.to_json(),
    }


def _draw(context: Context, journal: Journal, architecture: Architecture, pricing: Pricing) -> None:
    """Remember the drawing and the kernels of an exported network."""
    graph = context.deployed.graph(architecture)
    kernels, shares = pricing.kernels(architecture)
    drawings = [each.model_dump(mode="json") for each in results.draw(graph, shares)]
    journal.put(f"drawing/{architecture.id}", {"kernels": kernels, "drawings": drawings}, 0.0)
