"""An application that does nothing, as FastAPI's users write it: what a framework costs."""

import sys

import uvicorn
from fastapi import FastAPI


def create_app() -> FastAPI:
    """Return the application."""
    app = FastAPI()

    @app.get("/")
    async def nothing() -> dict[str, str]:  # pyright: ignore[reportUnusedFunction]
        return {}

    return app


if __name__ == "__main__":
    # as our service has it: uvloop and httptools, which are uvicorn's defaults, and no log
    uvicorn.run(
        "benchmarks.speed.service.empty_route:create_app",
        factory=True,
        port=int(sys.argv[1]),
        ws="none",
        access_log=False,
        server_header=False,
        log_level="warning",
    )
