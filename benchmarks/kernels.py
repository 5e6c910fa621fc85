"""How fast are the fused kernels? Forward and backward through the public API, ratio by ratio.

A gate comes first: every op that is timed is compared with float64, and nothing is timed if one of
them is further from it than twice eager float32. Then each figure of the goals is measured:
contenders take turns on one core with one thread, and the ratio of each turn is kept. All seconds
are CPU time on a CPU, and wall time between synchronisations on a GPU.

    python benchmarks/kernels.py                     # a table for people; with torch.compile
    python benchmarks/kernels.py --json              # one JSON object
    python benchmarks/kernels.py --quick             # without torch.compile and the slow ones
    python benchmarks/kernels.py --only "sep_conv"   # rows whose name matches
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from _gate import failures
from _images import (
    CHANNELS_LAST,
    COMPILED,
    FUSED,
    NCHW,
    SHAPES,
    GatedSum,
    mixed_op_of_7,
    pool_bn,
    reduction,
    sep_conv,
)
from _measure import (
    Contender,
    Row,
    Settings,
    interleave,
    machine,
    run_on,
    say,
    usable_cores,
)
from _recurrent import EAGER, ONE_BY_ONE, Cells, LanguageStep
from _training import MicroStep, live_activations, never_seen

#: Restrict both sides to AVX2: our kernels, PyTorch's own and oneDNN's.
AVX2 = {"HWNAS_ISA": "v3", "ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
#: A core counts as free if everybody together uses less of it than this.
BUSY = 0.1


@dataclass(frozen=True)
class Case:
    """Rows that are measured together.

    Attributes:
        goals: What each row is asked for, by its name.
        measure: Returns rows; is given the names that are wanted.
        gated: What has to be right first.
        is_slow: Whether `--quick` leaves it out.
    """

    goals: Mapping[str, float | None]
    measure: Callable[[Sequence[str], Settings], Iterable[Row]]
    gated: tuple[Any, ...] = ()
    is_slow: bool = False


def speed(op: Any, goals: Mapping[str, float | None], *, is_slow: bool = False) -> Case:
    """Return the case of an op against baselines; `goals` are ratios of times."""
    baselines = {f"{op.name}: vs {baseline}": baseline for baseline in goals}

    def measure(names: Sequence[str], settings: Settings) -> list[Row]:
        wanted = [baselines[name] for name in names]
        own = op.settings(settings) if hasattr(op, "settings") else settings
        timings = interleave(op.contenders(wanted, settings), own)
        torch.compiler.reset()
        return [timings.row(name, baselines[name], goals[baselines[name]]) for name in names]

    named = {name: goals[baseline] for name, baseline in baselines.items()}
    return Case(named, measure, (op,), is_slow)


def cases() -> list[Case]:
    """Return all figures of the goals."""
    large, _, small = SHAPES
    sep3 = zip(SHAPES, (3.5, 2.2, 1.8), (7, 4, 3), (3.5, 2.5, 2.3), strict=True)
    sep5 = zip(SHAPES, (4.2, 3.3, 2.5), (11, 9, 7), (4.2, 3.5, 3), strict=True)
    found = [
        speed(sep_conv(kernel, shape), {CHANNELS_LAST: last, NCHW: first, COMPILED: compiled})
        for kernel, table in ((3, sep3), (5, sep5))
        for shape, last, first, compiled in table
    ]
    for pool in ("max", "avg"):
        for shape, goal in zip(SHAPES, (3.5, 2.3, 2), strict=True):
            nchw = {NCHW: 13.0} if shape == large else {}
            found.append(speed(pool_bn(pool, shape), {CHANNELS_LAST: goal, **nchw, COMPILED: 2}))
    return [
        *found,
        speed(reduction(large), {CHANNELS_LAST: 3, NCHW: 3, COMPILED: 1.5}),
        speed(GatedSum(large), {CHANNELS_LAST: 6, NCHW: 6, COMPILED: 2}),
        speed(mixed_op_of_7(large), {CHANNELS_LAST: 6, NCHW: 13, COMPILED: 5}),
        speed(mixed_op_of_7(small), {CHANNELS_LAST: 4}),
        speed(Cells(1000, 64), {EAGER: 1.5, COMPILED: 1.5}, is_slow=True),
        speed(Cells(256, 64), {EAGER: 1.8, COMPILED: 1.8}),
        speed(Cells(256, 20), {EAGER: 2.5, COMPILED: 2.5}),
        speed(Cells(1000, 20, count=8), {ONE_BY_ONE: 1.5}, is_slow=True),
        *(avx2(sep_conv(kernel, large)) for kernel in (3, 5)),
        Case(
            {f"{sep_conv(3, large).name}: live activations": 3.2},
            live_activations,
            (sep_conv(3, large),),
        ),
        Case(
            {
                "ENAS micro supernet step: first of a never-seen child": 1.2,
                "ENAS micro supernet step: recompilations for never-seen children": 0,
            },
            never_seen,
            (MicroStep(),),
            is_slow=True,
        ),
        two_cores(sep_conv(3, large)),
        two_cores(mixed_op_of_7(large)),
        two_cores(Cells(1000, 64), is_slow=True),
        speed(MicroStep(), {CHANNELS_LAST: 3}, is_slow=True),
        speed(LanguageStep(), {EAGER: 1.8}, is_slow=True),
        speed(LanguageStep(words=65), {EAGER: 1.8}, is_slow=True),
    ]


def avx2(op: Any) -> Case:
    """Return the case of an op on a processor that has no AVX-512, or pretends not to."""
    goals = {f"{op.name}: vs {side}": goal for side, goal in ((CHANNELS_LAST, 2.5), (NCHW, 5.0))}
    names = {f"AVX2: {inner}": inner for inner in goals}

    def measure(wanted: Sequence[str], settings: Settings) -> list[Row]:
        reason = "the kernels run on a GPU" if settings.device != "cpu" else None
        if platform.machine().lower() not in {"x86_64", "amd64"}:
            reason = "the processor is no x86-64"
        if reason is not None:
            return [Row.missing(name, "x", goals[names[name]], reason) for name in wanted]
        pattern = "|".join(f"^{re.escape(names[name])}$" for name in wanted)
        command = [sys.executable, __file__, "--json", "--only", pattern]
        command += ["--repeats", str(settings.repeats), "--backend", settings.backend]
        done = subprocess.run(
            command, env=os.environ | AVX2, check=True, stdout=subprocess.PIPE, text=True
        )
        found = {row["name"]: row for row in json.loads(done.stdout)["rows"]}
        return [
            Row(
                **{
                    **found[names[name]],
                    "name": name,
                    "goal": goals[names[name]],
                    "met": found[names[name]]["value"] >= goals[names[name]],
                }
            )
            for name in wanted
        ]

    return Case({name: goals[inner] for name, inner in names.items()}, measure)


def two_cores(op: Any, *, is_slow: bool = False) -> Case:
    """Return the case of an op on two cores against one; both must be free."""
    name = f"{op.name}: two cores vs one"
    goal = 1.7

    def measure(_: Sequence[str], settings: Settings) -> list[Row]:
        reason = why_not_free(settings)
        if reason is not None:
            return [Row.missing(name, "x", goal, reason)]
        fused = op.contenders((), settings)[FUSED]

        def on(count: int) -> Contender:
            def run() -> None:
                run_on(settings, count)
                fused()

            return Contender(run)

        timings = interleave({"one core": on(1), "two cores": on(2)}, settings, wall=True)
        run_on(settings, 1)
        return [timings.row(name, "one core", goal, fast="two cores")]

    return Case({name: goal}, measure, (op,), is_slow)


def why_not_free(settings: Settings) -> str | None:
    """Return why two cores are not free for a measurement, or None if they are."""
    if settings.device != "cpu":
        return "the kernels run on a GPU"
    if len(settings.cores) < 2:
        return f"cores that this process may use: {list(settings.cores) or 'unknown'}"
    before = _busy_ticks()
    time.sleep(1.0)
    after = _busy_ticks()
    for core in settings.cores[:2]:
        share = (after[core] - before[core]) / os.sysconf("SC_CLK_TCK")
        if share > BUSY:
            return f"core {core} was {share:.0%} busy with other work"
    return None


def _busy_ticks() -> dict[int, float]:
    """Return the clock ticks that each core has worked so far (Linux)."""
    found = {}
    for line in Path("/proc/stat").read_text().splitlines():
        match = re.match(r"cpu(\d+) (.*)", line)
        if match:
            user, nice, system, _, _, irq, softirq, steal, *_ = map(float, match[2].split())
            found[int(match[1])] = user + nice + system + irq + softirq + steal
    return found


def wanted_rows(
    pattern: str, settings: Settings, *, is_quick: bool
) -> list[tuple[Case, list[str]]]:
    """Return each case with the names of the rows to measure."""
    chosen = []
    for case in cases():
        names = [name for name in case.goals if re.search(pattern, name)]
        if not settings.has_compile:
            names = [name for name in names if not name.endswith(f"vs {COMPILED}")]
        if names and not (is_quick and case.is_slow):
            chosen.append((case, names))
    return chosen


def gate(chosen: Sequence[tuple[Case, list[str]]], settings: Settings) -> list[str]:
    """Return what is wrong with the ops behind the chosen rows."""
    ops = {op.name: op for case, _ in chosen for op in case.gated}
    found = []
    for op in ops.values():
        say(f"gate: {op.name}")
        found += failures(op, settings.device, settings.backend)
    return found


def measured(chosen: Sequence[tuple[Case, list[str]]], settings: Settings) -> list[Row]:
    """Measure all chosen rows, telling how far it is."""
    total = sum(len(names) for _, names in chosen)
    rows: list[Row] = []
    for case, names in chosen:
        say(f"[{len(rows) + 1}/{total}] {names[0]}" + (" …" if len(names) > 1 else ""))
        rows += case.measure(names, settings)
    return rows


def show(rows: Sequence[Row]) -> None:
    """Print a table for people."""
    width = max(len(row.name) for row in rows)
    for row in rows:
        mark = {True: "met", False: "MISSED", None: "-"}[row.met]
        goal = "" if row.goal is None else f"{row.goal:g}"
        if row.value is None:
            print(f"{row.name:{width}}  {'':>20} {goal:>6}  {mark:6}  {row.against}")
        else:
            spread = f"{row.p50:6.2f} [{row.p20:.2f}, {row.p80:.2f}]"
            print(f"{row.name:{width}}  {spread:>20} {goal:>6}  {mark:6}  {row.against}")


def main() -> int:
    """Check, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--list", action="store_true", help="print names and goals; run nothing")
    parser.add_argument(
        "--only", default="", metavar="PATTERN", help="rows whose name has this regular expression"
    )
    parser.add_argument("--quick", action="store_true", help="no torch.compile, no slow rows")
    parser.add_argument("--repeats", type=int, default=30, help="interleaved turns of each row")
    parser.add_argument("--seconds", type=float, default=450.0, help="fewer turns beyond that")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--backend", help="kernels to judge (default: those hwnas would choose)")
    arguments = parser.parse_args()

    backend = arguments.backend or {"cpu": "cpu", "cuda": "triton"}[arguments.device]
    settings = Settings(
        arguments.device,
        backend,
        arguments.repeats,
        arguments.seconds,
        has_compile=not arguments.quick,
        cores=usable_cores(),
    )
    chosen = wanted_rows(arguments.only, settings, is_quick=arguments.quick)
    if not chosen:
        parser.error(f"no row matches {arguments.only!r}; --list shows them all")
    if arguments.list:
        for case, names in chosen:
            for name in names:
                print(f"{name}\t{case.goals[name]}")
        return 0
    if settings.device == "cpu":
        run_on(settings, 1)
    wrong = gate(chosen, settings)
    if wrong:
        print("the kernels are wrong, nothing is timed:", *wrong, sep="\n  ", file=sys.stderr)
        return 1
    rows = measured(chosen, settings)
    if arguments.json:
        found = {"machine": machine(settings), "rows": [row.to_json() for row in rows]}
        print(json.dumps(found))
    else:
        show(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
