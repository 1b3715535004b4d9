"""What tests and offline examples need: a model server on this machine. See :mod:`flowdeck.testing.local_model`."""

from flowdeck.testing.local_model import LocalModel
from flowdeck.testing.local_replies import ModelReply, ToolCall

__all__ = ["LocalModel", "ModelReply", "ToolCall"]
