"""Data sets as code sees them: where one is found, and what its parts tell."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pneumolib.config import Config
from pneumolib.data import download
from pneumolib.data import phantom as phantoms
from pneumolib.data.card import CARD
from pneumolib.data.dataset import Dataset, load_dataset
from pneumolib.data.splits import shared_patients
from pneumolib.errors import DataError, DataNotFoundError, DownloadError, ImageError

NAMES = [
    "train/NORMAL/IM-0115-0001.jpeg",
    "train/NORMAL/IM-0115-0002.jpeg",
    "train/NORMAL/NORMAL2-IM-0115-0001.jpeg",
    "train/PNEUMONIA/person1_bacteria_1.jpeg",
    "train/PNEUMONIA/person1_virus_2.jpeg",
    "val/NORMAL/NORMAL2-IM-1427-0001.jpeg",
    "test/NORMAL/IM-0001-0001.jpeg",
    "test/PNEUMONIA/person78_bacteria_378.jpeg",
    "test/PNEUMONIA/person1_virus_6.jpeg",
]


def jpeg(shade: int) -> bytes:
    data = io.BytesIO()
    Image.fromarray(np.full((16, 20), shade, np.uint8)).save(data, "JPEG")
    return data.getvalue()


def make(folder: Path, names: list[str] = NAMES) -> Path:
    for i, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(20 * i))
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    return load_dataset(make(tmp_path / "set"))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn") / "set"
    return phantoms.make_phantom(folder, n_train=8, n_val=2, n_test=8, size=(64, 64))


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, drawn: Path) -> None:
    """No X-rays anywhere, no network, and a phantom that is drawn already."""

    def refuse() -> Path:
        raise DownloadError("Kaggle cannot be reached.")

    monkeypatch.setattr(download, "find_cached", lambda: None)
    monkeypatch.setattr(download, "download", refuse)
    monkeypatch.setattr(phantoms, "make_phantom", lambda _: drawn)


def test_places_are_asked_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    explicit, named, cached, fetched = (make(tmp_path / name) for name in ("explicit", "named", "cached", "fetched"))
    monkeypatch.setenv("PNEUMOLIB_DATA", str(named))
    monkeypatch.setattr(download, "find_cached", lambda: cached)
    monkeypatch.setattr(download, "download", lambda: fetched)
    config = Config(phantom_allowed=True)
    assert load_dataset(explicit, config=config).location == str(explicit)
    assert load_dataset(config=config).location == str(named)
    assert load_dataset("kaggle", config=config).location == str(cached)
    monkeypatch.delenv("PNEUMOLIB_DATA")
    assert load_dataset(config=config).location == str(cached)
    monkeypatch.setattr(download, "find_cached", lambda: None)
    assert load_dataset(config=config).location == str(fetched)
    assert load_dataset(config=config).kind == "kaggle"


def test_with_a_path_nobody_looks_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(download, "find_cached", lambda: pytest.fail("looked into the cache"))
    monkeypatch.setattr(download, "download", lambda: pytest.fail("asked the network"))
    assert len(load_dataset(str(make(tmp_path))).train) == 5


@pytest.mark.usefixtures("offline")
def test_the_phantom_stands_in_where_allowed_and_a_line_says_so(capsys: pytest.CaptureFixture[str]):
    data = load_dataset(config=Config(phantom_allowed=True))
    assert data.phantom
    said = capsys.readouterr().out
    assert "Kaggle cannot be reached" in said
    assert any(line.startswith("PHANTOM") for line in said.splitlines())


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("config", [None, Config(), Config.preset("cpu"), Config.preset("full")])
def test_without_permission_the_error_names_the_cause_and_three_ways_out(config: Config | None):
    with pytest.raises(DownloadError) as caught:
        load_dataset(config=config)
    said = str(caught.value)
    assert said.startswith("Kaggle cannot be reached.")
    assert "Three ways out" in said
    for way in ("the path of a folder or zip", "PNEUMOLIB_DATA", "try again with a network", "'phantom'"):
        assert way in said


@pytest.mark.usefixtures("offline")
def test_who_asks_for_kaggle_gets_no_phantom(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(DownloadError, match="Three ways out"):
        load_dataset("kaggle", config=Config(phantom_allowed=True))
    monkeypatch.setenv("PNEUMOLIB_DATA", "kaggle")
    with pytest.raises(DownloadError, match="Three ways out"):
        load_dataset(config=Config(phantom_allowed=True))


@pytest.mark.usefixtures("offline")
def test_a_path_with_nothing_there_is_an_error_even_where_the_phantom_is_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    config = Config(phantom_allowed=True)
    with pytest.raises(DataNotFoundError, match=r"Received: .*nowhere"):
        load_dataset(tmp_path / "nowhere", config=config)
    with pytest.raises(DataError, match="no data set there"):
        load_dataset(tmp_path, config=config)
    monkeypatch.setenv("PNEUMOLIB_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(DataNotFoundError, match=r"Received: .*nowhere"):
        load_dataset(config=config)


@pytest.mark.usefixtures("offline")
def test_the_phantom_comes_when_asked_for_by_name(monkeypatch: pytest.MonkeyPatch):
    assert load_dataset("phantom").kind == "phantom"
    monkeypatch.setenv("PNEUMOLIB_DATA", "phantom")
    assert load_dataset().kind == "phantom"


def test_the_kind_tells_where_it_came_from(tmp_path: Path, drawn: Path, monkeypatch: pytest.MonkeyPatch):
    folder = make(tmp_path / "set")
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for name in NAMES:
            archive.write(folder / name, name)
    monkeypatch.setattr(download, "find_cached", lambda: folder)
    assert load_dataset(folder).kind == "folder"
    assert load_dataset(tmp_path / "set.zip").kind == "zip"
    assert load_dataset("kaggle").kind == "kaggle"
    assert load_dataset(drawn).kind == "phantom"


def test_counts_are_by_part_and_class(data: Dataset):
    assert data.counts() == {
        "train": {"NORMAL": 3, "PNEUMONIA": 2},
        "val": {"NORMAL": 1, "PNEUMONIA": 0},
        "test": {"NORMAL": 1, "PNEUMONIA": 2},
    }
    assert {name: len(part) for name, part in data.parts().items()} == {"train": 5, "val": 1, "test": 3}


def test_a_copy_with_the_test_part_only_has_two_empty_parts(tmp_path: Path):
    data = load_dataset(make(tmp_path, [name for name in NAMES if name.startswith("test/")]))
    assert (len(data.train), len(data.val), len(data.test)) == (0, 0, 3)
    assert data.counts()["train"] == {"NORMAL": 0, "PNEUMONIA": 0}
    assert data.train.targets().shape == (0,)
    assert len(data.train.table()) == 0
    assert "empty" in repr(data.train)


def test_records_tell_label_subtype_patient_and_size(data: Dataset):
    record = data.train[3]
    assert record.name == "train/PNEUMONIA/person1_bacteria_1.jpeg"
    assert (record.split, record.label, record.subtype) == ("train", "pneumonia", "bacterial")
    assert record.patient == "bacteria:1"
    assert record.n_bytes == len(data.train.read(3)) == len(jpeg(60))
    assert [r.name for r in data.train] == list(data.train.names) == NAMES[:5]
    assert data.train.patients.tolist() == ["IM:115", "IM:115", "NORMAL2-IM:115", "bacteria:1", "virus:1"]
    assert data.train.subtypes.tolist() == ["normal", "normal", "normal", "bacterial", "viral"]
    assert data.train.is_pneumonia.tolist() == [False, False, False, True, True]


def test_targets_are_of_two_or_of_three_classes(data: Dataset):
    assert data.train.targets().tolist() == data.train.targets(3).tolist() == [0, 0, 0, 1, 2]
    assert data.train.targets(2).tolist() == [0, 0, 0, 1, 1]
    assert data.train.targets().dtype == np.int64
    with pytest.raises(DataError, match=r"2 or 3\. Received: 4"):
        data.train.targets(4)


def test_names_without_a_subtype_give_two_classes_but_not_three(tmp_path: Path):
    names = ["train/NORMAL/a.png", "train/PNEUMONIA/b.png", "train/PNEUMONIA/person1_virus_2.jpeg"]
    train = load_dataset(make(tmp_path, names)).train
    assert train.targets(2).tolist() == [0, 1, 1]
    with pytest.raises(DataError, match=r"1 images do not tell .* such as train/PNEUMONIA/b\.png.*classes=2"):
        train.targets(3)
    assert "1 unspecified" in repr(train)


def test_images_are_taken_by_mask_and_by_indices(data: Dataset):
    train = data.train
    assert train.take(train.is_pneumonia).names == tuple(NAMES[3:5])
    assert train.take([4, 0]).names == (NAMES[4], NAMES[0])
    assert train.take(np.array([1]), name="one").name == "one"
    assert train.take([1]).name == "train"
    assert train.take([0, 0]).names == (NAMES[0], NAMES[0])
    assert train.take([-1]).names == (NAMES[4],)
    assert len(train.take([])) == 0
    assert len(train.take(np.zeros(5, bool))) == 0


@pytest.mark.parametrize("chosen", [[True], [5], [-6], [0.5], [[0, 1]]])
def test_what_names_no_images_of_the_part_is_refused(data: Dataset, chosen: list):
    with pytest.raises(DataError, match="Received: "):
        data.train.take(chosen)


def test_another_order_of_the_same_images_has_its_own_pixels(data: Dataset):
    data.train.images(16)
    assert np.allclose(data.train.take([2, 1, 0]).images(16)[:, 0, 0], [40, 20, 0], atol=1)
    assert np.allclose(data.train.take([0, 0, 2]).images(16)[:, 0, 0], [0, 0, 40], atol=1)


def test_the_origin_tells_no_folder_of_this_machine(data: Dataset, drawn: Path, tmp_path: Path):
    assert data.test.origin == "set"
    assert load_dataset(drawn).test.origin == "the phantom"
    cached = make(tmp_path / "cache" / "chest-xray-pneumonia" / "versions" / "2")
    assert load_dataset(cached).test.origin == "chest-xray-pneumonia/versions/2"


def test_what_is_taken_from_a_phantom_is_a_phantom(drawn: Path):
    taken = load_dataset(drawn).train.take([0])
    assert taken.phantom
    assert "PHANTOM" in repr(taken)


def test_the_table_has_a_row_an_image(data: Dataset):
    table = data.test.table()
    assert list(table) == ["name", "split", "label", "subtype", "patient", "n_bytes"]
    assert table["name"].tolist() == list(data.test.names)
    assert table.set_index("name").loc["test/PNEUMONIA/person1_virus_6.jpeg"].tolist() == [
        "test", "pneumonia", "viral", "virus:1", len(data.test.read(2)),
    ]  # fmt: skip


def test_the_fingerprint_follows_the_files_and_not_the_place(data: Dataset, tmp_path: Path):
    again = load_dataset(make(tmp_path / "again"))
    assert again.fingerprint() == data.fingerprint()
    assert data.train.fingerprint() != data.test.fingerprint()
    assert data.train.take([0]).fingerprint() != data.train.fingerprint()
    (tmp_path / "again" / NAMES[-1]).write_bytes(jpeg(0) + b"more")
    changed = load_dataset(tmp_path / "again")
    assert changed.fingerprint() != data.fingerprint()
    assert changed.test.fingerprint() != data.test.fingerprint()
    assert changed.train.fingerprint() == data.train.fingerprint()


def test_the_repr_says_what_it_is_where_and_how_much(data: Dataset, drawn: Path):
    phantom = load_dataset(drawn)
    assert CARD.title in repr(data)
    assert data.location in repr(data)
    assert "PHANTOM" not in repr(data)
    assert "3 normal, 1 bacterial, 1 viral; 4 patients" in repr(data)
    assert repr(phantom).startswith("PHANTOM")
    assert CARD.title not in repr(phantom)
    assert "PHANTOM" in repr(phantom.test)
    assert "PHANTOM" not in repr(data.test)


def test_pixels_are_those_of_the_file(data: Dataset):
    image = data.train.image(4)
    assert image.shape == (16, 20)
    assert abs(int(image[0, 0]) - 80) <= 1
    squares = data.train.images(16)
    assert squares.shape == (5, 16, 16)
    assert np.allclose(squares[:, 0, 0], [0, 20, 40, 60, 80], atol=1)


def test_an_image_that_cannot_be_read_is_named(data: Dataset):
    (Path(data.location) / NAMES[0]).write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"train/NORMAL/IM-0115-0001\.jpeg: .*Allowed"):
        data.train.image(0)


def test_the_real_data_set_has_the_counts_and_shares_no_patient_between_its_parts(real_data: Path):
    data = load_dataset(real_data)
    assert not data.phantom
    counts = data.counts()
    assert counts["train"] == {"NORMAL": 1341, "PNEUMONIA": 3875}
    assert counts["test"] in ({"NORMAL": 117, "PNEUMONIA": 195}, CARD.counts["test"])
    assert not shared_patients(data.train, data.test)
    assert set(data.train.targets()) == set(data.test.targets()) == {0, 1, 2}
