from pathlib import Path

import numpy as np
import pytest

from benchmarks.cli.named_images import read_named_images
from da_compose.reading import read_images


@pytest.mark.filterwarnings("ignore:1 unreadable")
def test_pictures_come_with_their_paths_and_the_broken_with_a_reason(user_files):
    broken = user_files.pictures / "2a.png"
    whole = read_images(user_files.pictures, 8)
    paths = sorted(map(str, user_files.pictures.iterdir()))
    broken.write_bytes(b"")
    found = read_named_images(user_files.pictures, 8)
    np.testing.assert_array_equal(found.images, whole)
    assert list(found.names) == paths
    [(path, reason)] = found.left_out
    assert path == broken and reason and str(broken) not in reason


def test_images_of_an_archive_are_numbered(tmp_path: Path):
    path = tmp_path / "IMAGES.NPZ"
    with path.open("wb") as file:
        np.savez(file, images=np.full((2, 8, 8), 99, np.uint8))
    found = read_named_images(path, 4)
    assert found.images.shape == (2, 4, 4)
    assert list(found.names) == [f"{path}[0]", f"{path}[1]"] and not found.left_out
