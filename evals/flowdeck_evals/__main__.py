"""``python -m flowdeck_evals``: the ``evals`` command."""

from flowdeck_evals.cli import main

main()
