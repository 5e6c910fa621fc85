from __future__ import annotations

from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest

from hwnas.engine.derive import Derivation
from hwnas.engine.one_shot import OneShot
from hwnas.engine.run_folder import RunFolder
from hwnas.errors import InfeasibleConstraint
from hwnas.estimators._minibatches import Minibatches


@pytest.fixture(scope="module")
def search(small: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Any:
    with RunFolder.create(tmp_path_factory.mktemp("derive") / "run", {}, seed=3) as run:
        search = small.build(run, "enas", epochs=2)
        search.run()
        yield search


def derivation(search: OneShot, **changes: Any) -> Derivation:
    arguments: dict[str, Any] = {
        "settings": search.settings,
        "space": search.space,
        "strategy": search.strategy,
        "store": search.store,
        "batches": search.batches,
        "judge": search.judge,
    }
    return Derivation(**{**arguments, **changes})


@pytest.mark.parametrize("statistics", ["batch", "recalibrated"])
def test_candidates_keep_to_the_budget_and_are_ranked(
    search: OneShot, small: ModuleType, statistics: str
) -> None:
    settings = search.settings.model_copy(update={"derive_statistics": statistics})
    candidates = derivation(search, settings=settings).run()
    assert settings.derive_samples <= len(candidates) <= settings.derive_samples + 1  # best guess
    rewards = [candidate.reward for candidate in candidates]
    assert rewards == sorted(rewards, reverse=True)
    assert len({candidate.architecture for candidate in candidates}) == len(candidates)
    for each in candidates:
        assert 0 <= each.accuracy <= 1
        assert each.latency_ms is not None
        assert each.latency_ms <= small.BUDGET_MS
        assert each.reward == pytest.approx(each.accuracy - 0.1 * each.latency_ms)


def test_the_comparison_repeats_exactly_and_changes_nothing(search: OneShot) -> None:
    before = {name: value.clone() for name, value in search.store.state().items()}
    first = derivation(search).run()
    assert derivation(search).run() == first
    assert all(
        value.equal(before[name]) for name, value in search.store.state().items() if name in before
    )


def test_what_else_is_known_is_compared_too_unless_it_breaks_the_budget(
    search: OneShot, small: ModuleType
) -> None:
    known = {a.id: a for a in (t.architecture for t in search.folder.trials.all())}
    [cheap, *_] = sorted(known.values(), key=lambda a: search.judge.price([a])[0].latency_ms or 0)
    [dear, *_] = sorted(known.values(), key=lambda a: -(search.judge.price([a])[0].latency_ms or 0))
    found = {c.architecture for c in derivation(search).run([cheap, dear, cheap])}
    assert cheap in found
    assert dear not in found


def test_a_budget_that_nothing_meets_is_said_with_the_fastest(search: OneShot) -> None:
    judge = replace(search.judge, max_latency_ms=1e-6)
    with pytest.raises(InfeasibleConstraint, match=r"1e-06 ms of latency \(the fastest") as e:
        derivation(search, judge=judge).run()
    assert e.value.exit_code == 4
    assert e.value.hint


def test_without_a_budget_everything_is_feasible(search: OneShot) -> None:
    judge = replace(
        search.judge, max_latency_ms=None, predict_latency=None, reward=lambda m: m.accuracy
    )
    candidates = derivation(search, judge=judge).run()
    assert all(candidate.latency_ms is None for candidate in candidates)


def test_batches_of_a_search_do_not_repeat_until_all_were_seen(search: OneShot) -> None:
    batches: Minibatches = search.batches
    seen = [batches.valid(number)[1].tolist() for number in range(2 * batches.valid_count)]
    assert seen[: batches.valid_count] == seen[batches.valid_count :]
    assert len({tuple(each) for each in seen}) == batches.valid_count
    first, second = next(batches.train(0))[0], next(batches.train(1))[0]
    assert not first.equal(second)
    assert first.equal(next(batches.train(0))[0])
