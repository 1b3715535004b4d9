"""Serve the page and the flow behind it: ``python -m examples.web_review [STORE] [PORT]``."""

import sys
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from fastapi.responses import FileResponse

from flowdeck.web import FlowService

from .flow import flow

PAGE = Path(__file__).with_name("page.html")


def make_app(store: str) -> FastAPI:
    """The page at ``/``, the flow's routes below ``/api``."""
    app = FastAPI(title="Document review")
    app.include_router(FlowService(flow, store=store).router, prefix="/api")

    @app.get("/", include_in_schema=False)
    def page() -> FileResponse:
        return FileResponse(PAGE, headers={"content-security-policy": "default-src 'self' 'unsafe-inline' data:"})

    return app


if __name__ == "__main__":
    store, port = [*sys.argv[1:], *[".flowdeck", "8000"][len(sys.argv) - 1 :]]
    print(f"open http://127.0.0.1:{port}/", flush=True)
    uvicorn.run(make_app(store), port=int(port), log_level="warning")
