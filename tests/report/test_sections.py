"""Every section: drawn with data, a reason without, and true to the numbers."""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import plotly.graph_objects
import pytest

from hwnas.report import parts
from hwnas.report.cells import cell_drawings
from hwnas.report.results import Drawing, HeadlineRow, LatencyPrediction, RankingCheck, RunResults
from hwnas.report.run_data import RunData, Trial
from hwnas.report.sections import SECTIONS, Section
from hwnas.spaces.darts import Darts

NAMES = SECTIONS.names()
ORDER = [
    "headline",
    "pareto_front",
    "search_progress",
    "chosen_network",
    "kernel_times",
    "predictor_trust",
    "ranking_trust",
    "operation_statistics",
    "device_card",
    "trials_table",
]
Run = Callable[..., RunData]


def section(name: str) -> Section:
    return SECTIONS.get(name)()


def flat(fragment: Sequence[parts.Part]) -> Iterator[parts.Part]:
    for part in fragment:
        yield part
        if isinstance(part, (parts.Grid, parts.Details)):
            yield from flat(part.parts)


def of_kind(fragment: Sequence[parts.Part], kind: type) -> list[Any]:
    return [part for part in flat(fragment) if isinstance(part, kind)]


def text_of(fragment: Sequence[parts.Part]) -> str:
    return json.dumps([dataclasses.asdict(part) for part in flat(fragment)], default=str)


def rows_of(table: parts.Table) -> list[list[str]]:
    return [[cell.text for cell in row] for row in table.rows]


def with_results(run: RunData, **changes: Any) -> RunData:
    assert run.results is not None
    return dataclasses.replace(run, results=run.results.model_copy(update=changes))


def test_the_sections_are_those_of_the_design_in_their_order() -> None:
    found = sorted(SECTIONS.items(), key=lambda item: item[1].order)
    assert [name for name, _ in found] == ORDER


@pytest.mark.parametrize("name", NAMES)
def test_a_section_draws_a_whole_run(name: str, make_run: Run) -> None:
    run = make_run()
    each = section(name)
    assert each.applicable(run) is None
    fragment = each.render(run)
    assert fragment
    for table in of_kind(fragment, parts.Table):
        assert {len(row) for row in table.rows} <= {len(table.columns)}
        assert table.caption
    for figure in of_kind(fragment, parts.Figure):
        assert figure.alt
        assert figure.caption
        # Plotly's own schema check: an unknown trace or layout setting raises.
        plotly.graph_objects.Figure(data=list(figure.data), layout=dict(figure.layout))


@pytest.mark.parametrize("name", NAMES)
def test_a_section_says_why_an_empty_run_cannot_be_drawn(name: str) -> None:
    reason = section(name).applicable(RunData(Path("empty")))
    assert reason is not None
    assert reason.endswith(".")


@pytest.mark.parametrize("name", NAMES)
def test_a_section_says_why_empty_results_cannot_be_drawn(name: str, results: RunResults) -> None:
    empty = RunResults(name="x", created=results.created)
    assert section(name).applicable(RunData(Path("empty"), results=empty)) is not None


@pytest.mark.parametrize("name", NAMES)
def test_a_section_compares_runs_of_which_one_is_empty(name: str, make_run: Run) -> None:
    runs = [make_run("first"), RunData(Path("second")), make_run("third", seed=5)]
    fragment = section(name).compare(runs)
    content = text_of(fragment)
    assert all(run.name in content for run in runs)


@pytest.mark.parametrize("name", NAMES)
def test_a_section_draws_results_in_which_all_that_may_be_unknown_is(
    name: str, make_run: Run
) -> None:
    run = make_run(trials=3)
    assert run.results is not None
    bare = with_results(
        run,
        headline=[
            HeadlineRow(role="knee", architecture=row.architecture)
            for row in run.results.headline[:1]
        ],
        front=[each.model_copy(update={"measured_ms": None}) for each in run.results.front[:1]],
        prediction_checks=[
            each.model_copy(update={"predicted": LatencyPrediction(ms=1.0)})
            for each in run.results.prediction_checks[:1]
        ],
        git=None,
        table=None,
        seed=None,
        timings=[],
        budget_ms=None,
    )
    each = section(name)
    if each.applicable(bare) is None:
        assert each.render(bare)


class TestHeadline:
    def test_the_sentence_compares_the_chosen_network_with_the_baseline(
        self, make_run: Run
    ) -> None:
        [lead] = list(of_kind(section("headline").render(make_run()), parts.Text))
        assert "reaches an accuracy of 90.1\u202f% on the test split" in lead.text
        assert "1.86\u202fms, measured on this device" in lead.text
        assert "1.7 times faster and 1.1 points less accurate than the baseline" in lead.text

    def test_a_missed_budget_is_said_plainly(self, make_run: Run) -> None:
        fragment = section("headline").render(make_run(budget_ms=1.5))
        [callout] = of_kind(fragment, parts.Callout)
        assert callout.level == "warning"
        assert "misses the budget of 1.50\u202fms" in callout.title
        assert "24.0 % over" in callout.text

    def test_a_budget_within_the_spread_of_the_measurement_is_too_close_to_call(
        self, make_run: Run
    ) -> None:
        fragment = section("headline").render(make_run(budget_ms=1.87))
        [callout] = of_kind(fragment, parts.Callout)
        assert callout.level == "warning"
        assert "too close to call" in callout.title
        assert "0.5 % below it, with a spread of 2 %" in callout.text

    def test_the_command_and_the_chosen_row_are_shown(self, make_run: Run) -> None:
        run = make_run()
        assert run.results is not None
        fragment = section("headline").render(run)
        [command] = of_kind(fragment, parts.Command)
        assert command.text == run.results.command
        table = of_kind(fragment, parts.Table)[0]
        assert [row[0] for row in rows_of(table)] == ["baseline", "best", "knee", "fastest"]
        assert table.marked == {2}


class TestParetoFront:
    def test_predictions_are_hollow_and_measurements_filled(self, make_run: Run) -> None:
        [figure] = of_kind(section("pareto_front").render(make_run()), parts.Figure)
        symbols = {trace["name"]: trace["marker"]["symbol"] for trace in figure.data[3:-1]}
        assert symbols["measured"] == "circle"
        assert symbols["predicted"] == "circle-open"
        assert any(trace.get("opacity", 1) < 1 for trace in figure.data)
        assert figure.layout["shapes"][0]["x0"] == 2.0

    def test_every_candidate_with_both_coordinates_is_drawn_once_a_kind(
        self, make_run: Run
    ) -> None:
        run = make_run()
        assert run.results is not None
        [figure] = of_kind(section("pareto_front").render(run), parts.Figure)
        drawn = [t for t in figure.data if t.get("name") == "measured"]
        measured = [each for each in run.results.front if each.measured_ms is not None]
        assert sum(len(trace["x"]) for trace in drawn) == len(measured)

    def test_runs_with_different_budgets_share_no_budget_line(self, make_run: Run) -> None:
        runs = [make_run("a"), make_run("b", budget_ms=1.0)]
        fragment = section("pareto_front").compare(runs)
        [figure] = of_kind(fragment, parts.Figure)
        assert "shapes" not in figure.layout
        assert "b: budget 1.00" in text_of(fragment).replace("\\u202f", " ")


class TestSearchProgress:
    def test_the_best_feasible_accuracy_never_falls(self, make_run: Run) -> None:
        figure = of_kind(section("search_progress").render(make_run()), parts.Figure)[0]
        best = [value for value in figure.data[-1]["y"] if value is not None]
        assert best == sorted(best)

    def test_the_hypervolume_never_falls(self, make_run: Run) -> None:
        figures = of_kind(section("search_progress").render(make_run()), parts.Figure)
        [figure] = [f for f in figures if f.layout["yaxis"]["title"]["text"].startswith("Hyper")]
        areas = figure.data[0]["y"]
        assert len(areas) > 100
        assert all(a <= b + 1e-12 for a, b in itertools.pairwise(areas))

    def test_a_run_without_feasible_trials_is_drawn(self, make_run: Run) -> None:
        fragment = section("search_progress").render(make_run(budget_ms=0.01))
        assert "0 of them within the budget" in text_of(fragment)


class TestChosenNetwork:
    def test_cells_are_drawn_from_the_picks_and_the_whole_network_is_folded_away(
        self, make_run: Run
    ) -> None:
        run = make_run()
        assert run.results is not None
        assert run.results.chosen_row is not None
        answers = run.results.chosen_row.architecture.answers
        fragment = section("chosen_network").render(run)
        titles = [each.drawing.title for each in of_kind(fragment, parts.DrawnGraph)]
        assert titles == ["Normal cell", "Reduction cell", "network"]
        drawing = of_kind(fragment, parts.DrawnGraph)[0].drawing
        ops = [node.label for node in drawing.nodes if node.kind == "op"]
        assert ops == [answers[f"normal/node{i}/op{side}"] for i in range(4) for side in (1, 2)]
        targets = {edge.target for edge in drawing.edges}
        sources = {edge.source for edge in drawing.edges}
        assert {node.id for node in drawing.nodes} - sources == {"output"}
        assert {node.id for node in drawing.nodes} - targets == {"0", "1"}

    def test_the_text_of_the_network_can_be_copied(self, make_run: Run) -> None:
        run = make_run()
        assert run.results is not None
        row = run.results.chosen_row
        assert row is not None
        texts = [
            each.text for each in of_kind(section("chosen_network").render(run), parts.Command)
        ]
        assert texts == []
        changed = row.model_copy(
            update={"architecture": row.architecture.model_copy(update={"text": "0 2 0 0"})}
        )
        rows = [changed if each is row else each for each in run.results.headline]
        run = dataclasses.replace(run, results=run.results.model_copy(update={"headline": rows}))
        texts = [
            each.text for each in of_kind(section("chosen_network").render(run), parts.Command)
        ]
        assert texts == ["0 2 0 0"]

    def test_the_output_of_a_cell_is_what_the_space_says(self) -> None:
        answers = {
            f"{cell}/node{i}/{part}": value
            for cell in ("normal", "reduction")
            for i in range(2)
            for part, value in (("input1", i), ("input2", i + 1), ("op1", "a"), ("op2", "b"))
        }
        said = Darts.cell_outputs(Darts.Config(nodes=2, reduce_concat=(1, 3)))

        def outputs(drawing: Drawing) -> list[str]:
            return [edge.source for edge in drawing.edges if edge.target == "output"]

        assert [outputs(each) for each in cell_drawings(answers)] == [["3"], ["3"]]
        assert [outputs(each) for each in cell_drawings(answers, said)] == [["2", "3"], ["1", "3"]]

    def test_a_space_without_cells_shows_the_whole_network(self) -> None:
        assert cell_drawings({"layer0/op": "conv", "width": 3}) == []

    @pytest.mark.parametrize(
        "broken",
        [
            {"a/node0/input2": 2},
            {"a/node0/input1": "x"},
            {"a/node2/op1": "late"},
            {"a/node0/op2": None},
        ],
    )
    def test_a_cell_of_another_form_is_not_drawn(self, broken: dict[str, Any]) -> None:
        good = {
            "a/node0/input1": 0,
            "a/node0/input2": 1,
            "a/node0/op1": "conv",
            "a/node0/op2": "pool",
        }
        assert len(cell_drawings(good)) == 1
        changed = {k: v for k, v in (good | broken).items() if v is not None}
        assert cell_drawings(changed) == []


class TestKernelTimes:
    def test_kernels_that_cannot_be_of_the_chosen_network_warn(self, make_run: Run) -> None:
        run = make_run(chosen="knee")
        assert run.results is not None
        kernels = [each.model_copy(update={"ms": 1.0}) for each in run.results.kernels]
        fragment = section("kernel_times").render(with_results(run, kernels=kernels))
        titles = [callout.title for callout in of_kind(fragment, parts.Callout)]
        assert "These kernels do not fit the chosen network." in titles

    def test_kernels_that_were_not_measured_are_counted(self, make_run: Run) -> None:
        [callout] = of_kind(section("kernel_times").render(make_run()), parts.Callout)
        assert callout.title == "3 of 38 kernels were not measured themselves."


class TestPredictorTrust:
    def test_a_budget_inside_the_error_band_warns(self, make_run: Run) -> None:
        fragment = section("predictor_trust").render(make_run())
        titles = [callout.title for callout in of_kind(fragment, parts.Callout)]
        assert titles == ["The budget lies inside the error band of the prediction."]

    def test_a_budget_far_away_does_not_warn(self, make_run: Run) -> None:
        fragment = section("predictor_trust").render(make_run(budget_ms=9.0))
        assert of_kind(fragment, parts.Callout) == []

    def test_only_new_architectures_are_judged(self, make_run: Run) -> None:
        run = make_run()
        assert run.results is not None
        new = [check for check in run.results.prediction_checks if not check.was_profiled]
        [facts] = of_kind(section("predictor_trust").render(run), parts.Facts)
        assert dict(facts.items)["Architectures checked"] == str(len(new))
        assert len(new) < 30


class TestRankingTrust:
    @pytest.mark.parametrize("count", [0, 1, 2])
    def test_fewer_than_three_networks_have_no_ranking(self, make_run: Run, count: int) -> None:
        run = make_run()
        assert run.results is not None
        few = with_results(run, ranking_checks=run.results.ranking_checks[:count])
        reason = section("ranking_trust").applicable(few)
        assert reason is not None
        assert "a ranking needs 3 or more" in reason

    def test_a_reversed_ranking_warns(self, make_run: Run) -> None:
        checks = [
            RankingCheck(
                architecture_id=str(i), inherited_accuracy=i / 10, retrained_accuracy=0.9 - i / 10
            )
            for i in range(4)
        ]
        fragment = section("ranking_trust").render(with_results(make_run(), ranking_checks=checks))
        [callout] = of_kind(fragment, parts.Callout)
        assert callout.level == "warning"
        assert "τ = -1.00" in callout.title

    def test_ties_everywhere_are_no_ranking(self, make_run: Run) -> None:
        checks = [
            RankingCheck(architecture_id=str(i), inherited_accuracy=0.5, retrained_accuracy=i / 9)
            for i in range(4)
        ]
        reason = section("ranking_trust").applicable(
            with_results(make_run(), ranking_checks=checks)
        )
        assert reason is not None
        assert "tie" in reason


class TestOperationStatistics:
    def test_the_answer_of_the_best_stands_first(self) -> None:
        trials = [
            Trial(
                i,
                "complete",
                str(i),
                answers={"layer0/op": "good" if i >= 90 else "bad", "layer1/op": "same"},
                reward=float(i),
            )
            for i in range(100)
        ]
        fragment = section("operation_statistics").render(RunData(Path("r"), trials=tuple(trials)))
        table = of_kind(fragment, parts.Table)[1]
        assert rows_of(table)[0] == ["layer0/op", "bad", "0.0\u202f%", "90.0\u202f%", "-90.0"]
        assert rows_of(table)[-1] == ["layer1/op", "same", "100.0\u202f%", "100.0\u202f%", "+0.0"]

    def test_settings_are_checked_and_used(self) -> None:
        cls = SECTIONS.get("operation_statistics")
        with pytest.raises(ValueError, match="best_share"):
            cls.Config(best_share=2.0)  # type: ignore[call-arg]
        few = (Trial(0, "complete", "a", answers={"x": 1}, reward=1.0),) * 2
        run = RunData(Path("r"), trials=few)
        assert cls().applicable(run) is not None
        assert cls(cls.Config(fewest=2)).applicable(run) is None  # type: ignore[call-arg]


class TestDeviceCard:
    def test_an_old_foreign_table_of_another_runtime_warns_three_times(self, make_run: Run) -> None:
        run = make_run()
        assert run.results is not None
        assert run.results.table is not None
        table = run.results.table.model_copy(
            update={
                "created": run.results.created - timedelta(days=400),
                "device_matches": False,
                "runtime_version": "1.20.0",
            }
        )
        callouts = of_kind(
            section("device_card").render(with_results(run, table=table)), parts.Callout
        )
        assert [callout.level for callout in callouts] == ["warning"] * 3
        assert "400 days old" in callouts[2].title

    def test_a_fresh_table_does_not_warn(self, make_run: Run) -> None:
        assert of_kind(section("device_card").render(make_run()), parts.Callout) == []


class TestTrialsTable:
    def test_the_downloads_hold_every_trial(self, make_run: Run) -> None:
        run = make_run(trials=700)
        fragment = section("trials_table").render(run)
        as_json, as_csv = of_kind(fragment, parts.Download)
        assert [each["trial_id"] for each in json.loads(as_json.content)] == list(range(700))
        rows = list(csv.DictReader(io.StringIO(as_csv.content)))
        assert len(rows) == 700
        assert rows[20]["message"] == "the loss became NaN in epoch 3"
        assert rows[0]["normal/node0/op1"]
        assert len(of_kind(fragment, parts.Table)[0].rows) == 500

    def test_failed_trials_stand_last_and_have_their_message(self, make_run: Run) -> None:
        fragment = section("trials_table").render(make_run())
        everything, failures = of_kind(fragment, parts.Table)
        assert everything.rows[-1][1].text == "failed"
        assert {row[2] for row in rows_of(failures)} == {"the loss became NaN in epoch 3"}

    def test_a_message_cannot_become_a_formula_in_a_spreadsheet(self) -> None:
        trial = Trial(0, "failed", "id", message="=HYPERLINK(1)")
        fragment = section("trials_table").render(RunData(Path("r"), trials=(trial,)))
        assert "'=HYPERLINK(1)" in of_kind(fragment, parts.Download)[1].content
