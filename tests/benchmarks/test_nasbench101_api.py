import copy
import json
import os
import pickle
import random

import numpy as np
import pytest

from hwnas._core import masked_crc32c
from hwnas.benchmarks.nasbench101 import api, tfrecord
from hwnas.benchmarks.nasbench101.cells import unique_cells
from hwnas.benchmarks.nasbench101.synthetic import write_synthetic
from hwnas.errors import HwnasError, UserInputError
from hwnas.spaces._nasbench101_cell import CONV1X1, CONV3X3, INPUT, OPS, OUTPUT

ONE_EDGE = api.ModelSpec([[0, 1], [0, 0]], [INPUT, OUTPUT])


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    found = tmp_path_factory.mktemp("nasbench") / "nasbench.tfrecord"
    write_synthetic(found, unique_cells(4), epochs=(4, 108))
    return found


@pytest.fixture
def bench(path):
    return api.NASBench(path, seed=1)


def rows_of(path):
    """The file read as the published loader reads it: row by row, into dictionaries."""
    found = {}
    for row in tfrecord.read_rows(path):
        half, final = row.metrics.evaluations[1:]
        point = {
            **dict(zip([f"halfway_{n}" for n in NAMES], half[1:], strict=True)),
            **dict(zip([f"final_{n}" for n in NAMES], final[1:], strict=True)),
        }
        found.setdefault(row.module_hash, {}).setdefault(row.epochs, []).append(point)
    return found


NAMES = ("training_time", "train_accuracy", "validation_accuracy", "test_accuracy")


def test_everything_in_the_file_is_answered(bench, path):
    rows = rows_of(path)
    assert list(bench.hash_iterator()) == list(rows)
    assert len(rows) == len(bench.fixed_statistics) == 91
    assert bench.valid_epochs == {4, 108}
    for name, computed in rows.items():
        fixed, found = bench.get_metrics_from_hash(name)
        assert found == computed == bench.computed_statistics[name]
        spec = api.ModelSpec(fixed["module_adjacency"], fixed["module_operations"])
        assert bench.get_module_hash(spec) == name
        assert bench.get_metrics_from_spec(spec)[1] == computed
        assert fixed["trainable_parameters"] == bench.fixed_statistics[name]["trainable_parameters"]


def test_a_query_is_one_of_the_repeats(bench, path):
    repeats = rows_of(path)[ONE_EDGE.hash_spec(OPS)][4]
    seen = set()
    for _ in range(40):
        data = bench.query(ONE_EDGE, epochs=4)
        assert set(data) == {
            "module_adjacency", "module_operations", "trainable_parameters", *NAMES,
        }  # fmt: skip
        [number] = [i for i, p in enumerate(repeats)
                    if all(p[f"final_{n}"] == data[n] for n in NAMES)]  # fmt: skip
        seen.add(number)
    assert seen == {0, 1, 2}


def test_the_same_seed_draws_what_the_published_package_draws(bench, path):
    """It calls random.seed(seed), then random.randint(0, 2) for each query."""
    repeats = rows_of(path)[ONE_EDGE.hash_spec(OPS)][108]
    generator = random.Random(1)
    for _ in range(20):
        expected = repeats[generator.randint(0, 2)]["final_test_accuracy"]
        assert bench.query(ONE_EDGE)["test_accuracy"] == expected


def test_queries_leave_the_global_generator_alone(bench):
    random.seed(5)
    expected = random.random()
    random.seed(5)
    api.NASBench(bench_path(bench), seed=9).query(ONE_EDGE)
    assert random.random() == expected


def bench_path(bench):
    return bench.dataset_file


def test_the_counters_add_up_for_each_object_alone(path):
    first, second = api.NASBench(path, seed=0), api.NASBench(path, seed=0)
    time = first.query(ONE_EDGE)["training_time"]
    half = first.query(ONE_EDGE, epochs=4, stop_halfway=True)["training_time"]
    assert first.get_budget_counters() == (time + half, 110)
    assert first.training_time_spent == time + half
    first.is_valid(ONE_EDGE)
    first.get_metrics_from_spec(ONE_EDGE)
    assert first.get_budget_counters() == (time + half, 110)
    assert second.get_budget_counters() == (0.0, 0)
    first.reset_budget_counters()
    assert first.get_budget_counters() == (0.0, 0)


def test_a_spec_that_was_asked_for_is_found_in_another_file_and_when_copied(tmp_path, bench):
    path = tmp_path / "other.tfrecord"
    write_synthetic(path, unique_cells(3), seed=7)  # other places, other figures
    other = api.NASBench(path, seed=1)
    spec = chain([INPUT, CONV1X1, OUTPUT])
    for each in (bench, other, bench):
        times = [p["final_training_time"] for p in each.get_metrics_from_spec(spec)[1][108]]
        for copied in (spec, copy.deepcopy(spec), pickle.loads(pickle.dumps(spec))):
            assert each.query(copied)["training_time"] in times
    spec.ops[1] = CONV3X3  # as in the published package, the hash is that of the changed labels
    assert bench.query(spec)["module_operations"] == [INPUT, CONV3X3, OUTPUT]
    spec.mine = 1


def test_what_is_returned_may_be_changed(bench):
    for get in (lambda: bench.query(ONE_EDGE), lambda: bench.get_metrics_from_spec(ONE_EDGE)[0]):
        data = get()
        data["module_adjacency"][0, 1] = 7
        data["module_operations"].append("more")
        assert get()["module_adjacency"].tolist() == [[0, 1], [0, 0]]
        assert get()["module_operations"] == [INPUT, OUTPUT]


def chain(ops):
    count = len(ops)
    return api.ModelSpec(np.eye(count, k=1, dtype=int), ops)


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        (api.ModelSpec([[0, 0], [0, 0]], [INPUT, OUTPUT]), "disconnected"),
        (chain([INPUT, *[CONV3X3] * 6, OUTPUT]), "too many vertices, got 8"),
        (api.ModelSpec(np.triu(np.ones((6, 6), int), 1), [INPUT, *[CONV1X1] * 4, OUTPUT]),
         "too many edges, got 15"),
        (chain([CONV1X1, CONV1X1, OUTPUT]), "first operation"),
        (chain([INPUT, CONV1X1, CONV1X1]), "last operation"),
        (chain([INPUT, "conv7x7", OUTPUT]), "unsupported op conv7x7"),
    ],
)  # fmt: skip
def test_a_cell_outside_the_space_is_refused(bench, spec, why):
    assert not bench.is_valid(spec)
    with pytest.raises(api.OutOfDomainError, match=why):
        bench.query(spec)
    with pytest.raises(api.OutOfDomainError, match=why):
        bench.get_module_hash(spec)
    assert bench.get_budget_counters() == (0.0, 0)


def test_other_mistakes_are_named(bench):
    with pytest.raises(api.OutOfDomainError, match="invalid number of epochs"):
        bench.query(ONE_EDGE, epochs=5)
    with pytest.raises(KeyError, match="not in the file"):
        bench.query(chain([INPUT, CONV3X3, CONV3X3, CONV3X3, OUTPUT]))
    for name in ("", "zz", "28cfc7874f6d200472e1a9dcd8650aa0"):
        with pytest.raises(KeyError):
            bench.get_metrics_from_hash(name)
    with pytest.raises(HwnasError, match="TensorFlow"):
        bench.evaluate(ONE_EDGE, "folder")


def test_the_file_is_converted_once(path, monkeypatch):
    api.NASBench(path)
    monkeypatch.setattr(
        "hwnas.benchmarks.nasbench101.store.read_rows", lambda path: pytest.fail("read again")
    )
    api.NASBench(path)


def test_another_file_in_its_place_is_converted_anew(tmp_path):
    path = tmp_path / "a.tfrecord"
    write_synthetic(path, unique_cells(3), seed=0)
    old = api.NASBench(path)
    before = old.get_metrics_from_spec(ONE_EDGE)
    write_synthetic(path, unique_cells(3), seed=1)
    os.utime(path, ns=(1, 1))
    assert api.NASBench(path).get_metrics_from_spec(ONE_EDGE)[1] != before[1]
    assert old.get_metrics_from_spec(ONE_EDGE)[1] == before[1]  # what is open stays what it was
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.tfrecord", "a.tfrecord.hwnas"]


def test_a_damaged_converted_form_is_made_again(tmp_path):
    path, cache = tmp_path / "a.tfrecord", tmp_path / "cache"
    write_synthetic(path, unique_cells(3))
    expected = api.NASBench(path, cache=cache).get_metrics_from_spec(ONE_EDGE)[1]
    (cache / "metrics.npy").write_bytes(b"cut off")
    assert api.NASBench(path, cache=cache).get_metrics_from_spec(ONE_EDGE)[1] == expected


def test_a_repeat_that_is_missing_is_never_drawn(tmp_path, path):
    """One cell once, for one length only."""
    rows = list(tfrecord.read_rows(path))
    short = tmp_path / "short.tfrecord"
    tfrecord.write_rows(short, [*rows[:6], rows[6]])
    bench = api.NASBench(short, seed=0)
    name = rows[6].module_hash
    fixed, computed = bench.get_metrics_from_hash(name)
    assert list(computed) == [rows[6].epochs]
    spec = api.ModelSpec(fixed["module_adjacency"], fixed["module_operations"])
    assert len({bench.query(spec, rows[6].epochs)["test_accuracy"] for _ in range(9)}) == 1
    other = ({4, 108} - {rows[6].epochs}).pop()
    with pytest.raises(KeyError, match="no training of that length"):
        bench.query(spec, other)


def test_crc_is_the_one_of_the_standard():
    """RFC 3720, B.4: 32 bytes of zeros, 32 of ones, 0 to 31; masked as TFRecord does."""
    for data, crc in (
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (b"123456789", 0xE3069283),
    ):
        assert masked_crc32c(data) == ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda b: b[:-1], "is cut off"),
        (lambda b: b[:5], "record 0 at byte 0 is cut off"),
        (lambda b: b[:2] + b"\xff" + b[3:], "record 0 at byte 0 has a damaged length"),
        (lambda b: b[:40] + b"!" + b[41:], "record 0 at byte 0 has damaged data"),
        (lambda b: b"", "is empty"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path, path, damage, why):
    bad = tmp_path / "bad.tfrecord"
    bad.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserInputError, match=why):
        api.NASBench(bad)
    assert not list(tmp_path.glob("bad.tfrecord.hwnas"))


def test_a_missing_file_and_one_of_another_kind_are_refused(tmp_path):
    with pytest.raises(UserInputError, match="cannot be read"):
        api.NASBench(tmp_path / "none")
    other = tmp_path / "other.tfrecord"
    with other.open("wb") as file:
        tfrecord._write_record(file, json.dumps(["a", 1]).encode())
    with pytest.raises(UserInputError, match=r"record 0 .* is not one of NAS-Bench-101"):
        api.NASBench(other)


def test_messages_with_other_fields_are_read():
    """Fields out of order, unknown ones of every wire type, and a checkpoint's path."""
    plain = tfrecord.Metrics([(0.0, 1.0, 0.25, 0.5, 0.75)], 300, 9.5)
    message = tfrecord.encode_metrics(plain)
    assert tfrecord.decode_metrics(message) == plain
    path = b"\x32\x03abc"  # EvaluationData field 6
    inner = message[2:47] + path
    longer = b"\x0a" + bytes([len(inner)]) + inner + message[47:]
    unknown = b"\x50\x96\x01" + b"\x5d1234" + b"\x61" + bytes(8) + b"\x6a\x01z"
    assert tfrecord.decode_metrics(unknown + longer) == plain
    with pytest.raises(ValueError, match="cut off"):
        tfrecord.decode_metrics(message[:20])
    with pytest.raises(ValueError, match="wire type"):
        tfrecord.decode_metrics(b"\x0b")
