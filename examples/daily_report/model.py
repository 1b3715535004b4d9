"""What the model says while there is no provider: a section says its news again."""

import re

from examples.offline import model_of, said


def answer(request):
    topic, news = re.search(r'"topic": "(.*?)",\s+"news": "(.*?)"', said(request)).groups()
    return {"title": f"{topic} today", "text": f"{news} More on this tomorrow."}


MODEL = model_of(answer)
