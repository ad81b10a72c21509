"""Pictures of more than 8 bits a value as 8-bit ones, by what their files say of the depth."""

import io
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from da_compose.images import of_floats

WHITE = 0xFFFF  # of 16 bits, where a file says nothing
PNG_START = 8  # bytes before the first chunk
BITS_PER_SAMPLE = 258  # of TIFF


def said_bits(picture: Image.Image) -> int | None:
    """How many bits of a value count, by an open file: sBIT of a PNG, bits per sample of a TIFF."""
    if picture.format == "TIFF":
        return int(getattr(picture, "tag_v2", {}).get(BITS_PER_SAMPLE, (WHITE.bit_length(),))[0])
    file = getattr(picture, "fp", None)
    if picture.format != "PNG" or file is None:
        return None
    place = file.tell()
    file.seek(PNG_START)
    try:
        while len(head := file.read(8)) == 8 and head[4:] != b"IDAT":
            (length,) = struct.unpack(">I", head[:4])
            if head[4:] == b"sBIT" and 0 < length <= 4:
                return max(file.read(length))
            file.seek(length + 4, io.SEEK_CUR)  # its checksum, too
        return None
    finally:
        file.seek(place)


def deep_colours(picture: Image.Image, bits: int | None) -> NDArray[np.uint16] | None:
    """Values (H, W, 3) of a PNG of 16-bit colours where fewer bits count; Pillow keeps the upper 8.

    To be asked before the picture is loaded. None of any other picture.
    """
    file, tiles = getattr(picture, "fp", None), getattr(picture, "tile", ())
    deep = tiles and all(tile.args == "RGB;16B" for tile in tiles)
    if bits is None or bits >= 16 or file is None or not deep:
        return None
    place = file.tell()
    file.seek(0)
    content = file.read()
    file.seek(place)
    upper, lower = (Image.open(io.BytesIO(content), formats=("PNG",)) for _ in range(2))
    # As if bytes came in the other order: the last one of each value is kept
    lower.tile = [tile._replace(args="RGB;16L") for tile in lower.tile]
    return (np.asarray(upper).astype(np.uint16) << 8 | np.asarray(lower)).astype(np.uint16)


def to_eight_bits(values: NDArray[Any], bits: int | None) -> Image.Image:
    """Grey or colour values as an 8-bit picture; ValueError where they do not say what is white.

    White is 1 of floats, else the largest value of the bits that count, or of 16. Files whose bits
    are the upper ones of 16, as the PNG standard wants it, are told by their larger values.
    """
    if np.issubdtype(values.dtype, np.floating):
        return Image.fromarray(of_floats(values))
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > WHITE:
        raise ValueError(
            f"grey values {low} to {high} exceed 16 bits; scale them to 0 to {WHITE}, and save "
            "16 bits"
        )
    fewer = bits is not None and high < 2**bits <= WHITE
    white = 2**bits - 1 if bits is not None and fewer else WHITE
    return Image.fromarray((values / white * 255).round().astype(np.uint8))
