"""DBOS as the scheduler of executions in PostgreSQL. Needs ``pip install 'flowdeck[dbos]'``.

The store is the same as without it, and so are flows, interrupts, inbox and tools. DBOS decides where and
when an *activation* runs (its queues, with their limits), and to hand it to somebody else when its process is gone. An
activation is one step of one DBOS workflow: claim, drain the inbox, run until the execution waits or ends, commit, give
back. So nothing of DBOS is held while an execution waits, and no workflow has more than one step to replay.

Exactness does not rest on DBOS: a claim raises the execution's fencing token, the workflow's id names the token it may
claim, and whoever comes second finds another one there and does nothing.
"""
