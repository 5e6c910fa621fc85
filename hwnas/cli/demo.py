"""`hwnas demo`: everything, on handwritten digits, in about a minute or two."""

from __future__ import annotations

from typing import Annotated

import typer

from hwnas.cli._app import Verb
from hwnas.cli._options import BudgetOption, DeviceOption, OutOption, ResumeOption, SeedOption
from hwnas.cli._progress import progress_for
from hwnas.cli._session import Session, command_line
from hwnas.cli._tables import headline_table

VERB = Verb(order=120, examples=("hwnas demo", "hwnas demo --seconds 30 --max-latency-ms 0.1"))


def command(
    session: Session,
    seconds: Annotated[
        float, typer.Option("--seconds", min=5, help="Time for search and training together.")
    ] = 60.0,
    max_latency_ms: BudgetOption = None,
    device: DeviceOption = None,
    seed: SeedOption = None,
    out: OutOption = None,
    resume: ResumeOption = None,
) -> None:
    """Profile this machine, search, train, export and report, on handwritten digits."""
    from hwnas.study.demo import Demo

    session.stages = Demo.stages
    demo = Demo(
        seconds,
        max_latency_ms=max_latency_ms,
        device=device,
        seed=seed,
        resume=resume,
        progress=progress_for(session, with_notes=False),
        on_stage=session.stage,
    )
    session.start(demo.study.title())
    done = demo.run(out, on_folder=session.resumes("demo"))
    session.stop_progress()
    session.say()
    session.say(headline_table(done.rows, chosen_path=done.onnx))
    for note in done.notes:
        session.say(f"note: {note}")
    session.finish(
        done.to_json(),
        made=[("Network", done.onnx), ("Report", done.report)],
        then=[
            (command_line("hwnas", "bench", done.onnx), "measure it again"),
            ("hwnas init cifar10_enas_micro my.yaml", "start your own search"),
        ],
    )
