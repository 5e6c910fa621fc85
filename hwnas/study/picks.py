"""Which of the compared architectures are shown and trained: best, knee, fastest, baseline."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hwnas.errors import UserInputError
from hwnas.graph import Answer, Decision
from hwnas.graph.architecture import Architecture
from hwnas.spaces import SearchSpace
from hwnas.study.journal import Journal


def descend(
    space: SearchSpace,
    start: Architecture,
    cost: Callable[[Sequence[Architecture]], Sequence[float]],
    rounds: int = 3,
) -> tuple[Architecture, float]:
    """Lower a cost by changing one decision at a time until no single change helps.

    Args:
        space: The search space.
        start: Where to begin.
        cost: Costs of several architectures; called once for each decision.
        rounds: Passes over all decisions at most.

    Returns:
        The best architecture found and its cost; a local optimum.
    """
    best, lowest = start, float(cost([start])[0])
    for _ in range(rounds):
        before = lowest
        for name in [each.name for each in space.decisions_of(best.replay())]:
            now = {each.name: each for each in space.decisions_of(best.replay())}
            if name not in now:
                continue  # an earlier change removed it
            decision = now[name]  # which may have changed its options
            changed = [
                each
                for index in range(min(decision.count, _MOST_OPTIONS))
                if (each := _with(space, best, decision.name, decision.decode(index))) != best
            ]
            if not changed:
                continue
            costs = cost(changed)
            index = min(range(len(changed)), key=lambda i: float(costs[i]))
            if float(costs[index]) < lowest:
                best, lowest = changed[index], float(costs[index])
        if lowest >= before:
            break
    return best, lowest


_MOST_OPTIONS = 64


def _with(
    space: SearchSpace, architecture: Architecture, name: str, answer: Answer
) -> Architecture:
    """Return a copy with one answer changed; what no longer fits gets its first option."""
    changed = Architecture({**architecture, name: answer})
    try:
        space.graph(changed)
    except UserInputError:
        pass  # other decisions come up after this one, or other options
    else:
        return changed

    def reply(decision: Decision) -> Answer:
        if decision.name == name:
            return answer
        known = architecture.get(decision.name)
        try:
            decision.check(known)  # type: ignore[arg-type]  # None is refused like any other
        except UserInputError:
            return decision.decode(0)
        return known  # type: ignore[return-value]

    return space.realise(reply)[0]


def filled(journal: Journal, roles: Sequence[str]) -> Sequence[str]:
    """Return the roles without those that a given architecture, with no rivals, leaves empty."""
    picks = (journal.get("search") or {}).get("picks", {})
    return ["best"] if list(picks) == ["best"] else roles


def chosen(journal: Journal, picks: Sequence[str]) -> list[Architecture]:
    """Return the architectures of roles or ids of a finished search, each once.

    Raises:
        UserInputError: There is no search yet, or no such pick.
    """
    folder = journal.path.parent
    search = journal.get("search")
    if search is None:
        raise UserInputError(f"{folder} has no finished search", f"hwnas search --resume {folder}")
    known = {each["architecture"]["id"]: each["architecture"] for each in search["candidates"]}
    known |= {role: each["architecture"] for role, each in search["picks"].items()}
    found: dict[str, Architecture] = {}
    for pick in picks:
        if pick not in known:
            raise UserInputError(
                f"{pick!r} is no pick of {folder}",
                f"use one of {', '.join(search['picks'])}, or the id of a candidate in "
                "results.json",
            )
        architecture = Architecture.from_json(known[pick]["answers"])
        found[architecture.id] = architecture
    return list(found.values())


def largest(space: SearchSpace, samples: Sequence[Architecture]) -> Architecture:
    """Return the architecture with the most multiply-accumulates that can be found.

    Climbs from the largest of the samples, one decision at a time.
    """
    from hwnas.graph.counts import macs

    def size(architectures: Sequence[Architecture]) -> list[float]:
        return [-float(macs(space.graph(each))) for each in architectures]

    start = min(samples, key=lambda each: size([each])[0])
    return descend(space, start, size)[0]
