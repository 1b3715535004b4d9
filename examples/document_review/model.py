"""What the model says while there is no provider: it lists clauses, and flags a price that a supplement contradicts."""

import re

from examples.offline import model_of, said


def answer(request):
    text = said(request)
    if "List the terms" in text:
        clauses = re.findall(r"^(\d+)\. (.+)$", text, re.MULTILINE)
        return {"terms": [{"clause": number, "says": sentence} for number, sentence in clauses]}

    if "price" in text.partition("[INSTRUCTIONS]")[0]:  # among the supplements
        return {"level": "high", "because": ["1: the price table it names is not the latest"]}

    return {"level": "low", "because": []}


MODEL = model_of(answer)
