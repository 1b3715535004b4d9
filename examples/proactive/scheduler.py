"""A scheduler: the daily report, by APScheduler. It only says when."""

from datetime import date

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.cron import CronTrigger

from .office import Office


def schedule(office: Office, trigger: BaseTrigger | None = None) -> AsyncIOScheduler:
    """Write a report every working day at seven; a day that was missed by less than an hour is made up for."""
    scheduler = AsyncIOScheduler()
    every = trigger or CronTrigger(day_of_week="mon-fri", hour=7)
    scheduler.add_job(report_of_today, every, args=[office], id="daily-report", misfire_grace_time=3_600)
    return scheduler


async def report_of_today(office: Office) -> None:
    """The task's id is the day, so two schedulers, or one that starts again, write one report."""
    await office.catch_up()
    await office.open_task(f"daily-{date.today().isoformat()}", "daily")
