"""``python -m bench.chaos``: load and faults together, then the verdict. Exit status 1 when a job was lost or accepted twice."""

from __future__ import annotations

import argparse
import asyncio
import math
import shutil
import signal
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import uvloop

from bench.chaos.faults import Faults
from bench.chaos.judge import judge
from bench.chaos.load import Load
from bench.chaos.report import count_ended, details, note, progress, summary
from bench.chaos.schedule import KINDS, LEASE, Fault, plan
from bench.chaos.world import World

RECOVERED = 5.0  # seconds after the lapse of a lease within which every job of a dead process runs again
SETTLE = 120.0  # seconds without any ending, once nothing is hurt any more, after which what is left counts as lost
SMOKE = (
    "kill pause restart flush redis-kill redis-away readonly oom script-flush pg-crash pg-kill backends cut "
    "lost-enqueue lost-claim lost-completion lost-pop suicide"
).split()
EXAMPLES = """\
examples:
  python -m bench.chaos                                       50,000 jobs and about 60 faults, six minutes
  python -m bench.chaos --jobs 300000 --minutes 27 --seed 4   the big one
  python -m bench.chaos --seed 4 --faults kill pause          other faults, the same way
  python -m bench.chaos --smoke                               40 seconds, a short lease

--seed replays the schedule: the same faults, kinds, victims, order and times, and the same jobs. What the operating
systems' schedulers make of it cannot be replayed; the logs of a failed run are kept for that reason.

faults:
"""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.chaos",
        description=__doc__.replace("``", ""),
        epilog=EXAMPLES + "\n".join(f"  {kind:16} {about.about}" for kind, about in KINDS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--jobs", type=int, default=50_000, help="how many are sent (default 50,000)")
    parser.add_argument(
        "--minutes", type=float, default=5.2, help="how long they are sent and faults happen (default 5.2)"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the schedule and the jobs (default 1)")
    parser.add_argument(
        "--faults", nargs="+", choices=tuple(KINDS), default=list(KINDS), metavar="KIND", help="default: all"
    )
    parser.add_argument(
        "--interval", type=float, default=5.0, help="seconds between two faults, on average (default 5)"
    )
    parser.add_argument("--apps", type=int, default=4, help="processes, 3 or more (default 4)")
    parser.add_argument("--lease", type=float, default=LEASE, help="JOBFLOW_LEASE, seconds (default 15, as Jobflow's)")
    parser.add_argument("--data", help="folder for the run's own folder (default: the temporary folder)")
    parser.add_argument("--keep", action="store_true", help="keep logs and data when all went well, too")
    parser.add_argument("--smoke", action="store_true", help="a short run with a short lease, for every change")
    args = parser.parse_args()
    if args.smoke:
        args.jobs, args.minutes, args.interval, args.apps, args.lease = 2_000, 16 / 60, 1.0, 3, 2.0
        args.faults = SMOKE
    if args.apps < 3:
        parser.error("--apps must be 3 or more: some are always hurt")
    return args


class Run:
    def __init__(self, args: argparse.Namespace, folder: Path) -> None:
        self.args, self.folder = args, folder
        self.world = World(folder, apps=args.apps, lease=args.lease)
        seconds = args.minutes * 60
        self.load = Load(
            self.world, jobs=args.jobs, seconds=seconds, seed=args.seed, record=folder / "acknowledged"
        )  # fmt: skip
        self.faults = Faults(self.world, self.load)
        self.plan = plan(
            args.seed, minutes=args.minutes, interval=args.interval, apps=args.apps, lease=args.lease, kinds=args.faults
        )
        self.began = time.monotonic()
        self.ended = 0
        (folder / "schedule").write_text("\n".join(map(str, self.plan)) + "\n")

    async def go(self) -> bool:
        """True: nothing was lost, nothing accepted twice, nothing else unexpected."""
        note(f"{self.args.jobs:,} jobs, {len(self.plan)} faults, seed {self.args.seed}, in {self.folder}")
        try:
            await self.world.start()
            note(f"servers and processes are ready after {time.monotonic() - self.began:.1f} s")
            self.began = time.monotonic()
            watchers = [asyncio.create_task(self._watch()), asyncio.create_task(self.world.observe())]
            try:
                async with asyncio.timeout(6 * 60 * self.args.minutes + 120):  # something hangs
                    await asyncio.gather(self.load.run(), self._hurt())
                    await self._settle()
            except TimeoutError:
                self.world.surprise("it took far too long: something hangs")
            finally:
                for watcher in watchers:
                    watcher.cancel()
            seconds = time.monotonic() - self.began
            # Nobody moves a job while it is judged.
            await asyncio.gather(*(app.end() for app in self.world.apps))
            note(
                f"all is done after {seconds:.1f} s, the processes have ended after {time.monotonic() - self.began:.1f} s"
            )
            return await self._verdict(seconds)
        finally:
            await self.load.close()
            await self.world.end()

    async def _hurt(self) -> None:
        async with asyncio.TaskGroup() as group:
            for fault in self.plan:
                await asyncio.sleep(max(self.began + fault.at - time.monotonic(), 0))
                group.create_task(self._inflict(fault))

    async def _inflict(self, fault: Fault) -> None:
        began = time.monotonic() - self.began
        try:
            await self.faults.inflict(fault)
        except Exception as error:
            self.world.surprise(f"this fault went wrong: {fault}: {error!r}")
        finally:
            with (self.folder / "faults").open("a") as file:
                print(f"{fault}  from {began:.2f} to {time.monotonic() - self.began:.2f}", file=file)

    async def _watch(self) -> None:
        connection = None
        while True:
            try:
                if connection is None or connection.is_closed():
                    connection = await self.world.connect()
                self.ended = await asyncio.wait_for(count_ended(connection), 2)
            except Exception:  # Postgres is being hurt
                if connection is not None:
                    connection.terminate()
                connection = None
            note(progress(self.began, self.load, self.faults, len(self.plan), self.ended, self.world))
            await asyncio.sleep(1 if sys.stdout.isatty() else 10)

    async def _settle(self) -> None:
        """Wait until every job has ended, or until it is clear that one never will."""
        unfinished = "SELECT count(*) FROM jobs WHERE status NOT IN ('completed', 'dead_letter', 'cancelled')"
        connection = await self.world.connect()
        least, moved = math.inf, time.monotonic()
        while (left := await connection.fetchval(unfinished)) and time.monotonic() < moved + SETTLE:
            if left < least:
                least, moved = left, time.monotonic()
            await asyncio.sleep(0.3)
        await connection.close()

    async def _verdict(self, seconds: float) -> bool:
        world = self.world
        connection = await world.connect()
        verdict = await judge(
            connection,
            self.load.acknowledged,
            effects=world.effects,
            deaths=world.deaths,
            uncounted=world.uncounted(),
            blows=self.faults.blows,
        )
        await connection.close()
        slow = [r for r in verdict.recoveries if r.seconds > self.args.lease + RECOVERED]
        story = [*verdict.story, *(f"== {sentence}" for sentence in world.surprises)]
        story += [f"== slow recovery {r}" for r in slow]
        story += [f"== death {death}" for death in world.deaths] + [
            f"== uncounted {span}" for span in world.uncounted()
        ]
        (self.folder / "verdict").write_text("\n".join(story) + "\n")
        note("")
        lines = details(verdict, self.load, self.faults, world, seconds)
        lines += [f"WRONG: {sentence}: {count}" for sentence, count in verdict.mistakes.items()]
        lines += [f"SURPRISE: {sentence}" for sentence in world.surprises[:10]]
        if slow:
            lines.append(
                f"SLOW: {len(slow)} jobs of dead processes ran again later than {self.args.lease + RECOVERED:g} s"
            )
        print(*lines, summary(verdict, self.faults.done), sep="\n", flush=True)
        return not verdict.mistakes and not world.surprises and not slow


async def run(args: argparse.Namespace, folder: Path) -> bool:
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM):  # servers and processes are ended first
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    return await Run(args, folder).go()


def main() -> int:
    args = arguments()
    folder = Path(tempfile.mkdtemp(prefix="jobflow-chaos-", dir=args.data))
    well = False
    try:
        with suppress(asyncio.CancelledError):
            well = uvloop.run(run(args, folder))
    finally:
        if well and not args.keep:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            print(f"Kept: {folder}", file=sys.stderr)
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
