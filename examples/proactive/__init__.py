"""Who starts work when nobody asks: a scheduler, a webhook, polling, a queue, a heartbeat, a chat."""
