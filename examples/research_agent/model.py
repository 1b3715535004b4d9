"""What the model says while there is no provider: it searches, reads what was found, then answers.

As a real one does, it also goes wrong: it asks for a tool nobody has, is told so, and goes on.
"""

import json

from examples.offline import model_of, said

from flowdeck.testing import ModelReply, ToolCall


def answer(request):
    results = [json.loads(m["content"]) for m in request["messages"] if m["role"] == "tool"]
    if not request.get("tools"):
        read = "ten compartments" in said(request)
        return {
            "answer": "It runs again from December 2026. A train has sixty compartments." if read else "I do not know.",
            "sources": ["night-train", "sleeper-cars"] if read else [],
        }

    if not results:
        wanted = [ToolCall("search", {"words": "train"}), ToolCall("browse", {"url": "rail.example"})]
        return ModelReply(tool_calls=wanted)

    if len(results) == 2:
        return ModelReply(tool_calls=[ToolCall("read", {"name": name}) for name in results[0]])

    return "I know enough."


MODEL = model_of(answer)
