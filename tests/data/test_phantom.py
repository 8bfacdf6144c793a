from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pneumolib.data import phantom
from pneumolib.data.phantom import COMMENT, MARKER, SUBTYPES, draw, make_phantom
from pneumolib.errors import DataError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_phantom(tmp_path_factory.mktemp("phantom") / "data", n_train=160, n_val=8, n_test=80, size=(120, 144))


def names(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.jpeg"))


def digest(folder: Path) -> str:
    return hashlib.sha256(b"".join((folder / name).read_bytes() for name in names(folder))).hexdigest()


def patient(name: str) -> tuple[str, int]:
    base = Path(name).name
    if match := re.fullmatch(r"person(\d+)_(bacteria|virus)_\d+\.jpeg", base):
        return match[2], int(match[1])
    match = re.fullmatch(r"(IM|NORMAL2-IM)-(\d{4})-0001(-\d{4})?\.jpeg", base)
    assert match, f"{base} is no name of the real data set's form"
    return match[1], int(match[2])


def load(folder: Path, split: str, side: int) -> tuple[np.ndarray, np.ndarray]:
    images, ill = [], []
    for name in names(folder):
        if name.startswith(split):
            image = Image.open(folder / name).convert("L").resize((side, side), Image.Resampling.BOX)
            images.append(np.asarray(image, dtype=np.float32))
            ill.append("PNEUMONIA" in name)
    return np.stack(images), np.array(ill)


def test_the_same_arguments_draw_the_same_image_and_others_another():
    image = draw("bacterial", 5)
    assert image.dtype == np.uint8
    assert image.ndim == 2
    assert np.array_equal(image, draw("bacterial", 5))
    assert not np.array_equal(draw("bacterial", 5, size=(240, 300)), draw("bacterial", 6, size=(240, 300)))


def test_without_a_size_the_shape_varies():
    shapes = {draw("normal", seed).shape for seed in range(5)}
    assert len(shapes) == 5
    assert all(200 <= h <= 320 and 1.0 <= w / h <= 1.5 for h, w in shapes)


def test_two_images_of_one_patient_are_more_alike_than_those_of_two_patients():
    first = draw("normal", 1, patient=70, size=(128, 150)).astype(float)
    alike, unlike = [], []
    for seed in range(2, 8):
        alike.append(np.corrcoef(first.ravel(), draw("normal", seed, patient=70, size=(128, 150)).ravel())[0, 1])
        unlike.append(np.corrcoef(first.ravel(), draw("normal", seed, patient=seed, size=(128, 150)).ravel())[0, 1])
    assert np.mean(alike) > np.mean(unlike)


@pytest.mark.parametrize("subtype", SUBTYPES)
def test_lungs_are_dark_and_the_middle_is_bright(subtype: str):
    images = np.stack([draw(subtype, seed, size=(140, 170)) for seed in range(6)]).astype(float).mean(axis=0)
    middle = images[60:100, 78:92].mean()
    lungs = np.concatenate([images[50:80, 45:65].ravel(), images[50:80, 105:125].ravel()]).mean()
    belly = images[125:138, 60:110].mean()
    assert lungs < 0.85 * middle
    assert lungs < 0.9 * belly


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"subtype": "fungal", "seed": 0}, "Received: 'fungal'"),
        ({"subtype": "viral", "seed": -1}, "0 or more"),
        ({"subtype": "viral", "seed": 1, "size": (10, 300)}, "64 to 2048"),
    ],
)
def test_what_cannot_be_drawn_is_refused(arguments: dict, said: str):
    with pytest.raises(DataError, match=said):
        draw(**arguments)


def test_the_layout_is_that_of_the_real_data_set(folder: Path):
    assert sorted(p.name for p in folder.iterdir()) == [MARKER, "test", "train", "val"]
    count = Counter(tuple(name.split("/")[:2]) for name in names(folder))
    assert sum(n for (split, _), n in count.items() if split == "train") == 160
    assert count["val", "NORMAL"] == count["val", "PNEUMONIA"] == 4
    assert count["test", "NORMAL"] + count["test", "PNEUMONIA"] == 80
    assert 0.2 < count["train", "NORMAL"] / 160 < 0.3
    for name in names(folder):
        assert (patient(name)[0] in ("IM", "NORMAL2-IM")) == ("/NORMAL/" in name)


def test_patients_have_several_images_and_stay_in_one_part(folder: Path):
    splits, images = defaultdict(set), Counter()
    for name in names(folder):
        splits[patient(name)].add(name.split("/")[0])
        images[patient(name)] += 1
    assert all(len(parts) == 1 for parts in splits.values())
    assert max(images.values()) > 1
    numbers = {key for key, parts in splits.items() if parts == {"train"}}
    assert not any(family == "bacteria" and 78 <= n <= 175 for family, n in numbers)
    assert min(n for family, n in numbers if family == "IM") >= 115
    assert max(n for family, n in splits if family == "IM" and splits[family, n] == {"test"}) <= 111


def test_every_file_says_that_it_is_a_phantom(folder: Path):
    for name in names(folder):
        with Image.open(folder / name) as image:
            assert image.info["comment"] == COMMENT


def test_the_mean_gray_tells_nothing_but_the_pixels_do(folder: Path):
    from sklearn.linear_model import RidgeClassifier
    from sklearn.metrics import roc_auc_score

    (x, y), (x_test, y_test) = load(folder, "train", 36), load(folder, "test", 36)
    for images, ill in ((x, y), (x_test, y_test)):
        assert 0.35 < roc_auc_score(ill, images.mean(axis=(1, 2))) < 0.65
    x, x_test = (
        ((v - v.mean(axis=(1, 2), keepdims=True)) / v.std(axis=(1, 2), keepdims=True)).reshape(len(v), -1)
        for v in (x, x_test)
    )
    scores = RidgeClassifier(alpha=300.0).fit(x, y).decision_function(x_test)
    assert 0.7 < roc_auc_score(y_test, scores) < 0.99


def test_the_same_seed_writes_the_same_bytes_and_a_second_call_draws_nothing(tmp_path: Path, monkeypatch):
    arguments = dict(n_train=8, n_val=2, n_test=8, size=(64, 80))
    first = make_phantom(tmp_path / "a", **arguments)
    assert digest(first) == digest(make_phantom(tmp_path / "b", **arguments))
    assert digest(first) != digest(make_phantom(tmp_path / "c", **arguments, seed=1))
    monkeypatch.setattr(phantom, "draw", lambda *_, **__: pytest.fail("drawn again"))
    assert make_phantom(tmp_path / "a", **arguments) == first


def test_an_image_depends_on_its_name_alone_and_not_on_how_many_there_are(tmp_path: Path):
    small = make_phantom(tmp_path / "small", n_train=8, n_val=2, n_test=8, size=(64, 80))
    other = make_phantom(tmp_path / "other", n_train=8, n_val=4, n_test=8, size=(64, 80))
    for name in names(small):
        if not name.startswith("val/"):
            assert (small / name).read_bytes() == (other / name).read_bytes()


def test_an_interrupted_make_leaves_nothing_that_looks_finished(tmp_path: Path, monkeypatch):
    drawn = []

    def fail_late(*args: object, **kwargs: object) -> np.ndarray:
        drawn.append(1)
        if len(drawn) > 5:
            raise KeyboardInterrupt
        return np.zeros((64, 64), np.uint8)

    with monkeypatch.context() as patch:
        patch.setattr(phantom, "draw", fail_late)
        with pytest.raises(KeyboardInterrupt):
            make_phantom(tmp_path / "data", n_train=8, n_val=2, n_test=8, size=(64, 80))
    assert list(tmp_path.iterdir()) == []
    whole = make_phantom(tmp_path / "data", n_train=8, n_val=2, n_test=8, size=(64, 80))
    assert len(names(whole)) == 18


def test_a_folder_that_holds_something_else_is_refused(tmp_path: Path):
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(DataError, match="other files"):
        make_phantom(tmp_path, n_train=8, n_val=2, n_test=8)
    made = make_phantom(tmp_path / "made", n_train=8, n_val=2, n_test=8, size=(64, 64))
    with pytest.raises(DataError, match="other arguments"):
        make_phantom(made, n_train=9, n_val=2, n_test=8, size=(64, 64))
    assert len(names(made)) == 18


@pytest.mark.parametrize("wrong", [{"n_train": 4}, {"n_val": 400}, {"n_test": 5000}, {"seed": -1}, {"size": (8, 8)}])
def test_numbers_out_of_range_are_refused_before_anything_is_written(tmp_path: Path, wrong: dict):
    with pytest.raises(DataError, match="Received"):
        make_phantom(tmp_path / "data", **wrong)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("split", "n"), [("train", 5000), ("val", 28), ("test", 600)])
def test_the_largest_sizes_allowed_find_names_enough(split: str, n: int):
    plan = list(phantom._plan(split, n, seed=0))
    assert len({name for name, _, _ in plan}) == n
