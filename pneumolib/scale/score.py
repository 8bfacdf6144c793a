"""Score an archive: one row for each image, in a Parquet file or a folder of Parquet parts."""

from __future__ import annotations

import contextlib
import glob
import os
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pneumolib.errors import ConfigError, DataError, PneumolibError
from pneumolib.models.detector import Detector, load_detector
from pneumolib.scale.core import ScoringError
from pneumolib.scale.inputs import Input
from pneumolib.scale.local import run_local
from pneumolib.scale.manifest import LOCK, MANIFEST, MAX_SHARD, SUCCESS, Manifest, clear, has_parts, open_job
from pneumolib.scale.parts import TEMPORARY, arrow, finished_part, join_parts, read_about
from pneumolib.scale.progress import Progress
from pneumolib.scale.ray_engine import run_ray
from pneumolib.scale.tally import Tally

Engine = Callable[[Path, Sequence[int], int | None], Generator[dict[str, Any], None, None]]

ENGINES: dict[str, Engine] = {"local": run_local, "ray": run_ray}


@dataclass(frozen=True)
class Summary:
    """What `score` did: the whole job's counts, and what this call of it cost."""

    out: Path
    images: int
    pneumonia: int
    normal: int
    refused: int  # no chest X-ray of the kind that the detector knows; these rows have no decision
    errors: int  # could not be read; these rows have an error
    scored: int  # images scored by this call; the others were done before
    seconds: float  # of this call
    costs: Tally  # of this call: seconds of one core, by step
    detector: dict[str, Any]
    operating_point: str
    phantom: bool  # the detector, or the images, are synthetic
    left_out: dict[str, int]  # files of other kinds, by suffix

    def __str__(self) -> str:
        title = "PHANTOM: synthetic X-rays, no result at all\n" if self.phantom else ""
        lines = [
            f"{title}{self.images:,} images: {self.pneumonia:,} pneumonia, {self.normal:,} normal, "
            f"{self.refused:,} refused, {self.errors:,} not readable",
            f"detector: {self.detector['name']} {self.detector['version']}, operating point {self.operating_point}",
        ]
        if self.left_out:
            kinds = ", ".join(f"{n:,} {kind}" for kind, n in list(self.left_out.items())[:6])
            lines.append(f"left out: {sum(self.left_out.values()):,} files of other kinds ({kinds})")
        if self.scored:
            steps = ((name, getattr(self.costs, f"{name}_seconds")) for name in ("read", "decode", "network"))
            cost = ", ".join(f"{name} {seconds / self.scored * 1e3:.1f} ms" for name, seconds in steps)
            earlier = self.images - self.scored
            lines.append(
                f"time: {self.seconds:,.0f} s for {self.scored:,} images ({self.scored / self.seconds:,.0f} a second)"
                f"{f', {earlier:,} were done before' if earlier else ''}; an image and core: {cost}"
            )
        if self.costs.deaths:
            lines.append(f"workers that died and were replaced: {self.costs.deaths:,}; nothing was lost by it")
        return "\n".join([*lines, f"written: {self.out}"])


def score(
    input: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    detector: Detector | str | os.PathLike[str] | None = None,
    engine: str = "local",
    workers: int | None = None,
    operating_point: str = "balanced",
    shard_size: int | None = None,
    resume: bool = True,
    progress: bool = True,
) -> Summary:
    """Score every image of an archive, one row each, in the archive's order; a file that cannot be read is a row, too.

    A call that is interrupted or killed keeps what it finished, and the same call goes on there. The rows are the same
    whatever the engine, the number of workers and the interruptions.

    Args:
        input: a folder, a zip, a list of files (``.txt`` with a path a line, ``.csv`` with a column ``path``), or an
            image.
        out: a name that ends in ``.parquet``: the file to write, when all is done (until then, parts stand in the
            folder ``OUT.parts``); any other name: a folder, new or empty, whose parts are the result.
        detector: a `Detector`, or the folder of one; None takes the one that ships with the package.
        engine: ``local`` (processes on this machine) or ``ray`` (Ray Data, on one machine or many).
        workers: processes or actors; None takes all cores.
        operating_point: by which of the detector's thresholds is decided.
        shard_size: images that are written, and if need be scored again, together; None chooses.
        resume: go on with what an earlier call has left; False starts anew, over what stands there.
        progress: show a bar on a terminal, a line now and then elsewhere.

    Raises:
        DataNotFoundError: there is nothing at `input`, or no detector.
        DataError: there are no images, or what stands at `out` is of another job or make, in use, or not to be
            written.
        ConfigError: no such engine or operating point, or a number is out of range.
        ArtifactError: the detector is damaged, or a phantom's that was not loaded on purpose.
        MissingExtraError: a package is missing; the message names the extra.
        ScoringError: the job cannot go on; what was finished is kept.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from pneumolib import make_phantom
        >>> archive = make_phantom(tempfile.mkdtemp(), n_train=8, n_val=2, n_test=8, size=(96, 128))
        >>> summary = score(archive, Path(tempfile.mkdtemp()) / "scores.parquet", workers=1, progress=False)
        >>> summary.images, summary.errors, summary.phantom
        (18, 0, True)
    """
    if engine not in ENGINES:
        raise ConfigError(f"There is no such engine. Allowed: {', '.join(ENGINES)}. Received: {engine!r}")
    if workers is not None and workers < 1:
        raise ConfigError(f"workers must be None, or 1 or more. Received: {workers!r}")
    if shard_size is not None and not 1 <= shard_size <= MAX_SHARD:
        raise ConfigError(f"shard_size must be None, or 1 to {MAX_SHARD:,}. Received: {shard_size!r}")
    if not isinstance(detector, Detector):
        detector = load_detector(detector, threads=1)
    if operating_point not in detector.operating_points:
        raise ConfigError(
            f"The detector has no such operating point. Allowed: {', '.join(detector.operating_points)}. "
            f"Received: {operating_point!r}"
        )
    arrow()  # what is missing is said before anything is listed
    began, target = time.perf_counter(), Path(out)
    one_file = target.suffix.lower() == ".parquet"
    folder = Path(os.path.abspath(f"{target}.parts" if one_file else target))
    source = Input(input, skip=folder)
    with _write_errors_named(target), _alone(folder):
        if not resume:
            clear(folder)
        stands = read_about(target) if resume and one_file and target.exists() else None
        manifest = open_job(folder, source, detector, operating_point=operating_point, shard_size=shard_size)
        if stands is None:
            tally, costs = _run(ENGINES[engine], folder, manifest, workers, progress)
            _finish(folder, target if one_file else None, manifest, tally)
        elif stands.get("job") == manifest.job:
            tally, costs = Tally.from_dict(stands["counts"]), Tally()
            clear(folder)
        else:
            raise DataError(
                f"Other scores stand there: of other files, or by another detector or operating point. Name another "
                f"output, or start anew with --anew (resume=False). Received: {target}"
            )
    return Summary(
        out=target,
        **tally.counts(),
        scored=costs.images,
        seconds=time.perf_counter() - began,
        costs=costs,
        detector=manifest.detector,
        operating_point=operating_point,
        phantom=manifest.phantom or manifest.detector["phantom"],
        left_out=manifest.left_out,
    )


def _run(engine: Engine, folder: Path, manifest: Manifest, workers: int | None, progress: bool) -> tuple[Tally, Tally]:
    """Score the shards that have no part yet; return the tally of the whole job and that of this call."""
    before, todo, costs = Tally(), [], Tally()
    for shard in range(manifest.shards):
        tally = finished_part(folder, shard, manifest.size(shard), manifest.job)
        if tally is None:
            todo.append(shard)
        else:
            before += tally
    bar = Progress(manifest.images, before.images, progress)
    try:
        if todo:
            with contextlib.closing(engine(folder, todo, workers)) as events:
                for event in events:
                    bar.add(event.get("images", 0))
                    if "done" in event:
                        costs += Tally.from_dict(event["tally"])
    finally:
        bar.close()
    lost = [s for s in todo if finished_part(folder, s, manifest.size(s), manifest.job) is None]
    total = before + costs
    if lost or total.images != manifest.images:
        raise ScoringError(
            f"{len(lost)} parts are not whole, {total.images:,} of {manifest.images:,} images were counted. Has "
            f"something else written to {folder}? Call again: what is whole is kept."
        )
    return total, costs


def _finish(folder: Path, target: Path | None, manifest: Manifest, tally: Tally) -> None:
    """Join the parts into the file `target` and delete them, or mark the folder of parts as finished."""
    if target is None:
        clear(folder, keep_parts=True)
        (folder / SUCCESS).touch()
        return
    for left_behind in target.parent.glob(f".{glob.escape(target.name)}.*{TEMPORARY}"):
        left_behind.unlink(missing_ok=True)
    about = {
        "job": manifest.job,
        "counts": tally.counts(),
        "detector": manifest.detector,
        "operating_point": manifest.operating_point,
        "phantom": manifest.phantom or manifest.detector["phantom"],
        "pneumolib": manifest.pneumolib,
    }
    join_parts(folder, manifest.shards, target, about)
    clear(folder)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Make a job's folder and hold it for as long as the block runs; leave none behind in which nothing was finished.

    Raises:
        DataError: another process holds it, or it is the folder of something else.
    """
    folder.mkdir(parents=True, exist_ok=True)
    strange = [name for name in sorted(os.listdir(folder)) if not name.startswith(("_", "."))]
    if strange and not (folder / MANIFEST).is_file():
        raise DataError(
            f"Scores are written into a new folder, or one that pneumolib score has begun. Received: {folder}, with "
            f"{strange[0]}"
        )
    try:
        with _locked(folder / LOCK):
            yield
    finally:
        if not has_parts(folder):
            clear(folder)
            (folder / LOCK).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # something else stands in it
                folder.rmdir()


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    try:
        import fcntl
    except ImportError:  # Windows: two jobs at once write the same parts, which costs time and harms nothing
        yield
        return
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise DataError(
                f"Another process scores into {path.parent} at this moment. Wait for it, or name another output."
            ) from error
        yield


@contextlib.contextmanager
def _write_errors_named(target: Path) -> Iterator[None]:
    try:
        if target.suffix.lower() == ".parquet" and target.is_dir():
            raise DataError(f"A folder stands where the file of scores should be written. Received: {target}")
        yield
    except PneumolibError:
        raise
    except OSError as error:
        raise DataError(f"The scores cannot be written to {target}: {error.strerror or error}.") from error
