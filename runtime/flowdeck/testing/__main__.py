"""``python -m flowdeck.testing``: a model server on this machine. See :mod:`flowdeck.testing.local_model`."""

from flowdeck.testing.local_model import main

if __name__ == "__main__":
    raise SystemExit(main())
