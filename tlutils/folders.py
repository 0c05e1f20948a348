"""Folders of images: which folder is which split and class, and which files in it can be used."""

import os
import unicodedata
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from tlutils.images import EXTENSIONS, TRAITS, check_files, is_image_name
from tlutils.notes import DataError, listed
from tlutils.splits import Row

_SIDES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


def read_folder(folder, channels, groups, leave_out, log):
    """Find the images of a folder, with their classes and splits, and check every file.

    Args:
        folder: ``Path`` that holds one sub-folder a class, or ``train/`` and others that do.
        channels: What the images will be decoded to; only with 3 are gray ones converted, and reported.
        groups: As in ``data.load``, or ``None``.
        leave_out: Files to leave out though they are sound, as paths relative to ``folder``, with ``/``.
        log: Is told what is ignored, skipped or will be converted.

    Returns:
        tuple: The class names; the folder of each split; the rows of each split. Both dicts have ``"train"`` and may
        have ``"val"`` and ``"test"``.

    Raises:
        DataError: The folder is not laid out as a data set, or a class has no file that can be used.
    """
    if not folder.exists():
        start = "" if folder.is_absolute() else f", which is looked for in {Path.cwd()}"
        raise DataError(f"there is no folder {folder}: check the path{start}")
    if not folder.is_dir():
        raise DataError(f"{folder} is a file, not a folder: if it is an archive, unpack it and give the folder")
    roots = _roots(folder, log)
    found = {side: _class_files(root) for side, root in roots.items()}
    class_names = _common_classes(folder, roots, found)
    rows = {
        side: _usable(folder, roots[side], classes, class_names, channels, leave_out, log)
        for side, classes in found.items()
    }
    _assign_groups(folder, rows, groups)
    return class_names, roots, rows


def layout(folder, log):
    """{side: {class name: its image files}} of a folder, as it lies on disk: nothing is checked, a class may be empty.

    Raises:
        DataError: There is no such folder, or it is not laid out as a data set.
    """
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}: check the path")
    return {side: _class_files(root) for side, root in _roots(folder, log).items()}


def _roots(folder, log):
    """The folder of each split, {"train": path, …}; only "train" where the classes lie directly in ``folder``."""
    children = _sub_folders(folder)
    if not children:
        if any(is_image_name(entry) for entry in _entries(folder)):
            raise DataError(
                f"{folder} holds images but no sub-folders: put the images of each class in a sub-folder named after it"
            )
        raise DataError(f"{folder} is empty: it needs one sub-folder of images a class, or train/ and val/ with them")
    sides = defaultdict(list)
    for child in children:
        sides[_SIDES.get(child.name.lower())].append(child)
    others = sides.pop(None, [])
    if "train" not in sides:
        if sides:
            names = ", ".join(f"{path.name}/" for paths in sides.values() for path in paths)
            raise DataError(
                f"{folder} holds {names} but no train/: put the folders of the training classes in train/, or rename "
                f"{names} if it is a class"
            )
        return {"train": folder}
    # "train" may also be a class, beside "bus" and "car": a split holds folders, a class holds images
    if not _sub_folders(sides["train"][0]):
        if others:
            return {"train": folder}
        raise DataError(f"{sides['train'][0]} holds no sub-folders: put the images of each class in one of their own")
    for side, paths in sides.items():
        if len(paths) > 1:
            names = " and ".join(f"{path.name}/" for path in paths)
            raise DataError(f"{folder} holds {names}, which both mean the {side} split: keep one of them")
    roots = {side: sides[side][0] for side in ("train", "val", "test") if side in sides}
    for side in ("val", "test"):
        if side in roots and not _sub_folders(roots[side]):
            path = roots.pop(side)
            log.both(f"ignored {path.name}/ of {folder}: it has no sub-folder a class, so its images have no labels")
    if others:
        names = ", ".join(f"{path.name}/" for path in others)
        log.both(f"ignored {names} in {folder}: beside train/, only val/ and test/ are read")
    return roots


def _entries(folder):
    try:
        return sorted((entry for entry in folder.iterdir() if not entry.name.startswith(".")), key=lambda e: e.name)
    except OSError as error:
        raise DataError(
            f"cannot read the folder {folder} ({error.strerror or error}): check its permissions"
        ) from error


def _sub_folders(folder):
    return [entry for entry in _entries(folder) if entry.is_dir() and entry.name != "__MACOSX"]


def _class_files(root):
    """{class name: its image files, sorted}, for every sub-folder of ``root``; hidden and other files are left out."""
    classes = {}
    for folder in _sub_folders(root):
        name = unicodedata.normalize("NFC", folder.name)  # macOS writes é as two characters, Linux as one
        files = []

        def fail(error):
            raise DataError(f"cannot read the folder {error.filename} ({error.strerror}): check its permissions")

        for parent, folders, names in os.walk(folder, onerror=fail):
            folders[:] = sorted(f for f in folders if not f.startswith("."))
            files += [Path(parent, n) for n in sorted(names) if not n.startswith(".") and is_image_name(Path(n))]
        classes[name] = classes.get(name, []) + files
    return classes


def _common_classes(folder, roots, found):
    class_names = tuple(sorted(found["train"]))
    if len(class_names) < 2:
        inner = _sub_folders(_sub_folders(roots["train"])[0])
        hint = (
            f" Its folder {class_names[0]}/ has sub-folders: did you mean {folder / class_names[0]}?" if inner else ""
        )
        raise DataError(
            f"{roots['train']} has one class only ({class_names[0]}): to learn to tell classes apart, it needs a "
            f"second sub-folder of images.{hint}"
        )
    for side, classes in found.items():
        missing, extra = sorted(set(class_names) - set(classes)), sorted(set(classes) - set(class_names))
        if missing or extra:
            differences = [f"only in train/: {listed(missing)}"] * bool(missing)
            differences += [f"only in {roots[side].name}/: {listed(extra)}"] * bool(extra)
            raise DataError(
                f"the classes of {roots['train']} and {roots[side]} differ ({'; '.join(differences)}): "
                "give both the same sub-folders, with the same spelling"
            )
    for side, classes in found.items():
        for class_name in class_names:
            if not classes[class_name]:
                raise DataError(
                    f"the class {class_name!r} has no image in {roots[side] / class_name}: add images "
                    f"({', '.join(sorted(EXTENSIONS)[:4])} …) or remove the folder"
                )
    return class_names


def _usable(folder, root, classes, class_names, channels, leave_out, log):
    """Rows for the readable images below ``root``; what is skipped or will be converted goes to ``log``."""
    files = [(label, path) for label, name in enumerate(class_names) for path in classes[name]]
    checks = check_files([path for _, path in files])
    rows, skipped, traits = [], [], defaultdict(list)
    for (label, path), check in zip(files, checks):
        name = path.relative_to(folder).as_posix()
        if name in leave_out:
            log.note(f"left out {name}: known to show nothing of its class")
        elif check.problem:
            skipped.append(f"{name}: {check.problem}")
            log.note(f"skipped {skipped[-1]}")
        else:
            rows.append(Row(name, label, check.digest, path))
            for trait in check.traits:
                traits[trait].append(name)
    if skipped:
        log.warning(f"skipped {len(skipped)} of {len(files)} image files in {root}: {listed(skipped, 5, '; ')}")
    present = {row.label for row in rows}
    for label, class_name in enumerate(class_names):
        if label not in present:
            problems = [check.problem for (of, _), check in zip(files, checks) if of == label and check.problem]
            first = next(iter(problems), "it shows nothing of its class")
            raise DataError(
                f"no file of the class {class_name!r} can be used; the first, {classes[class_name][0]}: {first}"
            )
    for trait, names in sorted(traits.items()):
        if trait == "gray" and channels == 1:
            continue
        text = TRAITS[trait].format(n=len(names), images="image" if len(names) == 1 else "images")
        (log.both if trait == "tiny" else log.note)(f"{text}: {listed(names, 10)}")
    return rows


def _assign_groups(folder, rows, groups):
    if groups is None:
        return
    if not callable(groups) and not isinstance(groups, Mapping):
        raise DataError(
            f"groups must be a function or a dict, not {type(groups).__name__}; see load for what they take"
        )
    for part in rows.values():
        for row in part:
            row.group = groups(row.path) if callable(groups) else groups.get(row.name)
            if row.group is None:
                where = "the function gave None" if callable(groups) else f"the dict has no {row.name!r}"
                raise DataError(
                    f"groups gives no group for {row.path}: {where}. Every image needs one; keys of a dict are paths "
                    f"relative to {folder}, with /"
                )
