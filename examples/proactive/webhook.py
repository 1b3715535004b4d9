"""A webhook: another system says that something has happened. It is believed when its signature is right."""

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse

from flowdeck.web import Webhook
from flowdeck.web.problems import Problem

from .office import Office


def make_app(office: Office, secret: str) -> FastAPI:
    """``POST /hooks/orders`` opens a task for each delivery; ``GET /tasks/{id}`` is for a sender that saw no answer."""
    app = FastAPI()
    sender = Webhook("orders", secret)

    @app.post("/hooks/orders", status_code=202)
    async def received(request: Request) -> dict[str, str]:
        content = await request.body()
        try:
            delivery = sender.verify(request.headers, content)
        except Problem as problem:
            raise HTTPException(problem.status, problem.detail) from None

        topic = str((await request.json())["order"])
        await office.open_task(f"order-{delivery}", topic, tenant_id=sender.name)
        return {"task_id": f"order-{delivery}"}

    @app.get("/tasks/{task_id}")
    async def status(task_id: str) -> JSONResponse:
        await office.catch_up()
        task = office.task(task_id)
        return JSONResponse({"task_id": task_id, "status": task.status if task else None}, 200 if task else 404)

    return app
