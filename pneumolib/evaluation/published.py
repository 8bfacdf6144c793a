"""What others reached on the 624 official test images, as far as it can be compared; facts from the sources named.

Listed are results whose selection, as far as their sources show, did not use the test images. Re-shuffled splits are
left out: there the JPEG quality of the files alone tells the classes apart (`benchmarks/shortcuts.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

N_TEST = 624
_MEDMNIST = "MedMNIST v2, doi 10.1038/s41597-022-01721-8"
_DOERRICH = "MedMNIST+, Doerrich et al. 2025, mean of 3 seeds"


@dataclass(frozen=True)
class PublishedResult:
    """One result; a number that its source does not give is None."""

    model: str
    pretraining: str
    auc: float | None
    accuracy: float
    sensitivity: float | None
    specificity: float | None
    source: str


PUBLISHED: tuple[PublishedResult, ...] = (
    PublishedResult("separable CNN, 180 pixels", "none", None, 0.814, 0.977, None, "keras.io, pneumonia on TPU"),
    PublishedResult("ResNet-18, 28 pixels", "none", 0.944, 0.854, None, None, _MEDMNIST),
    PublishedResult("ResNet-50, 224 pixels", "none", 0.962, 0.884, None, None, _MEDMNIST),
    PublishedResult("AutoML Vision, 28 pixels", "not stated", 0.991, 0.946, None, None, _MEDMNIST),
    PublishedResult("ResNet-18, 224 pixels", "ImageNet", 0.980, 0.911, None, None, _DOERRICH),
    PublishedResult("DINO ViT-B/16, linear probe", "ImageNet", 0.989, 0.916, None, None, _DOERRICH),
    PublishedResult(
        "ConvNeXt-V2-T, 3 classes",
        "ImageNet-22k",
        None,
        599 / N_TEST,
        0.997,
        0.897,
        "github.com/kiselyovd/chest-xray-classifier, 1 run",
    ),
)

# Measured by benchmarks/shortcuts.py on the original files: what a detector has to beat before it may speak of lungs.
SIZE_BASELINE = PublishedResult(
    "width and height of the file", "none", 0.9085, 502 / N_TEST, 0.9744, 0.5214, "pneumolib, benchmarks/shortcuts.py"
)
