"""Splits that can be trusted: no copy and no group on two sides, every class on each, few-shot that is few-shot.

Everything here works on labels, digests of contents and group ids; no image is read.
"""

from collections import defaultdict
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations
from pathlib import Path

import numpy as np

from tlutils.notes import DataError, listed


@dataclass
class Row:
    """One image while its task is put together: how it is called in reports, its label and what it contains."""

    name: str
    label: object
    digest: str
    path: Path | None = None
    group: object = None


def drop_copies(rows, log):
    """Positions to keep in each split, so that no content is on two sides: the test side wins, then validation.

    Copies inside one split stay; copies with different labels are reported.
    """
    kept, seen = {}, {}
    for side in ("test", "val", "train"):
        if side not in rows:
            continue
        dropped = [(row.name, seen[row.digest]) for row in rows[side] if row.digest in seen]
        kept[side] = [i for i, row in enumerate(rows[side]) if row.digest not in seen]
        if dropped:
            pairs = listed([f"{name} = {copy}" for name, copy in dropped], 5)
            log.both(f"dropped {len(dropped)} from {side}: exact copies of images on another side ({pairs})")
        copies = defaultdict(list)
        for i in kept[side]:
            copies[rows[side][i].digest].append(rows[side][i])
        several = [same for same in copies.values() if len(same) > 1]
        for same in several:
            if len({row.label for row in same}) > 1:
                names = listed([row.name for row in same], 5)
                log.both(f"one image has two labels in {side}: {names}; keep the copy that is right")
        if several:
            names = listed([" = ".join(row.name for row in same) for same in several], 5)
            log.note(f"{len(several)} images have exact copies inside {side}, which stay on one side: {names}")
        seen |= {digest: same[0].name for digest, same in copies.items()}
    return kept


def refuse_split_groups(rows):
    """Raise ``DataError`` if images of one group are on two sides."""
    for one, other in combinations(rows, 2):
        shared = {row.group for row in rows[one]} & {row.group for row in rows[other]} - {None}
        if shared:
            raise DataError(
                f"{len(shared)} of the groups are in {one}/ and in {other}/ ({listed(sorted(map(str, shared)), 5)}): "
                "move all images of a group to one side, or give one folder a class, without train/ and val/, to split"
            )


def require_every_class(labels, class_names, where):
    """Raise ``DataError`` if a class has lost all its images in the split ``where``."""
    present = set(labels)
    missing = [name for label, name in enumerate(class_names) if label not in present]
    if missing:
        raise DataError(
            f"no image is left in {where} for the class {listed(missing)}: add images that are on one side only"
        )


def hold_out(labels, digests, groups, fraction, seed, class_names):
    """Split positions into (kept, held out): stratified, copies and groups together, every class on both sides."""
    units = _units(digests, groups)
    # one image may lie in two classes by mistake; it counts for the first
    owners = labels[np.unique(units, return_index=True)[1]]
    for label, name in enumerate(class_names):
        if (np.sum(owners == label) if groups is None else len(set(units[labels == label]))) < 2:
            what = "distinct image" if groups is None else "group"
            raise DataError(
                f"the class {name!r} has one {what} only, which cannot be on both sides of a split: add more, or make "
                "train/ and val/ folders yourself"
            )
    split = _stratified if groups is None else _stratified_groups
    held = np.isin(units, split(labels, units, fraction, seed))
    return np.flatnonzero(~held), np.flatnonzero(held)


def draw_few(labels, digests, k, seed, class_names, where):
    """Positions of k distinct images of each class, drawn by seed, class after class."""
    drawn, rng = [], np.random.default_rng(seed)
    _, first = np.unique(_numbered(digests), return_index=True)  # a second copy of an image would be no second label
    for label, name in enumerate(class_names):
        candidates = first[labels[first] == label]
        if len(candidates) < k:
            raise DataError(
                f"labels_per_class={k}, but the class {name!r} has only {len(candidates)} different images on {where}: "
                f"ask for at most {len(candidates)}, or add images"
            )
        drawn.append(rng.permutation(candidates)[:k])
    return np.concatenate(drawn)


def close_validation(parts, what, log):
    """Few-shot: the validation side goes, in place of a missing test side if there is none."""
    held = parts.pop("val", None)
    if held is not None and "test" not in parts:
        parts["test"] = held
        log.note(f"there is no test split: {what} ({len(held)} images) are the test side, never trained or tuned on")
    elif held is not None:
        log.note(f"few-shot: {what} ({len(held)} images) are left unused")


def _units(digests, groups):
    """A number for each image, equal for images that must stay together: copies, one group, and chains of these."""
    content = _numbered(digests)
    if groups is None:
        return content
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    group = _numbered(groups)
    content += group.max() + 1
    size = content.max() + 1
    _, component = connected_components(coo_array((np.ones(len(group)), (group, content)), shape=(size, size)))
    return component[group]


def _numbered(values):
    """Numbers from 0 in order of first appearance, equal for equal values."""
    numbers = {}
    return np.array([numbers.setdefault(value, len(numbers)) for value in values])


def _stratified(labels, units, fraction, seed):
    """Units (distinct images) to hold out: each class in its proportion, but at least one image on either side."""
    from sklearn.model_selection import StratifiedShuffleSplit

    _, first = np.unique(units, return_index=True)
    labels = labels[first]
    classes = len(set(labels))
    size = min(max(round(fraction * len(labels)), classes), len(labels) - classes)
    splitter = StratifiedShuffleSplit(1, test_size=size, random_state=seed)
    kept, held = (list(part) for part in next(splitter.split(labels, labels)))
    for one, other in ((kept, held), (held, kept)):
        for label in set(labels[other]) - set(labels[one]):  # the share of a rare class may round to none
            moved = next(i for i in other if labels[i] == label)
            other.remove(moved)
            one.append(moved)
    return held


def _stratified_groups(labels, units, fraction, seed):
    """Units (groups) to hold out: about the fraction of images, classes balanced as far as whole groups allow."""
    from sklearn.model_selection import StratifiedGroupKFold

    most = max(2, min(10, *(len(set(units[labels == label])) for label in set(labels))))
    share = Fraction(fraction).limit_denominator(most)
    folds = share.denominator if 0 < share < 1 else most
    taken = min(max(round(fraction * folds), 1), folds - 1)
    for attempt in range(20):
        splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=(seed + 7919 * attempt) % 2**32)
        sides = [np.unique(units[held]) for _, held in splitter.split(labels, labels, units)]
        for start in range(folds):
            held = np.concatenate([sides[(start + i) % folds] for i in range(taken)])
            is_held = np.isin(units, held)
            if set(labels[is_held]) == set(labels[~is_held]):
                return held
    raise DataError(
        "the groups cannot be split so that every class is on both sides: add groups, or make train/ and val/ yourself"
    )
