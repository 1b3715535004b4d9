"""What the model says while there is no provider: a ticket is urgent when a hint speaks of an outage."""

from examples.offline import model_of, said


def answer(request):
    text = said(request)
    if "Summarise the ticket" in text:
        return {"summary": "Card payments fail since this morning.", "product": "payments"}

    return {"severity": "high" if "outage" in text else "medium", "labels": ["cards", "checkout"]}


MODEL = model_of(answer)
