"""Published tables of blocks. The real one is data beside the project."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from hwnas.errors import UserInputError
from hwnas.latency.blocks import BlockEntry, BlockTable, is_block_table
from hwnas.spaces import SPACES

PIXEL = Path(__file__).parents[3] / "shared" / "data" / "latency" / "proxylessnas_pixel1_lut.yaml"
needs_table = pytest.mark.skipif(not PIXEL.exists(), reason=f"no {PIXEL}")
#: Stages behind the fixed block: channels, blocks, stride (`imagenet_arch_search.py`).
STAGES = ((24, 4, 2), (40, 4, 2), (80, 4, 2), (96, 4, 1), (192, 4, 2), (320, 1, 1))


@pytest.fixture(scope="module")
def mobile():
    plugin = SPACES.get("mobile")
    return plugin(plugin.Config(), (3, 224, 224), 1000)


def walk(rows, picks):
    """The authors' walk (`super_proxyless.py`, `expected_latency`), from the picks alone."""
    total = rows["Conv-input:224x224x3-output:112x112x32"].mean
    total += rows["Conv_1-input:7x7x320-output:7x7x1280"].mean
    total += rows["Logits-input:7x7x1280-output:1000"].mean
    fixed = "expanded_conv-input:112x112x32-output:112x112x16-expand:1-kernel:3-stride:1-idskip:0"
    total += rows[fixed].mean
    size, channels = 112, 16
    for i, (out, blocks, first_stride) in enumerate(STAGES, 1):
        for j in range(blocks):
            stride = first_stride if j == 0 else 1
            op = picks[f"stage{i}/block{j}/op"]
            if op == "zero":
                continue
            kernel, expand = (int(each[1:]) for each in op.split("_"))
            skip = int(stride == 1 and channels == out)
            total += rows[
                f"expanded_conv-input:{size}x{size}x{channels}-output:{size // stride}x"
                f"{size // stride}x{out}-expand:{expand}-kernel:{kernel}-stride:{stride}"
                f"-idskip:{skip}"
            ].mean
            size, channels = size // stride, out
    return total


@needs_table
def test_networks_cost_what_the_authors_code_sums(mobile):
    table = BlockTable.load(PIXEL)
    rng = random.Random(0)
    totals = set()
    for _ in range(100):
        architecture = mobile.sample(rng)
        found = table.ms(mobile.graph(architecture))
        assert found == pytest.approx(walk(table.entries, architecture), rel=1e-12)
        totals.add(round(found, 3))
    assert len(totals) > 90


@needs_table
@pytest.mark.parametrize("suffix", [".yaml", ".json"])
def test_what_is_exported_is_what_was_imported(tmp_path, suffix):
    table = BlockTable.load(PIXEL)
    assert len(table.entries) == 72
    assert is_block_table(PIXEL)
    out = tmp_path / f"out{suffix}"
    table.save(out)
    assert BlockTable.load(out).entries == table.entries
    assert is_block_table(out)


@needs_table
def test_a_block_that_the_table_lacks_is_named(mobile):
    table = BlockTable.load(PIXEL)
    plugin = SPACES.get("mobile")
    wide = plugin(plugin.Config(width=140), (3, 224, 224), 1000)
    with pytest.raises(UserInputError, match="the first: Conv-input:224x224x3-output:112x112x48"):
        table.ms(wide.graph(wide.sample(random.Random(0))))


def test_other_spaces_are_refused(conv_chain):
    graph = conv_chain.graph(conv_chain.sample(random.Random(0)))
    with pytest.raises(UserInputError, match="inverted bottlenecks"):
        BlockTable({"x": BlockEntry(1.0)}).ms(graph)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "- a\n",
        "a-input:1: 3\n",
        "a-input:1:\n  mean: -1\n",
        "a-input:1:\n  mean: .nan\n",
        "a-input:1:\n  mean: .inf\n",
        "a-input:1:\n  mean: 0\n",
        "a-input:1:\n  mean: true\n",
        "a-input:1:\n  var: 1\n",
        "a-input:1:\n  mean: !!python/object/apply:os.system ['touch evil']\n",
        "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n",
        "a: [" * 5000,
        f"a-input:1:\n  mean: {10**400}\n",
    ],
)
def test_what_is_no_table_of_times_is_refused(tmp_path, text):
    path = tmp_path / "table.yaml"
    path.write_text(text)
    with pytest.raises(UserInputError):
        BlockTable.load(path)
    assert not Path("evil").exists()
