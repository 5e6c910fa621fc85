"""CIFAR-10: the published pickles read without trust, and the Parquet files."""

import os
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest

from hwnas.data import DATASETS, Dataset
from hwnas.errors import UserInputError

NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def make_cifar(folder: Path | None, **settings: object) -> Dataset:
    cifar = DATASETS.get("cifar10")
    return cifar(cifar.Config.model_validate({"folder": folder, **settings}))


def write_batches(folder: Path, protocol: int = 2, count: int = 40) -> Path:
    """Write random images in the form of the original download."""
    batches = folder / "cifar-10-batches-py"
    batches.mkdir()
    generator = np.random.default_rng(0)
    for name in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]:
        pixels = generator.integers(0, 256, (count, 3072), dtype=np.uint8)
        content = {b"data": pixels, b"labels": [i % 10 for i in range(count)]}
        (batches / name).write_bytes(pickle.dumps(content, protocol))
    return batches


class Payload:
    """Runs a program when it is unpickled by a reader that trusts."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_the_published_form_is_read_with_valid_taken_from_train(
    tmp_path: Path, protocol: int
) -> None:
    write_batches(tmp_path, protocol)
    data = make_cifar(tmp_path, valid_images=50)
    assert (len(data.train), len(data.valid), len(data.test)) == (150, 50, 40)
    assert data.train.images.shape == (150, 3, 32, 32)
    assert data.train.images.dtype == np.uint8
    assert np.bincount(data.valid.labels).tolist() == [5] * 10
    train = {each.tobytes() for each in data.train.images}
    assert train.isdisjoint(each.tobytes() for each in data.valid.images)


def test_pixels_keep_their_channel_and_place(tmp_path: Path) -> None:
    batches = write_batches(tmp_path)
    pixels = np.repeat(np.arange(3072, dtype=np.uint16)[None] % 251, 40, axis=0).astype(np.uint8)
    content = {b"data": pixels, b"labels": [i % 10 for i in range(40)]}
    (batches / "test_batch").write_bytes(pickle.dumps(content, 2))
    image = make_cifar(batches).test.images[0]
    assert image[2, 3, 4] == (2 * 1024 + 3 * 32 + 4) % 251


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_malicious_pickle_is_refused_and_its_program_does_not_run(
    tmp_path: Path, protocol: int
) -> None:
    batches = write_batches(tmp_path)
    marker = tmp_path / "was-run"
    (batches / "data_batch_3").write_bytes(pickle.dumps(Payload(marker), protocol))
    with pytest.raises(UserInputError, match=r"data_batch_3 was refused.*system"):
        _ = make_cifar(tmp_path, valid_images=50).train
    assert not marker.exists()
    pickle.loads((batches / "data_batch_3").read_bytes())
    assert marker.exists(), "the payload itself must work, or this test shows nothing"


@pytest.mark.parametrize(
    "attack",
    [
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"cbuiltins\ngetattr\n.",
        b"cnumpy\nload\n.",
        b"\x80\x04\x8c\x05numpy\x8c\x0fdtype.__class__\x93.",
    ],
)
def test_nothing_but_the_four_known_functions_can_be_named(tmp_path: Path, attack: bytes) -> None:
    batches = write_batches(tmp_path)
    (batches / "test_batch").write_bytes(attack)
    with pytest.raises(UserInputError, match="was refused"):
        _ = make_cifar(tmp_path).test


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "damaged"),
        (pickle.dumps({b"data": b"x"})[:-5], "damaged"),
        (pickle.dumps([1, 2]), "no dictionary"),
        (pickle.dumps({b"labels": [1]}), "not a CIFAR-10 batch"),
        (pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [1]}), "2 images but"),
        (pickle.dumps({b"data": np.zeros((2, 3072)), b"labels": [1, 2]}), "unsigned bytes"),
        (pickle.dumps({b"data": np.zeros((2, 30), np.uint8), b"labels": [1, 2]}), "reshape"),
        (pickle.dumps({b"data": np.array([{}, {}]), b"labels": [1, 2]}), "unsigned bytes"),
        (
            pickle.dumps({b"data": np.zeros((10, 3072), np.uint8), b"labels": [*range(9), 10]}),
            "label 10 at index 9",
        ),
    ],
)
def test_a_damaged_batch_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    batches = write_batches(tmp_path)
    (batches / "test_batch").write_bytes(content)
    with pytest.raises(UserInputError, match=f"(?s)(test_batch|cifar10 test).*{message}"):
        _ = make_cifar(tmp_path).test


def test_a_missing_batch_file_is_named(tmp_path: Path) -> None:
    batches = write_batches(tmp_path)
    (batches / "data_batch_4").unlink()
    with pytest.raises(UserInputError, match="data_batch_4 is missing"):
        _ = make_cifar(tmp_path, valid_images=50).train


def test_a_missing_folder_says_where_it_looked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HWNAS_DATA", str(tmp_path / "elsewhere"))
    with pytest.raises(UserInputError) as caught:
        _ = make_cifar(None).train
    assert str(tmp_path / "elsewhere" / "cifar10") in caught.value.message
    assert str(tmp_path / "data") in caught.value.message
    assert "cifar-10-batches-py" in str(caught.value.hint)
    with pytest.raises(UserInputError) as caught:
        _ = make_cifar(tmp_path / "mine").train
    assert "elsewhere" not in caught.value.message


def test_the_folder_is_found_through_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_batches(tmp_path)
    monkeypatch.setenv("HWNAS_DATA", str(tmp_path))
    assert len(make_cifar(None, valid_images=50).valid) == 50


def test_asking_for_more_images_than_there_are_is_refused(tmp_path: Path) -> None:
    write_batches(tmp_path)
    with pytest.raises(UserInputError, match="250 images are asked for, but there are 200"):
        _ = make_cifar(tmp_path, valid_images=50, train_images=200).train


def test_cutout_alone_keeps_the_standard_crop_and_flip(tmp_path: Path) -> None:
    data = make_cifar(tmp_path, augment={"cutout": 16})
    assert data.augment is not None
    config = data.augment.config
    assert (config.crop_padding, config.flip, config.cutout) == (4, True, 16)
    assert make_cifar(tmp_path, augment={"crop_padding": 0, "flip": False}).augment is None


def write_parquet(folder: Path, encoded: list[bytes], size: int = 32) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    labels = pyarrow.array([i % 10 for i in range(len(encoded))], pyarrow.int16())
    table = pyarrow.table({"image": encoded, "label": labels})
    for part in ("train", "test"):
        parquet.write_table(table, folder / f"cifar10-{part}.parquet")


def png(pixels: np.ndarray) -> bytes:
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def test_parquet_rows_keep_image_and_label_together(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    write_parquet(tmp_path, [png(image) for image in images])
    label_of = {image.transpose(2, 0, 1).tobytes(): i % 10 for i, image in enumerate(images)}
    data = make_cifar(tmp_path, valid_images=10, train_images=20)
    assert len(data.train) == 20
    for split in (data.train, data.valid, data.test):
        for image, label in zip(split.images, split.labels, strict=True):
            assert label_of[image.tobytes()] == label


@pytest.mark.parametrize(
    ("bad", "message"),
    [(b"no image", "row 7: the image cannot be decoded"), (None, "row 7.*16 by 16")],
)
def test_a_bad_parquet_image_is_named(tmp_path: Path, bad: bytes | None, message: str) -> None:
    encoded = [png(np.zeros((32, 32, 3), np.uint8))] * 20
    encoded[7] = bad or png(np.zeros((16, 16, 3), np.uint8))
    write_parquet(tmp_path, encoded)
    with pytest.raises(UserInputError, match=message):
        _ = make_cifar(tmp_path).test


def test_a_truncated_parquet_file_is_named(tmp_path: Path) -> None:
    write_parquet(tmp_path, [png(np.zeros((32, 32, 3), np.uint8))] * 20)
    path = tmp_path / "cifar10-test.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserInputError, match=r"cifar10-test\.parquet is not a readable Parquet"):
        _ = make_cifar(tmp_path).test


def test_without_pyarrow_the_way_to_get_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for part in ("train", "test"):
        (tmp_path / f"cifar10-{part}.parquet").touch()
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(UserInputError) as caught:
        _ = make_cifar(tmp_path).train
    assert caught.value.hint == "pip install hwnas[parquet]"


@pytest.fixture(scope="module")
def real() -> Dataset:
    checkout = Path(__file__).parents[2]
    shared = Path(os.environ.get("HWNAS_SHARED_DATA", checkout.parent / "shared" / "data"))
    if not (shared / "cifar10" / "cifar10-train.parquet").is_file():
        pytest.skip(f"CIFAR-10 is not in {shared / 'cifar10'} (set HWNAS_SHARED_DATA)")
    pytest.importorskip("pyarrow")
    return make_cifar(shared, train_images=3000, valid_images=500, test_images=500)


def test_real_cifar10_has_the_published_channel_means(real: Dataset) -> None:
    mean, std = real.normalisation
    np.testing.assert_allclose(real.train.images.mean(axis=(0, 2, 3)) / 255, mean, atol=0.01)
    np.testing.assert_allclose(real.train.images.std(axis=(0, 2, 3)) / 255, std, atol=0.01)


def test_real_cifar10_is_balanced_disjoint_and_named(real: Dataset) -> None:
    assert real.class_names == NAMES
    assert np.bincount(real.train.labels).tolist() == [300] * 10
    assert np.bincount(real.valid.labels).tolist() == [50] * 10
    assert np.bincount(real.test.labels).tolist() == [50] * 10
    train = {each.tobytes() for each in real.train.images}
    assert train.isdisjoint(each.tobytes() for each in real.valid.images)


def test_real_labels_agree_with_the_class_names_of_the_file(real: Dataset) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    folder = real._folder()  # type: ignore[attr-defined]
    schema = parquet.read_schema(folder / "cifar10-train.parquet")
    assert tuple(schema.metadata[b"classes"].decode().split(",")) == NAMES
    table = parquet.read_table(folder / "cifar10-test.parquet", columns=["label", "name"])
    # The names start with the word that found the photograph; for these two it is the class.
    for name, label in zip(table["name"].to_pylist(), table["label"].to_pylist(), strict=True):
        word = name.split("_s_")[0]
        if word in {"frog", "dog"}:
            assert NAMES[label] == word
