"""Pictures as binary PPM: a line of numbers and then three bytes for each pixel, so that no image library is needed."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

_HEADER = re.compile(rb"P6\s+([1-9]\d{0,4})\s+([1-9]\d{0,4})\s+255\s")


class NoPicture(ValueError):
    """It is something else, and will stay so."""


class Unfinished(ValueError):
    """The end is missing: somebody still writes it, perhaps."""


class Picture(NamedTuple):
    width: int
    height: int
    pixels: bytes


def read(data: bytes) -> Picture:
    """Raises NoPicture, Unfinished."""
    if not (header := _HEADER.match(data)):
        raise NoPicture("not a binary PPM with 255 shades")
    width, height = int(header[1]), int(header[2])
    pixels = data[header.end() : header.end() + 3 * width * height]
    if len(pixels) < 3 * width * height:
        raise Unfinished(f"{len(pixels)} of {3 * width * height} bytes are there")
    return Picture(width, height, pixels)


def write(picture: Picture) -> bytes:
    return b"P6 %d %d 255\n" % (picture.width, picture.height) + picture.pixels


def shrink(picture: Picture, width: int, go_on: Callable[[], bool] = lambda: True) -> Picture | None:
    """The same picture, at most so wide. None as soon as ``go_on`` says no, which is asked for every line."""
    width = min(width, picture.width)
    height = max(1, picture.height * width // picture.width)
    rows = []
    for y in range(height):
        if not go_on():
            return None
        line = y * picture.height // height * picture.width
        columns = (line + x * picture.width // width for x in range(width))
        rows.append(b"".join(picture.pixels[3 * at : 3 * at + 3] for at in columns))
    return Picture(width, height, b"".join(rows))


def paint(width: int = 640, height: int = 480) -> Picture:
    """Something to try with: the sky in the evening."""
    rows = (bytes((255 * y // height, 90 + 60 * y // height, 200 - 120 * y // height)) * width for y in range(height))
    return Picture(width, height, b"".join(rows))
