"""The cells that a search sampled, as an animated GIF and as a strip of pictures."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hwnas.errors import RunFolderError, UserInputError
from hwnas.report.cells import cell_drawings
from hwnas.report.graph_layout import Placed, place
from hwnas.report.run_data import RunData, Trial
from hwnas.report.sections.chosen_network import outputs_of

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

MOST_FRAMES = 40
_STRIP = 6
_PAGE = 1.6
_SCALE, _MARGIN, _TITLE = 1.5, 16, 34
_FILLS = {"input": "#dbe9f6", "op": "#ffffff", "join": "#eeeeee", "output": "#fde3c8"}
_INK, _LINE = "#222222", "#7a8794"
_STEPS = 16
_PART = re.compile(r"-?\d+(?:\.\d+)?")


@dataclass(frozen=True)
class Frame:
    """One picture: what is written above it, and the cells side by side."""

    title: str
    cells: tuple[Placed, ...]


def animate(run: Path, frame_ms: int = 500) -> tuple[Path, Path]:
    """Write `cells.gif` and `cells.png` into a run folder.

    A picture shows the last child that the strategy sampled in an epoch, or one trial of a search
    by trials; at most `MOST_FRAMES` of them, evenly over the run. The strip has six of these.

    Args:
        run: The run folder.
        frame_ms: How long a picture stays.

    Raises:
        UserInputError: The run's architectures have no cells to draw.
        RunFolderError: The path is not a run, or the files cannot be written.
    """
    frames = frames_of(RunData.load(run))
    if not frames:
        raise UserInputError(
            f"{run}: there are no sampled cells to draw",
            "--animate draws spaces of cells, such as enas_rnn, enas_micro, darts and nasnet",
        )
    size = (max(_size(each)[0] for each in frames), max(_size(each)[1] for each in frames))
    pictures = [_picture(frame, size) for frame in frames]
    gif, strip = run / "cells.gif", run / "cells.png"
    stays = [frame_ms] * (len(pictures) - 1) + [4 * frame_ms]
    try:
        pictures[0].save(
            gif, save_all=True, append_images=pictures[1:], duration=stays, loop=0, optimize=True
        )
        _strip([pictures[i] for i in evenly(len(pictures), _STRIP)]).save(strip)
    except OSError as error:
        raise RunFolderError(f"{run}: cannot write the pictures: {error}") from error
    return gif, strip


def frames_of(data: RunData) -> list[Frame]:
    """Return the pictures of a run, oldest first; none where it sampled no cells."""
    last: dict[int, Trial] = {}
    for trial in data.complete_trials:
        last[trial.trial_id if trial.epoch is None else trial.epoch] = trial
    trials = [last[step] for step in sorted(last)]
    frames, outputs = [], outputs_of(data)
    for index in evenly(len(trials), MOST_FRAMES):
        trial = trials[index]
        cells = tuple(place(drawing) for drawing in cell_drawings(trial.answers, outputs))
        if cells:
            frames.append(Frame(_title(trial), cells))
    return frames


def evenly(count: int, most: int) -> list[int]:
    """Return at most `most` of the indices below `count`, the first and the last among them."""
    if count <= most:
        return list(range(count))
    return [round(i * (count - 1) / (most - 1)) for i in range(most)]


def _title(trial: Trial) -> str:
    step = f"trial {trial.trial_id}" if trial.epoch is None else f"epoch {trial.epoch + 1}"
    return step if trial.reward is None else f"{step}   reward {trial.reward:.3g}"


def _size(frame: Frame) -> tuple[int, int]:
    width = sum(each.width for each in frame.cells) + _MARGIN * (len(frame.cells) + 1)
    height = max(each.height for each in frame.cells) + _TITLE + _MARGIN
    return int(width * _SCALE), int(height * _SCALE)


def _picture(frame: Frame, size: tuple[int, int]) -> Image:
    from PIL import Image, ImageDraw

    picture = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(picture)
    draw.text((_MARGIN, _MARGIN // 2), frame.title, fill=_INK, font_size=14 * _SCALE)
    left = float(_MARGIN)
    for cell in frame.cells:
        _draw_cell(draw, cell, left)
        left += cell.width + _MARGIN
    return picture


def _draw_cell(draw: ImageDraw, cell: Placed, left: float) -> None:
    def at(x: float, y: float) -> tuple[float, float]:
        return (x + left) * _SCALE, (y + _TITLE) * _SCALE

    for edge in cell.edges:
        points = [at(x, y) for x, y in curve_points(edge.path)]
        draw.line(points, fill=_LINE, width=2)
        x, y = points[-1]
        half, length = 3 * _SCALE, 5 * _SCALE
        draw.polygon([(x - half, y), (x + half, y), (x, y + length)], fill=_LINE)
    for box in cell.nodes:
        corners = [
            at(box.x - box.width / 2, box.y - box.height / 2),
            at(box.x + box.width / 2, box.y + box.height / 2),
        ]
        fill = _FILLS[box.node.kind]
        draw.rounded_rectangle(corners, radius=6 * _SCALE, fill=fill, outline=_LINE)
        draw.text(at(box.x, box.y), box.label, fill=_INK, anchor="mm", font_size=11 * _SCALE)


def curve_points(path: str) -> list[tuple[float, float]]:
    """Return points on an SVG path of one ``M`` and several absolute ``C``."""
    numbers = [float(each) for each in _PART.findall(path)]
    points = list(zip(numbers[::2], numbers[1::2], strict=True))
    found = points[:1]
    for start in range(0, len(points) - 3, 3):
        a, b, c, d = points[start : start + 4]
        for step in range(1, _STEPS + 1):
            t = step / _STEPS
            shares = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3)
            x, y = (
                sum(share * point[axis] for share, point in zip(shares, (a, b, c, d), strict=True))
                for axis in range(2)
            )
            found.append((x, y))
    return found


def _strip(pictures: Sequence[Image]) -> Image:
    """Put pictures of one size side by side, in as many rows as make a page of them."""
    from PIL import Image

    width, height = pictures[0].size
    columns = columns_of(len(pictures), width, height)
    rows = len(pictures) // columns
    strip = Image.new("RGB", (width * columns, height * rows), "white")
    for index, picture in enumerate(pictures):
        strip.paste(picture, (index % columns * width, index // columns * height))
    return strip


def columns_of(count: int, width: int, height: int) -> int:
    """Return the columns of full rows whose page is nearest to `_PAGE` times as wide as high."""

    def distance(columns: int) -> float:
        return abs(math.log(columns * width / (count / columns * height) / _PAGE))

    return min((each for each in range(1, count + 1) if count % each == 0), key=distance)
