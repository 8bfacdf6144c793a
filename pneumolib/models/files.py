"""Many files scored: side by side, answered in order, and one that cannot be read does not stop the others."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pneumolib import runtime
from pneumolib.errors import PneumolibError
from pneumolib.models.detector import Detector
from pneumolib.models.prediction import Prediction

if TYPE_CHECKING:
    from concurrent.futures import Future

    from pneumolib.models.heat_files import HeatFolder

MAX_WORKERS = 8  # each may hold a picture of 64 million pixels
PHANTOM_WARNING = "PHANTOM: this detector was trained on synthetic X-rays only"


@dataclass(frozen=True)
class Answer:
    """What became of one file.

    Attributes:
        path: the file.
        prediction: None where it could not be read.
        heat_map: the file that was written; None where none was wanted, the picture was refused, or something failed.
        problem: what failed: the file could not be read, or its heat map not be written.
    """

    path: Path
    prediction: Prediction | None = None
    heat_map: Path | None = None
    problem: str | None = None

    @property
    def outcome(self) -> str:
        """``scored``, ``refused`` or ``unreadable``."""
        if self.prediction is None:
            return "unreadable"
        return "scored" if self.prediction.input.ok else "refused"


def predict_files(
    detector: Detector,
    files: Sequence[Path],
    *,
    operating_point: str = "balanced",
    heat_folder: HeatFolder | None = None,
    heat_names: Sequence[Path] = (),
    workers: int | None = None,
) -> Generator[Answer, None, None]:
    """Return what becomes of each file, in order, as it is known.

    Files are scored side by side in threads, each as `Detector.predict` does alone. With several workers, load the
    detector with ``threads=1``: on two cores that takes 0.6 of the time of one file after the other by two threads
    each, and batches gain nothing more (``benchmarks/files.py``). Where the iterator is closed, as
    `contextlib.closing` does, no more files are begun.

    Args:
        detector: as `load_detector` gives it.
        files: the paths of pictures.
        operating_point: which of the detector's decides.
        heat_folder: gets a heat map of each picture that is not refused.
        heat_names: the path in it for each of `files`, as `names_of` gives them.
        workers: threads; None takes the cores, at most `MAX_WORKERS`.

    Raises:
        ConfigError: there is no such operating point.
        ArtifactError: heat maps are wanted, and the detector's weights are damaged.

    Examples:
        >>> for answer in predict_files(load_detector(), sorted(Path("x-rays").glob("*.png"))):     # doctest: +SKIP
        ...     print(answer.prediction or answer.problem)
    """
    # What is wrong with the call, not with a file, is told before the first of them.
    detector.predict([], operating_point=operating_point)
    if heat_folder is not None:
        detector.classifier()

    def one(index: int) -> Answer:
        path, prediction = files[index], None
        try:
            if heat_folder is None:
                return Answer(path, detector.predict(path, operating_point=operating_point))
            from pneumolib.models.explain import explain

            found = explain(detector, path, operating_point=operating_point)
            prediction = found.prediction
            if not prediction.input.ok:
                return Answer(path, prediction)
            return Answer(path, prediction, heat_folder.write(heat_names[index], path, found, detector))
        except PneumolibError as error:
            return Answer(path, prediction, problem=str(error))
        except OSError as error:
            return Answer(path, prediction, problem=f"{path}: {error.strerror or error}")

    return _in_order(one, len(files), min(workers or min(runtime.available_cores(), MAX_WORKERS), len(files)))


def _in_order(one: Callable[[int], Answer], count: int, workers: int) -> Generator[Answer, None, None]:
    if workers <= 1:
        yield from map(one, range(count))
        return
    from concurrent.futures import ThreadPoolExecutor

    begun: deque[Future[Answer]] = deque()
    pool = ThreadPoolExecutor(workers)
    try:
        for index in range(count):
            begun.append(pool.submit(one, index))
            # Far enough ahead that a slow file does not idle the others, and no further, however many there are.
            if len(begun) > 4 * workers:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
