"""Where prepared data and downloads are kept.

The first of these that there is: the folder that a user names, by `--cache` or in
`DA_COMPOSE_CACHE`; `data/` of the checkout that the package lies in; the platform's folder of
caches, such as `~/.cache/da-compose`; a folder of this user in the temporary directory.
"""

import os
import tempfile
import warnings
from functools import cache
from pathlib import Path

from platformdirs import user_cache_path

CACHE_VARIABLE = "DA_COMPOSE_CACHE"
PACKAGE = Path(__file__).resolve().parent


def checkout() -> Path | None:
    """The checkout that this package lies in; None where it is installed."""
    return PACKAGE.parent if (PACKAGE.parent / "pyproject.toml").is_file() else None


def project_data() -> Path:
    """`data/` of the checkout; of the working directory when installed. Data is searched there."""
    return (checkout() or Path.cwd()) / "data"


def cache_folder() -> Path:
    """The folder of prepared data and downloads, which may not exist yet.

    Raises OSError where the one that the user names cannot be made, or is a file.
    """
    if named := os.environ.get(CACHE_VARIABLE):
        folder = Path(named).expanduser().absolute()
        if not (folder.is_dir() or can_be_written(folder)):
            raise OSError(
                f"expected a folder for caches, {folder} is none and cannot be made one; name "
                f"another by --cache or {CACHE_VARIABLE}"
            )
        return folder
    usual = user_cache_path("da-compose", appauthor=False)
    own = [] if (root := checkout()) is None else [root / "data"]
    for folder in (*own, usual):
        if can_be_written(folder):
            return folder
    return _temporary(usual)


def can_be_written(folder: Path) -> bool:
    """Whether a folder can be written to, or made and then written to."""
    place = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    return place.is_dir() and os.access(place, os.W_OK)


@cache
def _temporary(usual: Path) -> Path:
    """This user's folder in the temporary directory; a warning says so once."""
    folder = Path(tempfile.gettempdir()) / f"da-compose-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise PermissionError(
            f"{folder} belongs to another user; name a folder by --cache or {CACHE_VARIABLE}"
        )
    warnings.warn(
        f"{usual} cannot be written to: prepared data goes to {folder}, which the system may "
        f"empty; name another folder by --cache or {CACHE_VARIABLE}",
        stacklevel=3,
    )
    return folder
