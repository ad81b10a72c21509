"""Fetch one file over HTTP, however often the connection breaks.

Bytes come into `<file>.part`, with what the server says of the file's version beside it, in
`<file>.part.json`; the file gets its name when it is whole and checked.
"""

import contextlib
import errno
import hashlib
import http.client
import json
import os
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import BinaryIO, NamedTuple

from da_compose.storage.locks import lock

Report = Callable[[int, int | None], None]  # bytes here, and in all where the server says

CHUNK = 1 << 20  # bytes
PAUSE = 1.0  # seconds before another attempt, doubled as long as nothing comes


class FetchError(OSError):
    """A file that cannot be had for now; what came of it is kept for the next call."""


class Version(NamedTuple):
    """What a server says of a file's version: parts of one version can be joined."""

    etag: str | None
    modified: str | None

    @property
    def validator(self) -> str | None:
        """What `If-Range` may carry; a weak tag does not promise the same bytes."""
        weak = self.etag is None or self.etag.startswith("W/")
        return self.modified if weak else self.etag


class Part:
    """The bytes that came of a file; held against other processes while it is open."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path, self.file = path, file
        self.version_file = path.with_name(f"{path.name}.json")

    @classmethod
    @contextlib.contextmanager
    def open(cls, path: Path) -> Iterator["Part"]:
        """Open for appending; `FetchError` where another process has it open."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            try:
                lock(file, wait=False)
            except BlockingIOError as error:
                raise FetchError(f"another process fetches {path}; wait until it ends") from error
            yield cls(path, file)

    @property
    def version(self) -> Version | None:
        """Of what came so far, where it is known."""
        with contextlib.suppress(OSError, ValueError, TypeError):
            return Version(*json.loads(self.version_file.read_text()))
        return None

    def __len__(self) -> int:
        self.file.flush()
        return os.fstat(self.file.fileno()).st_size

    def restart(self) -> None:
        """Forget what came."""
        self.file.flush()
        self.file.truncate(0)
        self.version_file.unlink(missing_ok=True)

    def md5(self) -> str:
        """Checksum of what came, in hexadecimal."""
        self.file.flush()
        with self.path.open("rb") as file:
            digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
        return digest.hexdigest()


def fetch(
    url: str,
    path: Path,
    *,
    size: int | None = None,
    md5: str | None = None,
    attempts: int = 3,
    timeout: float = 30.0,
    report: Report | None = None,
) -> None:
    """The file of `url` at `path`; one that is there already is left alone.

    size, md5: expected bytes and checksum, in hexadecimal. attempts: how often to try without
    one new byte. timeout: seconds without an answer. `FetchError` where the server cannot be
    reached or refuses and where the disk is too small, `ValueError` where the file is not the
    expected one.
    """
    if path.is_file():
        return
    with Part.open(path.with_name(f"{path.name}.part")) as part:
        failures, most = 0, len(part)
        while not (len(part) == size or _add(part, url, size, timeout, report)):
            failures = 0 if len(part) > most else failures + 1
            most = max(most, len(part))
            if failures == attempts:
                raise FetchError(
                    f"{url}: {attempts} attempts without a new byte; {len(part):,} bytes are kept "
                    f"in {part.path}: check address and network, and give the same command again"
                )
            time.sleep(PAUSE * 2**failures)
        if md5 is not None and (found := part.md5()) != md5.lower():
            part.restart()
            raise ValueError(
                f"{url}: expected MD5 {md5}, got {found}; it came damaged or its publisher "
                "replaced it: fetch it again, or give the checksum of the new version"
            )
        part.path.replace(path)
        part.version_file.unlink(missing_ok=True)


def check_space(folder: Path, needed: int) -> None:
    """`FetchError` where the disk of a folder has less than `needed` bytes left."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise FetchError(
            f"{folder}: {needed:,} bytes are needed and {free:,} are free; make room or choose "
            "another folder"
        )


def _add(part: Part, url: str, size: int | None, timeout: float, report: Report | None) -> bool:
    """Add one answer of the server to the part; whether that made it whole."""
    held, known = len(part), part.version
    request = urllib.request.Request(url)
    if held and known and known.validator:
        request.add_header("Range", f"bytes={held}-")
        request.add_header("If-Range", known.validator)
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            return _append(part, response, size, report)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            if (error.headers.get("Content-Range") or "").endswith(f"/{held}"):
                return True
            part.restart()
        elif error.code < 500 and error.code != HTTPStatus.TOO_MANY_REQUESTS:
            raise FetchError(
                f"{url}: the server answers {error.code}, {error.reason}; check the address, or "
                "give a mirror's"
            ) from error
    except FetchError:
        raise
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise FetchError(f"{part.path}: {error.strerror}; make room and go on") from error
    return False


def _append(
    part: Part, response: http.client.HTTPResponse, size: int | None, report: Report | None
) -> bool:
    version = Version(response.headers.get("ETag"), response.headers.get("Last-Modified"))
    start = 0
    if response.status == HTTPStatus.PARTIAL_CONTENT:
        found = re.match(r"bytes (\d+)-", response.headers.get("Content-Range") or "")
        start = int(found[1]) if found else 0
    if start != len(part) or (start and version != part.version):
        part.restart()  # ranges are ignored, or this is another version
        if start:
            return False
    length = response.headers.get("Content-Length")
    total = start + int(length) if length else None
    if size is not None and total is not None and total != size:
        raise ValueError(
            f"{response.url}: expected {size:,} bytes, the server offers {total:,}; was the file "
            "replaced? Check the address"
        )
    check_space(part.path.parent, (total or size or start) - start)
    part.version_file.write_text(json.dumps(version))
    held = start
    while chunk := response.read(CHUNK):
        part.file.write(chunk)
        held += len(chunk)
        if report:
            report(held, total)
    if size is not None and held > size:
        part.restart()
        raise ValueError(f"{response.url}: expected {size:,} bytes, got {held:,}; is it the file?")
    return held == total if total is not None else size in (None, held)
