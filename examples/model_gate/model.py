"""What the model says while there is no provider: it wants to know when it happened, and to see photos."""

from examples.offline import model_of, said


def answer(request):
    text = said(request)
    for topic, question in (("When", "When did it happen?"), ("photos", "Are there photos?")):
        if topic not in text:
            return {"enough": False, "question": question, "verdict": ""}

    return {"enough": True, "question": "", "verdict": "pay" if "yes" in text else "refuse"}


MODEL = model_of(answer)
