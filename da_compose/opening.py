"""Pictures opened by Pillow's plugins, without `Image.open`: it warns of size.

Filters of warnings belong to the whole process and to its other threads, so none is set here.
"""

import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from PIL import (  # noqa: F401 - each registers itself
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)


@contextmanager
def opened(path: Path, formats: Sequence[str]) -> Iterator[Image.Image]:
    """A picture of one of these formats, told by its content; its pixels are still in the file.

    Raises DecompressionBombError where it has more than `Image.MAX_IMAGE_PIXELS` pixels, and
    UnidentifiedImageError where it is none.
    """
    with path.open("rb") as file:
        picture = _identified(file, path, formats)
        (width, height), most = picture.size, Image.MAX_IMAGE_PIXELS
        if most is not None and width * height > most:
            raise Image.DecompressionBombError(
                f"Image size ({width * height} pixels) exceeds limit of {most} pixels, "
                "could be decompression bomb DOS attack."
            )
        yield picture


def _identified(file: IO[bytes], path: Path, formats: Sequence[str]) -> Image.Image:
    prefix = file.read(16)
    for name in formats:
        factory, accepts = Image.OPEN[name]
        if accepts is not None and accepts(prefix) is not True:  # a text says why not
            continue
        file.seek(0)
        try:
            return factory(file, str(path))
        except (SyntaxError, IndexError, TypeError, struct.error):
            continue  # of another format, as Pillow has it
    raise UnidentifiedImageError(f"cannot identify image file {str(path)!r}")
