"""Small pictures of the large ones in the folder that PHOTOS names. Each handler may run twice and does no harm by it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

import msgspec

from examples.thumbnails import pictures
from jobflow import Cancel, Context, Discard, job, lifespan

PHOTOS = Path(os.environ.get("PHOTOS", "photos")).absolute()
SMALL = "-small.ppm"
Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]+$", max_length=100)]
Width = Annotated[int, msgspec.Meta(ge=1, le=1_000)]


@lifespan
async def photos() -> AsyncIterator[Path]:
    """The folder, made when the process starts: ``ctx.state``."""
    PHOTOS.mkdir(parents=True, exist_ok=True)
    yield PHOTOS


class Folder(msgspec.Struct):
    width: Width = 64


class One(msgspec.Struct):
    name: Name
    width: Width = 64


@job("thumbnail.all", max_attempts=3)
async def make_all(payload: Folder, ctx: Context) -> dict[str, Any] | Cancel:
    """One job for each picture. The unique key keeps a second run from submitting those that still wait."""
    names = await asyncio.to_thread(names_in, ctx.state)  # reading a folder blocks
    if not names:
        return Cancel(f"there is no picture in {ctx.state}")
    for name in names:
        await ctx.enqueue(
            "thumbnail.make",
            {"name": name, "width": payload.width},
            unique_key=f"thumbnail:{name}:{payload.width}",
            on_conflict="return",
            tags=[f"of:{ctx.job_id}"],
        )
    return {"submitted": len(names)}


@job("thumbnail.make", timeout=30, max_attempts=5)
def make(payload: One, ctx: Context) -> dict[str, Any]:
    """A plain function, so it runs in a thread: it computes, and would stop everything else in the event loop.

    A file that is not there or no picture is given up at once; one that is not whole yet fails, and has a next attempt.
    """
    source = ctx.state / f"{payload.name}.ppm"
    try:
        picture = pictures.read(source.read_bytes())
    except (FileNotFoundError, pictures.NoPicture) as error:
        raise Discard(f"{source.name}: {error}") from error
    small = pictures.shrink(picture, payload.width, go_on=lambda: not ctx.cancelled)
    if small is None:
        raise TimeoutError("told to stop")
    # Written under another name and renamed: whoever reads it sees a whole file, also when two runs write at once.
    partial = ctx.state / f".{payload.name}-{ctx.job_id}-{ctx.attempt}"
    partial.write_bytes(pictures.write(small))
    partial.rename(ctx.state / f"{payload.name}{SMALL}")
    ctx.log.info("thumbnail made", name=payload.name, width=small.width, height=small.height)
    return {"file": f"{payload.name}{SMALL}", "width": small.width, "height": small.height}


def names_in(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.ppm") if not path.name.endswith(SMALL))
