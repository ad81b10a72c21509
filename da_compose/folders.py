"""Which files of a folder are read: all that are visible, whatever their suffix."""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from unicodedata import normalize

from da_compose.pictures import is_picture, looks_like_picture

# What unpacking, thumbnails and bins leave beside pictures
LITTER = {"__macosx", "@eadir", "#recycle", "$recycle.bin", "lost+found", "thumbs.db",
          "desktop.ini"}  # fmt: skip


def list_pictures(path: Path) -> list[Path]:
    """All visible files below a folder, sorted; or the one file that `path` is.

    Whoever reads them names those that are no pictures: a suffix says little.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise FileNotFoundError(f"no file or folder at {path}; check the path")
    found = visible_files(path)
    if not found:
        raise ValueError(f"no pictures below {path}: it holds no files; check the path")
    return found


def visible_files(folder: Path) -> list[Path]:
    """All below a folder that is not a folder, sorted; hidden ones and `LITTER` are passed over.

    An empty folder with the name of a picture is among them, for whoever reads it to say so. Links
    to folders are followed, but no folder is read twice. Raises OSError where one cannot be listed.
    """

    def refuse(error: OSError) -> None:
        raise error

    found, read = [], set[Path]()
    for place, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        here = Path(place).resolve()
        if here in read:  # by another link
            folders.clear()
            continue
        read.add(here)
        if not (folders or files) and Path(place) != folder and looks_like_picture(Path(place)):
            found.append(Path(place))
        folders[:] = sorted(
            name
            for name in folders
            if is_visible(name)
            and not here.is_relative_to(Path(place, name).resolve())  # a link in a circle
        )
        found += [Path(place, name) for name in files if is_visible(name)]
    return sorted(found)


def visible_folders(folder: Path) -> list[Path]:
    """Folders in a folder, sorted; hidden ones and `LITTER` are passed over."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and is_visible(path.name))


def is_visible(name: str) -> bool:
    """Whether a file or folder of this name is for people."""
    return not name.startswith(".") and name.lower() not in LITTER


def one_spelling(name: str) -> str:
    """A name as composed Unicode: macOS spells accents apart (NFD), others do not (NFC)."""
    return normalize("NFC", name)


def nearly_alike(names: Iterable[str]) -> list[list[str]]:
    """Names that differ in case, spaces, hyphens and underscores alone, together."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(re.sub(r"[\s_-]", "", name).casefold(), []).append(name)
    return [group for word, group in groups.items() if word and len(group) > 1]


def any_picture(files: Iterable[Path]) -> bool:
    """Whether one of the files is a picture; told by suffixes first, as that is quick."""
    listed = [*files]
    return any(map(looks_like_picture, listed)) or any(map(is_picture, listed))
