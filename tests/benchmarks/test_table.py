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
        ({"arch_str": [], "acc": []}, "make no table"),
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
