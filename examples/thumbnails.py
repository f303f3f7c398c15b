"""Handlers to start from: small pictures of large ones, in a format that needs no image library (binary PPM).

The pictures are in the folder that PHOTOS names, ``photos`` by default. Each handler can run twice without harm.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

import msgspec

from jobflow import Cancel, Context, Discard, job, lifespan

Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]+$", max_length=100)]
Width = Annotated[int, msgspec.Meta(ge=1, le=1_000)]

PHOTOS = Path(os.environ.get("PHOTOS", "photos")).absolute()


@lifespan
async def photos() -> AsyncIterator[Path]:
    """The folder, made when the process starts: ``ctx.state``."""
    PHOTOS.mkdir(exist_ok=True)
    yield PHOTOS


class Folder(msgspec.Struct):
    width: Width = 64


class Picture(msgspec.Struct):
    name: Name
    width: Width = 64


@job("thumbnail.all", max_attempts=3)
async def make_all(payload: Folder, ctx: Context) -> dict[str, Any] | Cancel:
    """One job for each picture. The unique key keeps a second run from submitting those that still wait."""
    names = await asyncio.to_thread(pictures, ctx.state)  # reading a folder blocks
    if not names:
        return Cancel(f"there is no picture in {ctx.state}")
    for name in names:
        await ctx.enqueue(
            "thumbnail.make",
            {"name": name, "width": payload.width},
            unique_key=f"thumbnail:{name}:{payload.width}",
            on_conflict="return",
        )
    return {"submitted": len(names)}


@job("thumbnail.make", timeout=30)
def make(payload: Picture, ctx: Context) -> dict[str, Any]:
    """A plain function, so it runs in a thread: it computes, and would stop everything else in the event loop."""
    try:
        width, height, pixels = read_ppm((ctx.state / f"{payload.name}.ppm").read_bytes())
    except (FileNotFoundError, ValueError) as error:
        raise Discard(f"{payload.name}.ppm: {error}") from error  # another attempt would not help
    new_width = min(payload.width, width)
    new_height = max(1, height * new_width // width)
    rows = []
    for y in range(new_height):
        if ctx.cancelled:
            raise TimeoutError("told to stop")
        line = y * height // new_height * width
        columns = (line + x * width // new_width for x in range(new_width))
        rows.append(b"".join(pixels[3 * at : 3 * at + 3] for at in columns))
    # Written under another name and renamed: whoever reads it sees a whole file, also when two runs write at once.
    partial = ctx.state / f".{payload.name}-{ctx.job_id}-{ctx.attempt}"
    partial.write_bytes(b"P6 %d %d 255\n" % (new_width, new_height) + b"".join(rows))
    partial.rename(ctx.state / f"{payload.name}-small.ppm")
    ctx.log.info("thumbnail made", name=payload.name, width=new_width, height=new_height)
    return {"file": f"{payload.name}-small.ppm", "width": new_width, "height": new_height}


def pictures(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.ppm") if not path.stem.endswith("-small"))


def read_ppm(data: bytes) -> tuple[int, int, bytes]:
    """(width, height, three bytes for each pixel). Raises ValueError when it is no binary PPM with 255 shades."""
    kind, width, height, shades, *_ = [*data[:64].split(maxsplit=4), b"", b"", b"", b""]
    if kind != b"P6" or shades != b"255" or not (width.isdigit() and height.isdigit()):
        raise ValueError("not a binary PPM with 255 shades")
    size = int(width) * int(height) * 3
    if size == 0 or len(data) < size:
        raise ValueError("the file is not whole")
    return int(width), int(height), data[-size:]
