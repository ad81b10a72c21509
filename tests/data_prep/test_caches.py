"""Where prepared data goes: what a user names, a checkout, the platform's folder, a temporary one.

What may be written is monkeypatched, as the user root may write everywhere.
"""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from data_prep import caches, load_digit_domain
from data_prep.caches import CACHE_VARIABLE, cache_folder
from data_prep.locations import data_folders


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A checkout, a home and a temporary directory below `tmp_path`; no cache is named."""
    monkeypatch.delenv(CACHE_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home" / ".cache"))
    monkeypatch.setattr("sys.platform", "linux")  # where platformdirs heeds that variable
    for name in ("home", "temporary", "checkout/data_prep"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "checkout" / "pyproject.toml").touch()
    monkeypatch.setattr(caches, "PACKAGE", tmp_path / "checkout" / "data_prep")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    caches._temporary.cache_clear()
    yield
    caches._temporary.cache_clear()


@pytest.fixture
def read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Make folders below `tmp_path` ones that cannot be written to."""
    access = os.access
    denied: list[Path] = []

    def asked(path: Path, mode: int) -> bool:
        below = any(folder in (path, *path.parents) for folder in denied)
        return access(path, mode) and not (mode == os.W_OK and below)

    monkeypatch.setattr(os, "access", asked)
    return lambda *names: denied.extend(tmp_path / name for name in names)


def test_a_checkout_keeps_it_in_data(tmp_path):
    assert cache_folder() == tmp_path / "checkout" / "data"
    assert not cache_folder().exists()  # asking makes nothing


def test_what_is_installed_keeps_it_where_the_platform_wants_it(tmp_path):
    (tmp_path / "checkout" / "pyproject.toml").unlink()
    assert cache_folder() == tmp_path / "home" / ".cache" / "da-compose"


def test_a_checkout_that_cannot_be_written_to_leaves_it_to_the_platform(tmp_path, read_only):
    read_only("checkout")
    assert cache_folder() == tmp_path / "home" / ".cache" / "da-compose"


def test_a_home_that_cannot_be_written_to_is_said_once(tmp_path, read_only, recwarn):
    read_only("checkout", "home")
    expected = tmp_path / "temporary" / f"da-compose-{os.getuid()}"
    assert cache_folder() == cache_folder() == expected
    assert expected.stat().st_mode & 0o777 == 0o700
    (said,) = [str(warning.message) for warning in recwarn]
    assert str(expected) in said and "--cache" in said and CACHE_VARIABLE in said


def test_a_temporary_folder_of_another_user_is_refused(tmp_path, read_only, monkeypatch):
    read_only("checkout", "home")
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with pytest.raises(PermissionError, match="belongs to another user"):
        cache_folder()


@pytest.mark.parametrize("denied", [(), ("checkout", "home")])
def test_the_variable_comes_first(tmp_path, read_only, monkeypatch, denied):
    read_only(*denied)
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"


def test_a_cache_of_somebody_else_can_be_read(tmp_path, read_only, monkeypatch):
    (tmp_path / "mine").mkdir()
    read_only("mine")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"


def test_a_named_folder_that_cannot_be_made_is_refused(tmp_path, read_only, monkeypatch):
    (tmp_path / "file").touch()
    read_only("home")
    for place in ("file", "file/below", "home/below"):
        monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / place))
        with pytest.raises(OSError, match=f"{tmp_path / place} is none"):
            cache_folder()


def test_domains_are_prepared_there_and_found_again(tmp_path, monkeypatch, digit_files):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "mine"))
    load_digit_domain("usps", data_root=digit_files.write("usps"))
    (folder,) = (tmp_path / "mine" / "prepared").iterdir()
    assert folder.name.startswith("usps-")
    assert data_folders("pictures/pacs", None)[-1] == tmp_path / "mine" / "pictures" / "pacs"
