"""Is a copy of the data set whole, readable, and free of files that occur twice?"""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pneumolib import runtime
from pneumolib.data.images import decode
from pneumolib.errors import PneumolibError

if TYPE_CHECKING:
    from pneumolib.data.dataset import Dataset, Record


@dataclass(frozen=True)
class Verification:
    """What a look at every file found; it judges, and refuses nothing."""

    counts: dict[str, dict[str, int]]
    missing: dict[str, int]  # "train/NORMAL": how many fewer than the card says
    extra: dict[str, int]  # how many more
    duplicates: tuple[tuple[str, ...], ...]  # groups of files with the same bytes
    across_splits: tuple[tuple[str, ...], ...]  # those of them that stand in several parts: leaks
    conflicting: tuple[tuple[str, ...], ...]  # those of them with both labels
    unreadable: tuple[tuple[str, str], ...]  # (name, reason); a look without decoding finds few of them
    decoded: bool  # whether every file was decoded
    phantom: bool

    @property
    def complete(self) -> bool:
        """Whether this is the data set of the card: its counts, no phantom, and no file that could not be read."""
        return not (self.phantom or self.missing or self.extra or self.unreadable)

    def __str__(self) -> str:
        rows = []
        for split, counts in self.counts.items():
            rows.append(f"{split:<6} {counts['NORMAL']:>6,} normal {counts['PNEUMONIA']:>6,} pneumonia")
        if self.phantom:
            rows.append("PHANTOM: synthetic X-rays, which no card counts")
        elif not (self.missing or self.extra):
            rows.append("counts match the data card")
        rows += [f"missing from {where}: {n:,}" for where, n in self.missing.items()]
        rows += [f"more than the card says in {where}: {n:,}" for where, n in self.extra.items()]
        copies = sum(len(group) - 1 for group in self.duplicates)
        rows.append(f"exact duplicates: {len(self.duplicates)} groups, {copies} files too many")
        rows += [f"  across parts, a leak: {', '.join(group)}" for group in self.across_splits]
        rows += [f"  with both labels: {', '.join(group)}" for group in self.conflicting]
        if not self.decoded:
            rows.append("pixels not decoded (verify(deep=True) does)")
        if self.decoded or self.unreadable:
            rows.append(f"unreadable: {len(self.unreadable)}")
        rows += [f"  {name}: {reason}" for name, reason in self.unreadable]
        return "\n".join(rows)


def verify(dataset: Dataset, *, deep: bool = False) -> Verification:
    """Return what is missing, extra, duplicated and, where `deep`, unreadable in a copy of the data set.

    Args:
        dataset: any copy, a partial one too.
        deep: decode every file (a minute or two for the full-size set).
    """
    counts = dataset.counts()
    missing, extra = {}, {}
    if not dataset.phantom:
        for split, expected in dataset.card.counts.items():
            for folder, number in expected.items():
                difference = counts[split][folder] - number
                if difference < 0:
                    missing[f"{split}/{folder}"] = -difference
                elif difference > 0:
                    extra[f"{split}/{folder}"] = difference
    records = [record for part in dataset.parts().values() for record in part]
    groups, broken = _duplicates(dataset, records)
    unreadable = _unreadable(dataset, records) if deep else broken
    return Verification(
        counts=counts,
        missing=missing,
        extra=extra,
        duplicates=tuple(tuple(r.name for r in group) for group in groups),
        across_splits=tuple(tuple(r.name for r in group) for group in groups if len({r.split for r in group}) > 1),
        conflicting=tuple(tuple(r.name for r in group) for group in groups if len({r.label for r in group}) > 1),
        unreadable=tuple(unreadable),
        decoded=deep,
        phantom=dataset.phantom,
    )


def _duplicates(dataset: Dataset, records: list[Record]) -> tuple[list[list[Record]], list[tuple[str, str]]]:
    """Group files with the same bytes, and name those that could not be read; only files of the same size are read."""
    by_size: dict[int, list[Record]] = {}
    for record in records:
        by_size.setdefault(record.n_bytes, []).append(record)
    groups: dict[bytes, list[Record]] = {}
    broken: list[tuple[str, str]] = []
    for record in (record for same in by_size.values() if len(same) > 1 for record in same):
        try:
            content = dataset.source.read(record.name)
        except PneumolibError as error:
            broken.append((record.name, str(error)))
        else:
            groups.setdefault(hashlib.sha256(content).digest(), []).append(record)
    return [group for group in groups.values() if len(group) > 1], broken


def _unreadable(dataset: Dataset, records: list[Record]) -> list[tuple[str, str]]:
    def reason(record: Record) -> str | None:
        try:
            decode(dataset.source.read(record.name))
        except PneumolibError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(runtime.available_cores()) as pool:
        found = pool.map(reason, records)
        return [(r.name, why) for r, why in zip(records, found, strict=True) if why is not None]
