"""Pictures of the cells that a search sampled."""

import random

import pytest
from PIL import Image

from hwnas.errors import UserInputError
from hwnas.report.animation import MOST_FRAMES, animate, columns_of, curve_points, evenly
from hwnas.report.cells import cell_drawings
from hwnas.report.run_data import RunData, Trial
from hwnas.spaces.enas_rnn import EnasRnn


def cell(seed=0, **settings):
    space = EnasRnn(EnasRnn.Config(nodes=4, hidden=2, **settings), (2,), 5)
    return space.sample(random.Random(seed)).to_json()


def run_with(tmp_path, monkeypatch, answers):
    trials = tuple(
        Trial(i, "complete", "", answers=each, reward=i / 3, epoch=i // 2)
        for i, each in enumerate(answers)
    )
    data = RunData(
        path=tmp_path, config={}, run={}, events=(), trials=trials, results=None, problems=()
    )
    monkeypatch.setattr(RunData, "load", classmethod(lambda cls, path: data))
    return tmp_path


def test_a_recurrent_cell_is_drawn_from_its_picks():
    answers = {
        "node0/activation": "tanh",
        "node1/previous": 0,
        "node1/activation": "relu",
        "node2/previous": 0,
        "node2/activation": "sigmoid",
    }
    (drawing,) = cell_drawings(answers)
    assert {(e.source, e.target) for e in drawing.edges} == {
        *(("x", "0"), ("h", "0"), ("0", "1"), ("0", "2"), ("1", "output"), ("2", "output")),
    }
    assert [node.label for node in drawing.nodes][2:5] == ["0: tanh", "1: relu", "2: sigmoid"]
    (of_all,) = cell_drawings(
        answers, EnasRnn.cell_outputs(EnasRnn.Config(nodes=3, output="later"))
    )
    assert {e.source for e in of_all.edges if e.target == "output"} == {"1", "2"}


@pytest.mark.parametrize(
    "broken",
    [{"node1/previous": 1}, {"node2/previous": 0}, {"other": 3}, {"node1/previous": "tanh"}],
)
def test_what_is_no_recurrent_cell_is_not_drawn(broken):
    answers = {"node0/activation": "tanh", "node1/previous": 0, "node1/activation": "relu"}
    assert len(cell_drawings(answers)) == 1
    assert cell_drawings(answers | broken) == []


def test_one_picture_an_epoch_and_a_strip(tmp_path, monkeypatch):
    run = run_with(tmp_path, monkeypatch, [cell(i) for i in range(20)])
    gif, strip = animate(run)
    with Image.open(gif) as film, Image.open(strip) as still:
        assert film.n_frames == 10
        assert still.width % film.width == 0
        assert still.height % film.height == 0
        assert still.width // film.width * (still.height // film.height) == 6
        assert len(still.getcolors(maxcolors=1 << 24)) > 10


def test_a_run_without_cells_is_refused(tmp_path, monkeypatch):
    run = run_with(tmp_path, monkeypatch, [{"stage0/kernel": 3}])
    with pytest.raises(UserInputError, match="no sampled cells"):
        animate(run)


@pytest.mark.parametrize(
    ("width", "height", "columns"), [(1600, 200, 1), (100, 100, 3), (200, 2000, 6), (400, 300, 3)]
)
def test_the_strip_has_rows_where_pictures_are_wide(width, height, columns):
    assert columns_of(6, width, height) == columns


def test_pictures_are_spread_over_the_run():
    assert evenly(3, 6) == [0, 1, 2]
    chosen = evenly(1000, MOST_FRAMES)
    assert len(chosen) == len(set(chosen)) == MOST_FRAMES
    assert (chosen[0], chosen[-1]) == (0, 999)


def test_a_path_becomes_points_from_its_start_to_its_end():
    points = curve_points("M0.0,0.0C0.0,5.0 10.0,5.0 10.0,10.0C10.0,15.0 4.0,15.0 4.0,20.0")
    assert points[0] == (0.0, 0.0)
    assert points[16] == (10.0, 10.0)
    assert points[-1] == (4.0, 20.0)
    assert points[8] == (5.0, 5.0)
