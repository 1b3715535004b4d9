"""Models: whom an agent asks, and what comes back while it is being written.

Importing this package costs nothing; pydantic-ai is imported with the first request (extra ``models``).
"""

from flowdeck.models.config import ModelConfig
from flowdeck.models.instant import InstantParser, StreamingData
from flowdeck.models.requester import ModelRequester, Piece

__all__ = ["InstantParser", "ModelConfig", "ModelRequester", "Piece", "StreamingData"]
