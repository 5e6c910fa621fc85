"""Your own data: image folders and .npz files, and every way they can be wrong."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hwnas.data import DATASETS, Dataset
from hwnas.errors import UserInputError


def make_folder(folder: Path, **settings: object) -> Dataset:
    cls = DATASETS.get("image_folder")
    return cls(cls.Config.model_validate({"folder": folder, **settings}))


def make_npz(file: Path, **settings: object) -> Dataset:
    cls = DATASETS.get("npz")
    return cls(cls.Config.model_validate({"file": file, **settings}))


def write_images(folder: Path, count: int = 10, classes: tuple[str, ...] = ("cat", "dog")) -> None:
    generator = np.random.default_rng(len(str(folder)))
    for name in classes:
        (folder / name).mkdir(parents=True)
        for index in range(count):
            pixels = generator.integers(0, 256, (20, 30, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index}.png")


def test_class_folders_alone_are_split_three_ways(tmp_path: Path) -> None:
    write_images(tmp_path)
    data = make_folder(tmp_path, size=16)
    assert data.class_names == ("cat", "dog")
    assert data.input_shape == (3, 16, 16)
    assert [len(data.train), len(data.valid), len(data.test)] == [12, 4, 4]
    assert data.train.images.shape == (12, 3, 16, 16)
    parts = [{each.tobytes() for each in s.images} for s in (data.train, data.valid, data.test)]
    assert len(set.union(*parts)) == 20


def test_folders_of_splits_are_used_where_they_exist(tmp_path: Path) -> None:
    write_images(tmp_path / "train", 10)
    write_images(tmp_path / "test", 3)
    data = make_folder(tmp_path)
    assert [len(data.train), len(data.valid), len(data.test)] == [16, 4, 6]
    write_images(tmp_path / "valid", 2)
    data = make_folder(tmp_path)
    assert [len(data.train), len(data.valid), len(data.test)] == [20, 4, 6]


def test_images_become_grey_or_square_as_asked(tmp_path: Path) -> None:
    write_images(tmp_path)
    assert make_folder(tmp_path, channels=1).train.images.shape == (12, 1, 32, 32)
    half = np.zeros((20, 40, 3), np.uint8)
    half[:, 10:30] = 255
    for file in (tmp_path / "cat").iterdir():
        Image.fromarray(half).save(file)
    cropped = make_folder(tmp_path, size=20).train
    assert cropped.images[cropped.labels == 0].min() == 255
    stretched = make_folder(tmp_path, size=20, fit="stretch").train
    assert stretched.images[stretched.labels == 0].min() == 0


def test_a_photograph_is_turned_the_way_the_camera_was_held(tmp_path: Path) -> None:
    write_images(tmp_path)
    pixels = np.zeros((20, 20, 3), np.uint8)
    pixels[:10] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    for index in range(10):
        (tmp_path / "cat" / f"{index}.png").unlink()
        Image.fromarray(pixels).save(tmp_path / "cat" / f"{index}.jpg", exif=exif, quality=100)
    train = make_folder(tmp_path, size=20).train
    image = train.images[train.labels == 0][0]
    assert image[:, :8].max() < 10
    assert image[:, 12:].min() > 245


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    write_images(tmp_path)
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    (tmp_path / "cat" / ".hidden.png").write_text("no image")
    (tmp_path / ".cache").mkdir()
    assert len(make_folder(tmp_path).train) == 12


def test_a_corrupt_image_is_named(tmp_path: Path) -> None:
    write_images(tmp_path)
    for file in (tmp_path / "dog").iterdir():
        file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(UserInputError, match=r"dog/\d\.png cannot be read as an image"):
        _ = make_folder(tmp_path).train


def test_a_class_without_images_is_named(tmp_path: Path) -> None:
    write_images(tmp_path)
    (tmp_path / "emu").mkdir()
    with pytest.raises(UserInputError, match="emu has no image"):
        _ = make_folder(tmp_path).train


def test_a_class_that_training_does_not_know_is_named(tmp_path: Path) -> None:
    write_images(tmp_path / "train")
    write_images(tmp_path / "test", classes=("cat", "cow", "dog"))
    with pytest.raises(UserInputError, match="no class 'cow'"):
        _ = make_folder(tmp_path).train


def test_a_missing_folder_and_a_folder_without_classes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserInputError, match="is missing"):
        _ = make_folder(tmp_path / "none").train
    with pytest.raises(UserInputError, match="0 class folders"):
        _ = make_folder(tmp_path).class_names


def arrays(count: int = 40, shape: tuple[int, ...] = (8, 8)) -> dict[str, np.ndarray]:
    pixels = np.random.default_rng(0).integers(0, 256, (count, *shape), dtype=np.uint8)
    return {"x": pixels, "y": np.arange(count) % 4}


@pytest.mark.parametrize(
    ("shape", "settings", "expected"),
    [
        ((8, 9), {}, (1, 8, 9)),
        ((8, 9, 3), {}, (3, 8, 9)),
        ((3, 8, 9), {}, (3, 8, 9)),
        ((3, 8, 3), {"layout": "nhwc"}, (3, 3, 8)),
        ((5, 8, 9), {"layout": "nchw"}, (5, 8, 9)),
    ],
)
def test_every_layout_becomes_channels_first(
    tmp_path: Path, shape: tuple[int, ...], settings: dict, expected: tuple[int, ...]
) -> None:
    file = tmp_path / "data.npz"
    np.savez(file, **arrays(shape=shape))
    data = make_npz(file, **settings)
    assert data.input_shape == expected
    assert data.class_names == ("0", "1", "2", "3")
    assert [len(data.train), len(data.valid), len(data.test)] == [24, 8, 8]


def test_named_splits_and_class_names_are_used(tmp_path: Path) -> None:
    file = tmp_path / "data.npz"
    train, test = arrays(40), arrays(8)
    np.savez(
        file,
        x_train=train["x"],
        y_train=train["y"][:, None].astype(np.uint8),
        x_test=test["x"],
        y_test=test["y"],
        class_names=np.array(["a", "b", "c", "d"]),
    )
    data = make_npz(file)
    assert data.class_names == ("a", "b", "c", "d")
    assert [len(data.train), len(data.valid), len(data.test)] == [32, 8, 8]
    assert np.array_equal(data.test.images[:, 0], test["x"])


def test_floating_point_images_are_used_as_they_are(tmp_path: Path) -> None:
    file = tmp_path / "data.npz"
    content = arrays()
    np.savez(file, x=content["x"] / 7.0, y=content["y"])
    data = make_npz(file)
    assert data.train.images.dtype == np.float32
    assert data.train.images.max() > 30


def test_a_constant_channel_does_not_divide_by_zero(tmp_path: Path) -> None:
    file = tmp_path / "data.npz"
    np.savez(file, x=np.full((40, 8, 8), 7, np.uint8), y=arrays()["y"])
    assert make_npz(file).normalisation == ((pytest.approx(7 / 255),), (1.0,))


def with_nan(x: np.ndarray) -> np.ndarray:
    x = x.astype(np.float64)
    x[5, 1, 1] = np.nan
    return x


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: {"x": c["x"], "y": c["y"][:-1]}, "40 images but 39 labels"),
        (lambda c: {"x": with_nan(c["x"]), "y": c["y"]}, "image 5 holds a NaN"),
        (lambda c: {"x": c["x"], "y": c["y"] - 1}, "label -1 at index 0 is outside"),
        (lambda c: {"x": c["x"], "y": c["y"] * 2}, "class 1 of 7 has no image"),
        (lambda c: {"x": c["x"], "y": c["y"] * 1.0}, "labels must be whole numbers"),
        (lambda c: {"x": c["x"].astype(int) + 9, "y": c["y"]}, "whole numbers outside 0 to 255"),
        (lambda c: {"x": c["x"].astype(str), "y": c["y"]}, "images must be numbers"),
        (lambda c: {"x": c["x"].reshape(40, -1), "y": c["y"]}, r"images must be \[N, H, W\]"),
        (lambda c: {"x": c["x"].reshape(40, 2, 4, 8), "y": c["y"]}, "cannot tell where"),
        (lambda c: {"x": c["x"]}, "labels are missing"),
        (lambda c: {"a": c["x"]}, "holds a"),
        (lambda c: {"x": c["x"][:0], "y": c["y"][:0]}, "there is no image"),
        (lambda c: {"x": np.array([{}, []], object), "y": c["y"]}, "Object arrays"),
        (
            lambda c: c | {"x_valid": np.zeros((4, 9, 9), np.uint8), "y_valid": np.arange(4)},
            "x_valid has images of",
        ),
    ],
)
def test_bad_arrays_are_refused_by_name(tmp_path: Path, change: object, message: str) -> None:
    file = tmp_path / "data.npz"
    np.savez(file, **change(arrays()))  # type: ignore[operator]
    with pytest.raises(UserInputError, match=message) as caught:
        _ = make_npz(file).train
    assert "data.npz" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not really", b"\x80\x04N.", b"text"])
def test_a_file_that_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "data.npz"
    file.write_bytes(content)
    with pytest.raises(UserInputError, match=r"data\.npz is not a usable \.npz file"):
        _ = make_npz(file).train


def test_a_missing_file_and_a_single_array_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserInputError, match="is missing"):
        _ = make_npz(tmp_path / "none.npz").train
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(UserInputError, match=r"not a usable \.npz"):
        _ = make_npz(tmp_path / "one.npy").train
