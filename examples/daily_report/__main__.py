"""Let a scheduler start the report: at seven every morning, and once right now.

The scheduler only triggers. Started twice for one day, the report is written once.
"""

import asyncio
from datetime import datetime
from pathlib import Path

from apscheduler.schedulers.asyncio import AsyncIOScheduler

from .flow import writer
from .job import Tasks, run_daily_report


def notify(event: dict) -> None:
    """Stand-in for a page, a chat or a mail."""
    print(f"{event['status']:9} {event.get('title') or event['event_type']}")


async def main() -> None:
    tasks, done = Tasks(Path(".examples/tasks.db")), asyncio.Event()

    async def this_morning() -> None:
        task_id = f"daily-report-{datetime.now():%Y-%m-%d}"
        await asyncio.gather(*(run_daily_report(task_id, tasks, notify) for _ in range(2)))
        task = tasks.get(task_id)
        print(task["status"], task["report"])
        if writer.workspace is not None:
            print(await writer.workspace.get(task["report"]))
        done.set()

    scheduler = AsyncIOScheduler()
    scheduler.add_job(this_morning, "cron", hour=7, next_run_time=datetime.now())
    scheduler.start()
    await done.wait()
    scheduler.shutdown()


if __name__ == "__main__":
    asyncio.run(main())
