"""Heat maps in a folder: of the whole picture, in their place and nowhere else, without what the file tells of whom."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pneumolib.data.images import decode
from pneumolib.data.radiograph import draw
from pneumolib.errors import DataError
from pneumolib.evaluation.heat_png import is_heat_png
from pneumolib.evaluation.overlay import overlay
from pneumolib.models.detector import Detector, load_detector
from pneumolib.models.explain import Explanation, explain
from pneumolib.models.heat_files import HeatFolder


@pytest.fixture(scope="module")
def detector() -> Detector:
    return load_detector(threads=1)


@pytest.fixture(scope="module")
def x_ray(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Large, lying on its side by its header, and with a name in that header and in a comment."""
    path = tmp_path_factory.mktemp("pictures") / "Doe-Jane.jpeg"
    upright = Image.fromarray(draw("bacterial", 3, size=(320, 400))).resize((1600, 1280))
    exif = Image.Exif()
    exif[0x0112] = 8  # to be turned a quarter to the left
    exif[0x010E] = "Jane Doe"
    upright.transpose(Image.Transpose.ROTATE_270).save(path, exif=exif, comment=b"Jane Doe, born 1999")
    return path


@pytest.fixture(scope="module")
def found(detector: Detector, x_ray: Path) -> Explanation:
    return explain(detector, x_ray, operating_point="high_specificity")


def test_the_whole_picture_is_drawn_upright_at_its_own_aspect_ratio(
    detector: Detector, x_ray: Path, found: Explanation, tmp_path: Path
) -> None:
    target = HeatFolder(tmp_path / "new/heat").write(Path("deep/a.jpeg"), x_ray, found, detector)
    assert target == tmp_path / "new/heat/deep/a.jpeg.png"
    with Image.open(target) as file:
        assert file.size == (1024, 819)
        pixels = np.asarray(file)
    small = np.asarray(Image.fromarray(decode(x_ray)).resize((1024, 819), Image.Resampling.BILINEAR))
    difference = np.abs(pixels.astype(int) - overlay(small, found.heat))
    assert np.quantile(difference, 0.99) <= 2
    assert found.heat.max() > 0.5


def test_the_bars_of_a_padded_picture_are_drawn_and_stay_without_heat(
    detector: Detector, x_ray: Path, found: Explanation, tmp_path: Path
) -> None:
    padded = tmp_path / "padded.png"
    film = np.maximum(decode(x_ray), 20)
    Image.fromarray(np.pad(film, [(0, 0), (len(film), 0)])).save(padded)
    again = explain(detector, padded, operating_point="high_specificity")
    np.testing.assert_array_equal(again.image, detector.prepare(film))
    with Image.open(HeatFolder(tmp_path).write(Path("b"), padded, again, detector)) as file:
        pixels = np.asarray(file).astype(int)
    coloured = np.ptp(pixels, axis=2).max(axis=0)
    bar = round(1024 * len(film) / (len(film) + film.shape[1]))
    assert coloured[: bar - 2].max() == 0
    assert coloured[bar + 2 :].max() > 50


def test_nothing_of_the_files_header_or_name_is_in_it(
    detector: Detector, x_ray: Path, found: Explanation, tmp_path: Path
) -> None:
    target = HeatFolder(tmp_path).write(Path("a"), x_ray, found, detector)
    content = target.read_bytes()
    for word in (b"Jane", b"Doe", b"1999", b"Exif", str(x_ray.parent).encode()):
        assert word not in content
    with Image.open(target) as file:
        assert set(file.info) == {"Software", "Description"}
        words = file.info["Description"]
    answer = found.prediction
    assert f"{answer.decision}, probability {answer.probability:.3f}" in words
    assert f"threshold {answer.threshold:.3f}, high_specificity" in words
    assert "not for diagnosis" in words


def test_of_dicom_the_picture_alone_is_drawn_with_square_pixels(detector: Detector, tmp_path: Path) -> None:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian

    upright = Image.fromarray(draw("viral", 2, size=(320, 400)))
    pixels = np.asarray(upright.resize((500, 800))).astype(np.uint16)  # a pixel is twice as wide as high
    ids = {"PatientName": "Doe^Jane", "PatientID": "MRN-4711", "SOPInstanceUID": "1.2.3.4711"}
    header = {"Modality": "CR", "SOPClassUID": ComputedRadiographyImageStorage, "PixelAspectRatio": [1, 2], **ids}
    form = {"BitsAllocated": 16, "BitsStored": 12, "HighBit": 11, "PixelRepresentation": 0, "SamplesPerPixel": 1}
    file = Dataset()
    file.file_meta = FileMetaDataset()
    file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file.Rows, file.Columns = pixels.shape
    file.PhotometricInterpretation = "MONOCHROME1"
    for name, value in {**header, **form}.items():
        setattr(file, name, value)
    file.PixelData = ((255 - pixels) * 16).tobytes()
    path = tmp_path / "IM0001"
    file.save_as(path, enforce_file_format=True)

    target = HeatFolder(tmp_path).write(Path("heat"), path, explain(detector, path), detector)
    with Image.open(target) as heat:
        assert heat.size == (1000, 800)
        blue = np.asarray(heat.resize((400, 320)))[..., 2].astype(int)  # which the heat's colours change least
    assert np.corrcoef(blue.ravel(), np.asarray(upright).ravel())[0, 1] > 0.8
    for word in (b"Doe", b"4711", b"1.2.3", b"IM0001"):
        assert word not in target.read_bytes()


def test_it_is_written_over_an_older_one_and_over_nothing_else(
    detector: Detector, x_ray: Path, found: Explanation, tmp_path: Path
) -> None:
    folder = HeatFolder(tmp_path)
    target = folder.write(Path("a"), x_ray, found, detector)
    target.write_bytes(target.read_bytes() + b"older")
    folder.write(Path("a"), x_ray, found, detector)
    assert not target.read_bytes().endswith(b"older")
    Image.new("L", (8, 8)).save(tmp_path / "b.png")
    (tmp_path / "c.png").symlink_to(tmp_path / "nowhere")
    before = (tmp_path / "b.png").read_bytes()
    for name in ("b", "c"):
        with pytest.raises(DataError, match=rf"Doe-Jane\.jpeg.*over another file.*{name}\.png$"):
            folder.write(Path(name), x_ray, found, detector)
    assert (tmp_path / "b.png").read_bytes() == before
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("name", ["link/a", "link/new/a", "../a"])
def test_it_never_stands_outside_its_folder(
    detector: Detector, x_ray: Path, found: Explanation, tmp_path: Path, name: str
) -> None:
    (tmp_path / "outside").mkdir()
    folder = HeatFolder(tmp_path / "heat")
    (tmp_path / "heat/link").symlink_to(tmp_path / "outside")
    with pytest.raises(DataError, match="would stand outside"):
        folder.write(Path(name), x_ray, found, detector)
    assert list((tmp_path / "outside").iterdir()) == []
    assert {path.name for path in tmp_path.iterdir()} == {"outside", "heat"}


def test_a_full_disk_leaves_no_half_file(
    detector: Detector, x_ray: Path, found: Explanation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, content: bytes) -> int:
        self.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DataError, match=r"cannot be written to .*a\.png: No space left"):
        HeatFolder(tmp_path).write(Path("a"), x_ray, found, detector)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file/below"):
        with pytest.raises(DataError, match="cannot be made"):
            HeatFolder(path)


def test_one_picture_drawn_by_several_threads_is_whole(
    detector: Detector, x_ray: Path, found: Explanation, tmp_path: Path
) -> None:
    folder = HeatFolder(tmp_path)
    with ThreadPoolExecutor(4) as pool:
        targets = list(pool.map(lambda _: folder.write(Path("a"), x_ray, found, detector), range(8)))
    assert set(targets) == {tmp_path / "a.png"}
    assert os.listdir(tmp_path) == ["a.png"]
    assert is_heat_png(tmp_path / "a.png")
