import json
import math
import pickle
import random
from pathlib import Path

import pytest
from pydantic import ValidationError

from hwnas.benchmarks.table import TableBenchmark
from hwnas.data import DATASETS
from hwnas.errors import TrialFailed, UserInputError
from hwnas.estimators import ESTIMATORS
from hwnas.spaces.conv_chain import ConvChain
from hwnas.spaces.nasbench101 import NasBench101, architecture_of
from hwnas.spaces.nasbench201 import NasBench201, from_arch_str

SHARED = Path(__file__).parents[2].parent / "shared/data/nasbench"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data/nasbench is not here")
SPACE_101 = NasBench101(NasBench101.Config(), (3, 32, 32), 10)
SPACE_201 = NasBench201(NasBench201.Config(), (3, 32, 32), 10)
CHAIN = ConvChain(ConvChain.Config(max_depth=3, max_width=32), (1, 8, 8), 10)
ARCH_STR = "|none~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|"


class Frame:
    """What of pandas is used."""

    def __init__(self, columns):
        self.columns = columns

    def to_dict(self, orient):
        assert orient == "list"
        return self.columns


@needs_shared
def test_all_of_nas_bench_201_is_found():
    pytest.importorskip("pyarrow")
    table = TableBenchmark.read(SHARED / "nasbench201.parquet", SPACE_201)
    assert len(table) == 15_625
    first = from_arch_str(
        "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|"
        "+|nor_conv_1x1~0|skip_connect~1|skip_connect~2|"
    )
    assert table.query(first, "c10_test_acc_200ep") == pytest.approx(85.8633, abs=1e-4)
    best = table.best("c10_test_acc_200ep")
    assert table.query(best, "c10_test_acc_200ep") > 94.3
    assert SPACE_201.sample(random.Random(0)) in table


@needs_shared
def test_all_of_ec_nas_is_found_whatever_the_order_of_vertices():
    pytest.importorskip("pyarrow")
    table = TableBenchmark.read(SHARED / "ecnas_4v5v_4epochs.parquet", SPACE_101)
    assert len(table) == 2_532
    one = architecture_of([[0, 1, 1, 0], [0, 0, 0, 1], [0, 0, 0, 1], [0] * 4],
                          ["input", "conv3x3-bn-relu", "maxpool3x3", "output"])  # fmt: skip
    two = architecture_of([[0, 1, 1, 0], [0, 0, 0, 1], [0, 0, 0, 1], [0] * 4],
                          ["input", "maxpool3x3", "conv3x3-bn-relu", "output"])  # fmt: skip
    assert one != two
    assert table.values(one, "val_acc").tolist() == table.values(two, "val_acc").tolist()


@needs_shared
def test_the_hashes_of_ec_nas_are_the_published_ones():
    parquet = pytest.importorskip("pyarrow.parquet")
    from hwnas.benchmarks.nasbench101.model_spec import ModelSpec
    from hwnas.spaces._nasbench101_cell import OPS

    names = {-1: "input", -2: "output", **dict(enumerate(OPS))}
    rows = parquet.read_table(SHARED / "ecnas_4v5v_4epochs.parquet").to_pylist()
    for row in rows:
        ops = [names[label] for label in json.loads(row["labels"])]
        assert ModelSpec(json.loads(row["adjacency"]), ops).hash_spec(OPS) == row["hash"]


def write_csv(path, rows):
    path.write_text("\n".join(",".join(map(str, row)) for row in rows), encoding="utf-8")
    return path


def test_repeats_are_averaged_or_drawn(tmp_path):
    path = write_csv(
        tmp_path / "t.csv",
        [("arch_str", "acc", "time"), (ARCH_STR, 0.5, 10), (ARCH_STR, 0.7, 30), (ARCH_STR, "", 20)],
    )
    table = TableBenchmark.read(path, SPACE_201)
    one = from_arch_str(ARCH_STR)
    assert len(table) == 1
    assert table.query(one, "acc") == pytest.approx(0.6)
    drawn = {table.query(one, "time", random.Random(seed)) for seed in range(30)}
    assert drawn == {10.0, 20.0, 30.0}
    assert list(table) == [one]


def test_a_table_of_picks_is_one_of_any_space():
    rng = random.Random(0)
    architectures = list(dict.fromkeys(CHAIN.sample(rng) for _ in range(20)))
    names = list(dict.fromkeys(name for each in architectures for name in each))

    def written(value):
        return "" if value is None else value

    picks = {name: [written(each.get(name)) for each in architectures] for name in names}
    columns = {**picks, "acc": [i / 100 for i in range(len(architectures))]}
    table = TableBenchmark.from_frame(Frame(columns), CHAIN)
    as_json = {"architecture": [json.dumps(each.to_json()) for each in architectures],
               "acc": columns["acc"]}  # fmt: skip
    other = TableBenchmark(CHAIN, as_json)
    for i, each in enumerate(architectures):
        assert table.query(each, "acc") == other.query(each, "acc") == i / 100
    assert other.best("acc", largest=False) == architectures[0]


@pytest.mark.parametrize(
    ("columns", "why"),
    [
        ({"arch_str": [], "acc": []}, "has no rows"),
        ({"arch_str": [ARCH_STR], "acc": [1, 2]}, "make no table"),
        ({"name": ["a"], "acc": [1]}, "no columns name architectures"),
        ({"arch_str": [ARCH_STR, "|conv~0|"], "acc": [1, 2]}, "row 1: .* no op 'conv'"),
        ({"architecture": ["{"], "acc": [1]}, "row 0 is no architecture"),
    ],
)
def test_a_table_that_says_nothing_is_refused(columns, why):
    with pytest.raises(UserInputError, match=why):
        TableBenchmark(SPACE_201, columns)


def test_a_missing_row_or_column_or_number_is_refused():
    table = TableBenchmark(SPACE_201, {"arch_str": [ARCH_STR], "acc": [None], "note": ["good"]})
    one = from_arch_str(ARCH_STR)
    assert math.isnan(table.query(one, "acc"))
    with pytest.raises(UserInputError, match="no row"):
        table.query(from_arch_str(ARCH_STR.replace("none", "skip_connect")), "acc")
    with pytest.raises(UserInputError, match="no column 'accc'"):
        table.query(one, "accc")
    with pytest.raises(UserInputError, match="no number"):
        table.query(one, "note")
    with pytest.raises(UserInputError, match="empty"):
        table.best("acc")


def test_a_file_that_is_no_table_is_refused(tmp_path):
    for name in ("none.csv", "none.parquet"):
        with pytest.raises(UserInputError):
            TableBenchmark.read(tmp_path / name, SPACE_201)
    ragged = write_csv(tmp_path / "ragged.csv", [("arch_str", "acc"), (ARCH_STR,)])
    with pytest.raises(UserInputError, match="cannot be read"):
        TableBenchmark.read(ragged, SPACE_201)


def estimator(path, **settings):
    plugin = ESTIMATORS.get("table")
    config = plugin.Config(path=path, accuracy="acc", **settings)
    digits = DATASETS.get("digits")
    return plugin(config, space=SPACE_201, dataset=digits(digits.Config()), seed=0)


@pytest.fixture
def csv_path(tmp_path):
    rows = [("arch_str", "acc", "ms", "s"), (ARCH_STR, 50, 1.5, 100), (ARCH_STR, 70, 2.5, 300)]
    return write_csv(tmp_path / "t.csv", rows)


def test_the_estimator_reads_all_metrics(csv_path):
    found = estimator(csv_path, accuracy_unit="percent", latency_ms="ms", train_time_s="s")
    metrics = found.evaluate(from_arch_str(ARCH_STR), 0)
    assert metrics.accuracy == pytest.approx(0.6)
    assert (metrics.latency_ms, metrics.train_time_s) == (2.0, 200.0)
    again = pickle.loads(pickle.dumps(found))
    assert again.evaluate(from_arch_str(ARCH_STR), 0) == metrics


def test_the_estimator_draws_one_row_for_all_columns(csv_path):
    found = estimator(csv_path, accuracy_unit="percent", train_time_s="s", repeats="random")
    drawn = [found.evaluate(from_arch_str(ARCH_STR), trial) for trial in range(20)]
    assert {(m.accuracy, m.train_time_s) for m in drawn} == {(0.5, 100.0), (0.7, 300.0)}
    assert drawn[3] == found.evaluate(from_arch_str(ARCH_STR), 3)


def test_the_estimator_says_what_is_missing(csv_path, tmp_path):
    with pytest.raises(TrialFailed, match="no row"):
        estimator(csv_path).evaluate(from_arch_str(ARCH_STR.replace("skip_connect", "none")), 0)
    with pytest.raises(UserInputError, match="no column 'lat'"):
        estimator(csv_path, latency_ms="lat").evaluate(from_arch_str(ARCH_STR), 0)
    with pytest.raises(UserInputError, match="there is no table"):
        estimator(tmp_path / "none.csv").evaluate(from_arch_str(ARCH_STR), 0)
    with pytest.raises(ValidationError):
        ESTIMATORS.get("table").Config(path=csv_path)


def test_a_file_as_a_spreadsheet_writes_it(tmp_path):
    """A mark at the start, an empty line at the end, words for what is missing."""
    path = tmp_path / "t.csv"
    lines = ["arch_str,acc", *(f"{ARCH_STR},{value}" for value in (0.5, "NaN", "None", "NA")), ""]
    path.write_text("\n".join([*lines, ""]), encoding="utf-8-sig")
    table = TableBenchmark.read(path, SPACE_201)
    assert table.query(from_arch_str(ARCH_STR), "acc") == 0.5


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("arch_str,acc\na,1\nb\n", "line 3 has 1 entries, the header 2"),
        ("arch_str,acc\na,1,2\n", "line 2 has 3 entries"),
        ("arch_str;acc\na;1\n", "no commas"),
        ("arch_str,acc,acc\na,1,2\n", "the same name"),
        ("", "it is empty"),
        ("arch_str,acc\n", "has no rows"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path, text, why):
    path = tmp_path / "t.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserInputError, match=why):
        TableBenchmark.read(path, SPACE_201)


EDGES = [f"edge{x}to{y}" for y in range(1, 4) for x in range(y)]


@pytest.mark.parametrize(
    ("picks", "why"),
    [
        ({"foo": "bar"}, "no answer for 'edge0to1'"),
        ({**dict.fromkeys(EDGES, "none"), "foo": "bar"}, "never asked"),
        ({**dict.fromkeys(EDGES, "none"), "edge0to3": "conv9x9"}, "conv9x9"),
    ],
)
def test_picks_that_the_space_does_not_know_are_refused(picks, why):
    with pytest.raises(UserInputError, match=why):
        TableBenchmark(SPACE_201, {"architecture": [json.dumps(picks)], "acc": [1]})


def test_a_column_of_picks_that_is_missing_is_named():
    columns = {name: ["none"] for name in EDGES[:-1]}
    with pytest.raises(UserInputError, match="no columns name") as caught:
        TableBenchmark(SPACE_201, columns)
    assert "edge2to3" in caught.value.hint
    with pytest.raises(UserInputError, match="no key 'pick'"):
        TableBenchmark(SPACE_201, columns, key="pick")


def test_nested_entries_are_read_as_json_is():
    """As a Parquet file can hold them; None stands for a pick that is not asked."""
    picks = {**dict.fromkeys(EDGES, "none"), "foo": None}
    table = TableBenchmark(SPACE_201, {"architecture": [picks], "acc": [1]})
    assert table.query(from_arch_str(ARCH_STR.replace("skip_connect", "none")), "acc") == 1
    cells = {"adjacency": [[[0, 1], [0, 0]]], "labels": [[-1, -2]], "acc": [0.5]}
    table = TableBenchmark(SPACE_101, cells)
    assert table.query(architecture_of([[0, 1], [0, 0]], ["input", "output"]), "acc") == 0.5


@pytest.mark.parametrize(
    ("labels", "why"),
    [("[-1, 7, -2]", "no op '7'"), ("[0, 1, 2]", "do not start with -1"), ("[]", "do not start")],
)
def test_labels_that_are_none_are_refused(labels, why):
    columns = {"adjacency": ["[[0, 1, 0], [0, 0, 1], [0, 0, 0]]"], "labels": [labels], "acc": [1]}
    with pytest.raises(UserInputError, match=f"row 0: .*{why}"):
        TableBenchmark(SPACE_101, columns)


def test_numbers_of_a_column_with_gaps_are_picks():
    """pandas turns a column of whole numbers with gaps into one of 3.0 and NaN."""
    one = CHAIN.sample(random.Random(1))
    names = [d.name for d in CHAIN.decisions_of(lambda decision: decision.decode(0))]
    written = {
        name: [f"{value}.0" if type(value := one.get(name, "")) is int else value]
        for name in dict.fromkeys([*names, *one])
    }
    assert any(entry[0].endswith(".0") for entry in written.values() if isinstance(entry[0], str))
    assert one in TableBenchmark(CHAIN, written)


def test_one_row_is_drawn_even_where_numbers_are_missing(tmp_path):
    rows = [("arch_str", "acc", "s"), (ARCH_STR, "", 1), (ARCH_STR, 0.5, 2), (ARCH_STR, 0.7, "")]
    found = estimator(write_csv(tmp_path / "t.csv", rows), train_time_s="s", repeats="random")
    drawn = [found.evaluate(from_arch_str(ARCH_STR), trial) for trial in range(20)]
    assert {(m.accuracy, m.train_time_s) for m in drawn} == {(0.5, 2.0), (0.7, None)}


def test_percent_that_is_called_a_share_is_refused(csv_path):
    with pytest.raises(UserInputError, match="share of 60") as caught:
        estimator(csv_path).evaluate(from_arch_str(ARCH_STR), 0)
    assert "percent" in caught.value.hint
