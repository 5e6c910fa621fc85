"""The whole path from Python: search, train, export and report on handwritten digits.

Takes a minute or two, most of it to measure this machine. In a folder of your choice:

    python examples/digits.py
"""

from __future__ import annotations

from hwnas import Study

OVERRIDES = [
    "search.epochs=2",  # 30 in the recipe; here it is to be quick, not good
    "train.epochs=3",
    "latency.profile_samples=24",
    "latency.check_samples=0",
]


def main() -> None:
    """Search with a budget that half of the space keeps, and print what was found."""
    study = Study(
        "digits_demo",
        OVERRIDES,
        on_stage=lambda name, summary, seconds: print(f"{name:<8} {summary}  ({seconds:.0f} s)"),
    )
    found = study.search()
    print(f"{len(found.candidates)} candidates within {found.budget_ms:.3g} ms")
    study.train(["best"])
    exported = study.export("best")
    for label, text in exported.lines():
        print(f"{label:<10} {text}")
    print(f"report     {study.report()}")


if __name__ == "__main__":
    main()
