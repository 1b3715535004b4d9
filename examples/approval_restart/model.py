"""What the model says while there is no provider."""

from examples.offline import model_of


def answer(request):
    return {"subject": "Your refund is on its way", "body": "We are sorry for the delay. You will have it on Friday."}


MODEL = model_of(answer)
