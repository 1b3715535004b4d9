"""``python -m flowdeck_devtools.cli`` is the ``flowdeck`` command."""

from flowdeck_devtools.cli import main

if __name__ == "__main__":
    main()
