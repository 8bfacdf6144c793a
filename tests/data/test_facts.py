"""What is told of a file: header, brightness, frame, hashes; and of one that cannot be read, why."""

from __future__ import annotations

import hashlib
import io
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pneumolib as pn
from pneumolib.data.dataset import Dataset, Record
from pneumolib.data.facts import BORDER, Looked, file_facts, frame, jpeg_quality, look
from pneumolib.errors import ImageError


def save(path: Path, *, size: tuple[int, int] = (40, 30), mode: str = "L", gray: int = 90, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, gray if mode == "L" else (gray, gray, gray)).save(path, **options)


def looked(data: Dataset) -> Looked:
    return look(data.source, [record for part in data.parts().values() for record in part])


@pytest.mark.parametrize("quality", [1, 10, 30, 50, 75, 80, 95, 100])
def test_the_quality_that_a_file_was_saved_with_is_found(quality: int) -> None:
    data = io.BytesIO()
    Image.new("L", (16, 16)).save(data, "JPEG", quality=quality)
    assert jpeg_quality(Image.open(data).quantization[0]) == quality


def test_facts_are_those_of_the_files(tmp_path: Path) -> None:
    save(tmp_path / "train/NORMAL/IM-0115-0001.jpeg", size=(50, 40), quality=95)
    save(tmp_path / "train/PNEUMONIA/person80_virus_1.jpeg", mode="RGB", quality=60)
    save(tmp_path / "train/PNEUMONIA/person9_bacteria_2.png")
    data = pn.load_dataset(tmp_path)
    for facts in (file_facts(data.train).set_index("name"), looked(data).facts.set_index("name")):
        normal = facts.loc["train/NORMAL/IM-0115-0001.jpeg"]
        assert (normal["width"], normal["height"], normal["aspect"]) == (50, 40, 1.25)
        assert (normal["format"], normal["mode"], normal["jpeg_quality"]) == ("JPEG", "L", 95)
        assert (normal["patient"], normal["label"], normal["subtype"]) == ("IM:115", "normal", "normal")
        n_bytes = (tmp_path / "train/NORMAL/IM-0115-0001.jpeg").stat().st_size
        assert normal["n_bytes"] == n_bytes
        assert normal["bytes_per_megapixel"] == pytest.approx(n_bytes / 0.002)
        viral = facts.loc["train/PNEUMONIA/person80_virus_1.jpeg"]
        assert (viral["mode"], viral["jpeg_quality"], viral["subtype"]) == ("RGB", 60, "viral")
        assert np.isnan(facts.loc["train/PNEUMONIA/person9_bacteria_2.png"]["jpeg_quality"])


def test_headers_alone_name_a_file_that_is_no_image(tmp_path: Path) -> None:
    save(tmp_path / "train/NORMAL/IM-0115-0001.jpeg")
    (tmp_path / "train/NORMAL/IM-0116-0001.jpeg").write_bytes(b"not a picture")
    with pytest.raises(ImageError, match="IM-0116"):
        file_facts(pn.load_dataset(tmp_path).train)


def test_brightness_and_contrast_are_those_of_the_picture(tmp_path: Path) -> None:
    save(tmp_path / "train/NORMAL/a.png", gray=200)
    halves = np.zeros((128, 128), np.uint8)
    halves[:, 64:] = 100
    Image.fromarray(halves).save(tmp_path / "train/NORMAL/b.png")
    facts = looked(pn.load_dataset(tmp_path)).facts
    assert facts["mean"].tolist() == [200, 50]
    assert facts["contrast"].tolist() == [0, 50]


def test_black_bars_belong_to_the_picture_that_is_told_of(tmp_path: Path) -> None:
    padded = np.zeros((64, 256), np.uint8)
    padded[:, 128:] = 200
    (tmp_path / "train/NORMAL").mkdir(parents=True)
    Image.fromarray(padded).save(tmp_path / "train/NORMAL/a.png")
    assert looked(pn.load_dataset(tmp_path)).facts["mean"].tolist() == [100]


def test_the_frame_has_a_number_for_each_piece_of_each_side() -> None:
    picture = np.zeros((128, 128), np.uint8)
    picture[:8, :16] = 10  # the top's first piece, and the upper half of the left side's first
    picture[-8:, 112:] = 20
    picture[40:60, 40:60] = 255
    values = dict(zip(BORDER, frame(picture), strict=True))
    assert {name: value for name, value in values.items() if value} == {
        "border_top_1": 10,
        "border_left_1": 5,
        "border_bottom_8": 20,
        "border_right_8": 10,
    }


def test_files_that_cannot_be_read_are_reported_with_the_reason_and_the_others_kept(tmp_path: Path) -> None:
    save(tmp_path / "train/NORMAL/a.jpeg")
    save(tmp_path / "train/NORMAL/b.jpeg", size=(300, 300))
    whole = (tmp_path / "train/NORMAL/b.jpeg").read_bytes()
    (tmp_path / "train/NORMAL/b.jpeg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "train/NORMAL/c.jpeg").write_bytes(b"not a picture")
    (tmp_path / "train/NORMAL/d.jpeg").write_bytes(b"")
    found = looked(pn.load_dataset(tmp_path))
    assert found.facts["name"].tolist() == ["train/NORMAL/a.jpeg"]
    assert len(found.thumbnails) == 1
    reasons = dict(found.unreadable)
    assert list(reasons) == [f"train/NORMAL/{name}.jpeg" for name in "bcd"]
    assert "cut off" in reasons["train/NORMAL/b.jpeg"]
    assert "no image of a format" in reasons["train/NORMAL/c.jpeg"]
    assert "empty" in reasons["train/NORMAL/d.jpeg"]


def test_each_file_is_read_once_and_kept_as_hashes(tmp_path: Path) -> None:
    save(tmp_path / "train/NORMAL/a.png", gray=7)
    data = pn.load_dataset(tmp_path)
    calls = []

    class Counted:
        location, phantom = "here", False

        def names(self) -> dict[str, int]:
            return data.source.names()

        def read(self, name: str) -> bytes:
            calls.append(name)
            return data.source.read(name)

    found = look(Counted(), data.train.records)
    assert calls == ["train/NORMAL/a.png"]
    content = (tmp_path / "train/NORMAL/a.png").read_bytes()
    assert found.facts.loc[0, "sha256"] == hashlib.sha256(content).hexdigest()
    assert len(found.facts.loc[0, "perceptual_hash"]) == 16
    assert found.thumbnails.dtype == np.uint8
    assert (found.thumbnails == 7).all()
    assert found.thumbnails.shape == (1, 16, 16)


def test_without_the_package_there_is_no_perceptual_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imagehash", None)
    save(tmp_path / "train/NORMAL/a.png")
    assert looked(pn.load_dataset(tmp_path)).facts["perceptual_hash"].tolist() == [None]


def test_where_nothing_can_be_read_the_table_is_empty_with_its_columns(tmp_path: Path) -> None:
    save(tmp_path / "train/NORMAL/a.png")
    data = pn.load_dataset(tmp_path)
    gone = [Record("train/NORMAL/a.png", "train", "normal", "normal", "?", 1)]
    (tmp_path / "train/NORMAL/a.png").unlink()
    found = look(data.source, gone)
    assert found.facts.empty
    assert {"name", "width", "mean", "sha256", *BORDER} <= set(found.facts)
    assert found.thumbnails.shape == (0, 16, 16)
    assert "still stand there" in found.unreadable[0][1]


def test_progress_is_a_line_where_there_is_no_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path / "train/NORMAL/a.png")
    data = pn.load_dataset(tmp_path)
    look(data.source, data.train.records)
    assert capsys.readouterr() == ("", "")
    look(data.source, data.train.records, progress=True)
    assert capsys.readouterr() == ("Reading 1 images ...\n", "")
