"""What does the detector refuse: how many X-rays of the data set, how much of what is no upright chest X-ray?

    PNEUMOLIB_DATA=chest_xray.zip python benchmarks/refusal.py --json benchmarks/results/refusal.json

The first rows are X-rays that should pass: validation and test. The others should be refused: photographs that
packages carry (scikit-learn, matplotlib), in random crops; drawn figures and pages of text; blank, noisy and cloudy
pictures; and X-rays that are inverted, turned, upside down, cropped to a part, or put together from four. The last
three are told without a judgement: X-rays whose local contrast was enhanced, as some devices do, are chest X-rays, but
not of the kind that it was trained on, and neither are the synthetic ones of the phantom. For every set: the share that
is refused, and by which reason.
"""

from __future__ import annotations

import argparse
import io
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import matplotlib
import numpy as np
from numpy.typing import NDArray

from pneumolib import runtime
from pneumolib.data.dataset import Dataset, load_dataset
from pneumolib.data.images import decode, square
from pneumolib.data.radiograph import draw
from pneumolib.data.splits import split_by_patient
from pneumolib.models.detector import load_detector

matplotlib.use("Agg")

Images = NDArray[np.uint8]
N = 150  # pictures of each made set
SUBTYPES = ("normal", "bacterial", "viral")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="a folder or a zip; left out: PNEUMOLIB_DATA, then kagglehub")
    parser.add_argument("--detector", help="folder of a detector or a run; left out: the one that ships")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()

    data = load_dataset(arguments.data)
    detector = load_detector(arguments.detector, allow_phantom=data.phantom)
    rows = []
    for name, wanted, images in sets(data, detector.card["split_seed"], detector.size):
        answers = detector.predict(list(images))
        refused = [answer.input.code for answer in answers if not answer.input.ok]
        rows.append(
            {
                "set": name,
                "should_be_refused": wanted,
                "n": len(images),
                "refused": round(len(refused) / len(images), 4),
                "reasons": dict(Counter(refused).most_common()),
            }
        )
        print(f"{name:44} {len(images):5} {rows[-1]['refused']:7.1%}  {rows[-1]['reasons']}", flush=True)
    if arguments.json:
        result = {"machine": runtime.describe(), "phantom": data.phantom, "detector": detector.name, "rows": rows}
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def sets(data: Dataset, split_seed: int, size: int) -> list[tuple[str, bool | None, Images]]:
    """Return name, whether it should be refused (None: no judgement), and squares uint8 ``[N, S, S]`` of each set."""
    rng = np.random.default_rng(0)
    val = split_by_patient(data.train, seed=split_seed).val.images(size)
    some = np.array(val[np.linspace(0, len(val) - 1, min(N, len(val))).astype(int)])

    def each(change: Callable[[Images], Any]) -> Images:
        return np.stack([square(np.ascontiguousarray(change(image), np.uint8), size) for image in some])

    def crop(image: Images) -> Images:
        side = round(0.4 * size)
        y, x = rng.integers(0, size - side, 2)
        return image[y : y + side, x : x + side]

    def four(_: Images) -> Images:
        small = [cv2.resize(some[i], (size // 2, size // 2)) for i in rng.integers(0, len(some), 4)]
        return np.block([small[:2], small[2:]])

    def turned(degrees: float) -> Callable[[Images], Any]:
        middle = (size - 1) / 2
        matrix = cv2.getRotationMatrix2D((middle, middle), degrees, 1.0)
        return lambda image: cv2.warpAffine(image, matrix, (size, size))

    return [
        ("X-rays, validation", False, np.array(val)),
        ("X-rays, test", False, np.array(data.test.images(size))),
        ("photographs", True, photographs(rng, size)),
        ("figures", True, figures(rng, size)),
        ("pages of text", True, pages(rng, size)),
        ("blank", True, np.stack([np.full((size, size), value, np.uint8) for value in range(0, 256, 5)])),
        ("noise", True, rng.integers(0, 256, (N, size, size), dtype=np.uint8)),
        ("clouds", True, np.stack([cloud(rng, size) for _ in range(N)])),
        ("X-rays, inverted", True, each(lambda image: 255 - image)),
        ("X-rays, turned by 45 degrees", True, each(turned(45))),
        ("X-rays, turned by 90 degrees", True, each(np.rot90)),
        ("X-rays, turned by 180 degrees", True, each(lambda image: image[::-1, ::-1])),
        ("X-rays, upside down", True, each(lambda image: image[::-1])),
        ("X-rays, cropped to 40 % of each side", True, each(crop)),
        ("X-rays, four in one picture", True, each(four)),
        ("X-rays, local contrast equalised", None, each(cv2.createCLAHE(4.0, (8, 8)).apply)),
        ("X-rays, edges enhanced", None, each(enhanced)),
        ("synthetic X-rays (phantom)", None, np.stack([square(draw(SUBTYPES[i % 3], i), size) for i in range(N)])),
    ]


def photographs(rng: np.random.Generator, size: int) -> Images:
    """Return random crops of the photographs that scikit-learn and matplotlib carry."""
    from sklearn.datasets import load_sample_images

    whole = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in load_sample_images().images]
    folder = Path(matplotlib.get_data_path()) / "sample_data"
    whole += [decode(path.read_bytes()) for path in sorted(folder.glob("*.jpg"))]
    crops = []
    for i in range(N):
        image = whole[i % len(whole)]
        height, width = (round(side * rng.uniform(0.4, 1)) for side in image.shape)
        y, x = rng.integers(0, image.shape[0] - height + 1), rng.integers(0, image.shape[1] - width + 1)
        crops.append(square(np.ascontiguousarray(image[y : y + height, x : x + width]), size))
    return np.stack(crops)


def figures(rng: np.random.Generator, size: int) -> Images:
    """Return drawn diagrams: lines, bars, points and maps of colour."""
    import matplotlib.pyplot as plt

    drawn = []
    for i in range(40):
        figure, ax = plt.subplots(figsize=(4, 4), dpi=60)
        values = rng.normal(size=(8, 30)).cumsum(1)
        kind = ("lines", "bars", "points", "map")[i % 4]
        if kind == "lines":
            ax.plot(values.T)
        elif kind == "bars":
            ax.bar(range(30), np.abs(values[0]))
        elif kind == "points":
            ax.scatter(values[0], values[1])
        else:
            ax.imshow(values, cmap="gray")
        ax.set_title("a figure")
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png")
        plt.close(figure)
        drawn.append(square(decode(buffer.getvalue()), size))
    return np.stack(drawn)


def pages(rng: np.random.Generator, size: int) -> Images:
    """Return pages of text, dark on white."""
    drawn = []
    for _ in range(40):
        page = np.full((700, 500), 255, np.uint8)
        for y in range(30, 690, int(rng.integers(16, 34))):
            words = " ".join("".join(chr(c) for c in rng.integers(97, 123, rng.integers(2, 10))) for _ in range(9))
            cv2.putText(page, words[:56], (20, y), cv2.FONT_HERSHEY_SIMPLEX, 0.45, 0, 1, cv2.LINE_AA)
        drawn.append(square(page, size))
    return np.stack(drawn)


def cloud(rng: np.random.Generator, size: int) -> Images:
    """Return blurred noise: soft shapes without a meaning."""
    blurred = cv2.GaussianBlur(rng.normal(size=(size, size)), (0, 0), rng.uniform(2, size / 4))
    return np.rint(255 * (blurred - blurred.min()) / np.ptp(blurred)).astype(np.uint8)


def enhanced(image: Images) -> Any:
    """Return the image with everything finer than a twentieth of its side made stronger."""
    smooth = cv2.GaussianBlur(image, (0, 0), len(image) / 20).astype(np.float64)
    return np.clip(image + 1.5 * (image - smooth), 0, 255)


if __name__ == "__main__":
    main()
