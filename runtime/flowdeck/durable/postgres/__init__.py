"""Executions in PostgreSQL: what is open now, for many machines. Needs ``pip install 'flowdeck[postgres]'``.

The same protocol, questions and events as over ``state.db``; see :mod:`flowdeck.durable.store`. The database is
passive: it keeps, fences and notifies, and runs nothing. :mod:`~flowdeck.durable.postgres.address` recognises the URL;
everything else is imported when one is used.
"""
