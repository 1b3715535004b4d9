"""A heartbeat: looks now and then whether somebody is waited for too long. It reminds once, and gives up later."""

from .office import Office

REMIND_AFTER = 4 * 3_600.0
GIVE_UP_AFTER = 24 * 3_600.0


async def beat(office: Office) -> None:
    """Tell what is untold, remind, and run the compensation of what nobody answered."""
    await office.catch_up()
    for task in office.tasks("status = 'waiting'"):
        waited = office.clock() - task.changed
        if waited >= GIVE_UP_AFTER:
            await office.give_up(task)
        elif waited >= REMIND_AFTER and not task.reminded:
            try:
                await office.remind(task)
            except OSError:
                pass  # the next beat tries again
