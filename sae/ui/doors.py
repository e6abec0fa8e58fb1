"""Several pages on one server: the first at its root, each other one below its own name.

Knows ASGI and how Gradio mounts a page. Does not know what is on a page. A request for a page that is mounted
passes by the first page's guard: it has a guard of its own, which counts by the same bounds.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from starlette.responses import Response
from starlette.routing import Match, Mount

if TYPE_CHECKING:
    import gradio as gr
    from starlette.types import ASGIApp, Receive, Scope, Send

Lifespan = Callable[[Any], AbstractAsyncContextManager[Any]]


class Doors:
    """ASGI middleware around the first page: requests below the others' names go to them."""

    def __init__(self, app: "ASGIApp", mounts: Sequence[Mount]) -> None:
        self.app, self.mounts = app, mounts

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        if scope["type"] == "http":
            root, path = scope.get("root_path", ""), str(scope["path"])
            below = path.removeprefix(root) if root else path
            for mount in self.mounts:
                if below == mount.path:  # the page's own addresses are relative: it has to end so
                    await _moved(mount.path, scope)(scope, receive, send)
                    return
                match, inner = mount.matches(scope)
                if match == Match.FULL:
                    await mount.handle({**scope, **inner}, receive, send)
                    return
        await self.app(scope, receive, send)


def mount(
    pages: Mapping[str, "gr.Blocks"], settings: Callable[[], dict[str, Any]]
) -> tuple[list[Mount], Lifespan]:
    """The pages by name, each below `/NAME`, and what runs while the server does.

    `settings` makes the keyword arguments of `Blocks.launch` for one page.
    """
    import gradio as gr

    house = FastAPI()
    for name, page in pages.items():
        given = settings()
        page.state_session_capacity = given.pop("state_session_capacity")
        gr.mount_gradio_app(house, page, f"/{name}", show_error=False, **given)
    return [route for route in house.routes if isinstance(route, Mount)], (
        lambda _first: house.router.lifespan_context(house)
    )


def together(*lifespans: Lifespan) -> Lifespan:
    """Both of two lifespans, the second inside of the first."""

    @asynccontextmanager
    async def both(app: Any) -> AsyncIterator[None]:
        async with lifespans[0](app), lifespans[1](app):
            yield

    return both


def _moved(path: str, scope: "Scope") -> Response:
    """To the same address with a slash at its end, whatever lies in front of it."""
    query = scope.get("query_string", b"").decode("latin-1")
    where = path.rsplit("/", 1)[-1] + "/" + (f"?{query}" if query else "")
    return Response(status_code=307, headers={"location": where})
