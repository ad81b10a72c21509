"""DomainNet, cleaned version (Peng et al. 2019): which files are published, and fetching them.

Six domains, 345 classes, 586,575 pictures: a zip of `<domain>/<class>/*.jpg` and two lists a
domain. All that is known of the publisher's files is in `FILES`; a mirror that keeps their names
serves as well. The publisher allows research that is not commercial.
"""

import shutil
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from da_compose.progress import phase
from da_compose.storage.files import naming
from data_prep.fetch import CHUNK, check_space, fetch

MB = 10**6
DOMAINS = ("clipart", "infograph", "painting", "quickdraw", "real", "sketch")
PUBLISHER = "http://csr.bu.edu/ftp/visda/2019/multi-source"


class PublishedFile(NamedTuple):
    """A file's path below the publisher's address, its bytes and its MD5, where known."""

    path: str
    size: int | None
    md5: str | None

    @property
    def name(self) -> str:
        """The file's own name, `<domain>.zip`, `<domain>_train.txt` or `<domain>_test.txt`."""
        return PurePosixPath(self.path).name


# As they were in 2021, by a public DataLad record of these addresses (datasets-mila/
# datasets--domainnet); other public projects name the same checksums of the zips
_FILES = """
groundtruth/clipart.zip            1270909081 cd0d8f2d77a4e181449b78ed62bccf1e
infograph.zip                      4338659804 720380b86f9e6ab4805bb38b6bd135f8
groundtruth/painting.zip           3679366174 1ae32cdb4f98fe7ab5eb0a351768abfd
quickdraw.zip                       459920701 bdc1b6f09f277da1a263389efe0c7a66
real.zip                           6062039589 dcc47055e8935767784b7162e7c7cca6
sketch.zip                         2633992926 658d8009644040ff7ce30bb2e820850f
domainnet/txt/clipart_train.txt       1443819 b4349693a7f9c05c53955725c47ed6cb
domainnet/txt/clipart_test.txt         628917 f5ddbcfd657a3acf9d0f7da10db22565
domainnet/txt/infograph_train.txt     1683098 379b50054f4ac2018dca4f89421b92d9
domainnet/txt/infograph_test.txt       728028 779626b50869edffe8ea6941c3755c71
domainnet/txt/painting_train.txt      2241901 7db0e7ca73ad9982f6e1f7f3ef372c0a
domainnet/txt/painting_test.txt        971888 232b35dc53f26d414686ae579e38d9b5
domainnet/txt/quickdraw_train.txt     5164600 b732ced3939ac8efdd8c0a889dca56cc
domainnet/txt/quickdraw_test.txt      2213400 c1a828fdfe216fb109f1c0083a252c6f
domainnet/txt/real_train.txt          4440944 8ebf02c2075fadd564705f0dc7cd6291
domainnet/txt/real_test.txt           1911327 6098816791c3ebed543c71ffa11b9054
domainnet/txt/sketch_train.txt        1960222 1233bd18aa9a8a200bf4cecf1c34ef3e
domainnet/txt/sketch_test.txt          850581 d8a222e4672cfd585298aa14d02ea441
"""
FILES = tuple(
    PublishedFile(path, int(size), md5)
    for path, size, md5 in (line.split() for line in _FILES.strip().splitlines())
)

# The 126 classes that MME (Saito et al. 2019) kept in its lists of clipart, painting, real, sketch
_CLASSES_126 = """
aircraft_carrier alarm_clock ant anvil asparagus axe banana basket bathtub bear bee bird
blackberry blueberry bottlecap broccoli bus butterfly cactus cake calculator camel camera candle
cannon canoe carrot castle cat ceiling_fan cello cell_phone chair chandelier coffee_cup compass
computer cow crab crocodile cruise_ship dog dolphin dragon drums duck dumbbell elephant
eyeglasses feather fence fish flamingo flower foot fork frog giraffe goatee grapes guitar hammer
helicopter helmet horse kangaroo lantern laptop leaf lion lipstick lobster microphone monkey
mosquito mouse mug mushroom onion panda peanut pear peas pencil penguin pig pillow pineapple
potato power_outlet purse rabbit raccoon rhinoceros rifle saxophone screwdriver sea_turtle
see_saw sheep shoe skateboard snake speedboat spider squirrel strawberry streetlight string_bean
submarine swan table teapot teddy-bear television The_Eiffel_Tower The_Great_Wall_of_China tiger
toe train truck umbrella vase watermelon whale zebra
"""
CLASSES_126 = tuple(_CLASSES_126.split())


def describe(folder: Path, domains: Sequence[str] = DOMAINS, *, base_url: str = PUBLISHER) -> str:
    """What `fetch_domainnet` would fetch, for a dry run: files, bytes, where to, room on disk."""
    files = [file for domain in _checked(domains) for file in _missing(folder, domain)]
    sizes = [file.size or 0 for file in files]
    existing = next(parent for parent in (folder, *folder.parents) if parent.is_dir())
    return "\n".join(
        [
            *(f"{file.size or 0:14,} bytes  {base_url}/{file.path}" for file in files),
            f"{sum(sizes):14,} bytes in {len(files)} files ({sum(sizes) / 1e9:.1f} GB), sizes as "
            f"of 2021, to {folder}",
            f"With the largest zip and what is in it side by side, about "
            f"{(sum(sizes) + max(sizes, default=0)) / 1e9:.1f} GB are needed; "
            f"{shutil.disk_usage(existing).free / 1e9:.1f} GB are free",
        ]
    )


def fetch_domainnet(
    folder: Path,
    domains: Sequence[str] = DOMAINS,
    *,
    base_url: str = PUBLISHER,
    checksums: Path | None = None,
    keep_zips: bool = False,
) -> None:
    """Fetch and unpack domains into `<folder>/<domain>/`, their lists beside; one at a time.

    What is there already is left alone, and an interrupted call goes on where it stopped.
    base_url: the publisher's address or a mirror's. checksums: a file in md5sum's format, for
    files that were published anew since `FILES` was written. `FetchError` where a file cannot be
    had, `ValueError` where it is not what it should be.
    """
    known = _read_checksums(checksums) if checksums else {}
    for domain in _checked(domains):
        for file in sorted(_missing(folder, domain), key=lambda file: file.name, reverse=True):
            if file.name in known:
                file = file._replace(size=None, md5=known[file.name])
            total = None if file.size is None else file.size // MB
            with phase(f"fetching {file.name}, MB", total) as fetching:
                fetch(
                    f"{base_url.rstrip('/')}/{file.path}",
                    folder / file.name,
                    size=file.size,
                    md5=file.md5,
                    report=lambda held, _, to=fetching.to: to(held // MB),
                )
        archive = folder / f"{domain}.zip"
        if not (folder / domain).exists():
            unpack(archive, folder / domain)
        shutil.rmtree(_unfinished(folder / domain), ignore_errors=True)  # of a killed call
        if not keep_zips:
            archive.unlink(missing_ok=True)


def unpack(archive: Path, target: Path) -> None:
    """Unpack the folder `target.name` of a zip to `target`, which appears when it is complete.

    Every file is compared with its CRC in the zip; after an interruption those that came whole
    are not written again. `ValueError` where the zip is damaged, lacks the folder or would write
    elsewhere.
    """
    unfinished = _unfinished(target)
    try:
        with zipfile.ZipFile(archive) as content:
            entries = [entry for entry in content.infolist() if not entry.is_dir()]
            for entry in entries:
                path = PurePosixPath(entry.filename)
                if path.is_absolute() or ".." in path.parts:
                    raise ValueError(f"it would write to {entry.filename}, outside its folder")
            entries = [entry for entry in entries if entry.filename.startswith(f"{target.name}/")]
            if not entries:
                raise ValueError(f"it holds no files in {target.name}/")
            missing = [entry for entry in entries if not _is_whole(unfinished, entry)]
            check_space(target.parent, sum(entry.file_size for entry in missing))
            with phase(f"unpacking {archive.name}", len(missing)) as unpacking:
                for entry in missing:
                    path = unfinished / entry.filename
                    path.parent.mkdir(parents=True, exist_ok=True)
                    with naming(path), content.open(entry) as read, path.open("wb") as written:
                        shutil.copyfileobj(read, written)  # compares with the CRC
                    unpacking.advance()
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"{archive} cannot be unpacked: {error}; delete it and fetch it again"
        ) from error
    (unfinished / target.name).replace(target)
    shutil.rmtree(unfinished)


def _unfinished(target: Path) -> Path:
    return target.with_name(f".{target.name}-unfinished")


def _checked(domains: Sequence[str]) -> Sequence[str]:
    if unknown := [domain for domain in domains if domain not in DOMAINS]:
        raise ValueError(
            f"expected domains of DomainNet, {', '.join(DOMAINS)}; got {', '.join(unknown)}"
        )
    return domains


def _missing(folder: Path, domain: str) -> list[PublishedFile]:
    """Published files of a domain that are neither there nor unpacked."""
    zip_name = f"{domain}.zip"
    unpacked = {zip_name} if (folder / domain).exists() else set()
    names = {zip_name, f"{domain}_train.txt", f"{domain}_test.txt"} - unpacked
    return [file for file in FILES if file.name in names and not (folder / file.name).exists()]


def _is_whole(folder: Path, entry: zipfile.ZipInfo) -> bool:
    path = folder / entry.filename
    if not path.is_file() or path.stat().st_size != entry.file_size:
        return False
    found = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            found = zlib.crc32(chunk, found)
    return found == entry.CRC


def _read_checksums(file: Path) -> dict[str, str]:
    """File name -> MD5, from lines as md5sum writes them."""
    checksums = {}
    for number, line in enumerate(file.read_text().splitlines(), 1):
        md5, _, path = line.strip().partition(" ")
        if len(md5) != 32 or not path.strip():
            raise ValueError(
                f"{file}, line {number}: expected an MD5 and a path as md5sum writes them, "
                f"got {line!r}"
            )
        checksums[PurePosixPath(path.strip().lstrip("*")).name] = md5
    return checksums
