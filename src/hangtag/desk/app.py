"""The desk's pages as a Starlette app: one product a screen, and what is sent back."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib.resources import files
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast
from urllib.parse import parse_qs, urlencode

import jinja2

from hangtag.bulk.review import check_chosen
from hangtag.desk.export import FORMS, MEDIA, SUFFIX, ExportForm, exported
from hangtag.desk.progress import progress_of
from hangtag.desk.session import COOKIE, Sessions, reviewer_name
from hangtag.desk.store import ORDERS, Decision, Store
from hangtag.desk.view import Viewer
from hangtag.errors import DataError, MissingExtra

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

_MOST_BYTES = 256 * 1024
_LONGEST_COMMENT = 2000
_WRONG_TOKEN_S = 0.5
_STATIC = {"desk.css": "text/css", "desk.js": "text/javascript"}
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    # Under "no-referrer" browsers send forms with the origin "null".
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
ORDER_NAMES = {
    "least": "least sure first",
    "informative": "most informative first",
    "random": "random",
    "accepted": "accepted, a sample",
}
P = ParamSpec("P")
T = TypeVar("T")
Form = dict[str, list[str]]
Handler = Callable[["Request", str], Awaitable["Response"]]


class Desk:
    """Answers the requests of reviewers; `app` is what a server runs."""

    def __init__(self, store: Store, viewer: Viewer, sessions: Sessions) -> None:
        """Bind them. Raises MissingExtra: Starlette is not installed."""
        self._store, self._viewer, self._sessions = store, viewer, sessions
        templates = files("hangtag.desk") / "templates"
        self._templates = jinja2.Environment(
            loader=jinja2.FunctionLoader(lambda name: (templates / name).read_text(encoding="utf-8")),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self.app = self._build()

    def _build(self) -> Starlette:
        try:
            from starlette.applications import Starlette
            from starlette.middleware import Middleware
            from starlette.routing import Route
        except ImportError:
            raise MissingExtra("starlette", "desk") from None
        known = self._known
        return Starlette(
            routes=[
                Route("/", known(self._next)),
                Route("/product/{position:int}", known(self._product)),
                Route("/decide", known(self._decide), methods=["POST"]),
                Route("/undo", known(self._undo), methods=["POST"]),
                Route("/tags", known(self._tags)),
                Route("/progress", known(self._progress)),
                Route("/export/{form}", known(self._export)),
                Route("/login", self._login, methods=["GET", "POST"]),
                Route("/static/{name}", self._static),
            ],
            middleware=[Middleware(_Guard, sessions=self._sessions)],
        )

    def _known(self, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        """Return the handler for those who are logged in; others are sent to the login."""

        async def answer(request: Request) -> Response:
            from starlette.responses import RedirectResponse

            reviewer = self._sessions.reviewer(request.cookies.get(COOKIE))
            if reviewer is None:
                return RedirectResponse("/login", 303)
            return await handler(request, reviewer)

        return answer

    def _page(self, name: str, reviewer: str | None, status: int = 200, **values: Any) -> Response:
        from starlette.responses import HTMLResponse

        form_token = self._sessions.form_token(reviewer) if reviewer else ""
        text = self._templates.get_template(f"{name}.html.jinja").render(
            reviewer=reviewer, form_token=form_token, **values
        )
        return HTMLResponse(text, status)

    async def _login(self, request: Request) -> Response:
        from starlette.responses import RedirectResponse

        asks = self._sessions.token is not None
        if request.method == "GET":
            return self._page("login", None, asks_token=asks, message="")
        form = await _form(request)
        name = reviewer_name(_one(form, "name"))
        if name is None:
            return self._page("login", None, 422, asks_token=asks, message="Give a name of 1 to 40 characters.")
        if not self._sessions.accepts(_one(form, "token")):
            await asyncio.sleep(_WRONG_TOKEN_S)
            return self._page("login", None, 403, asks_token=asks, message="This token is not the desk's.")
        response = RedirectResponse("/", 303)
        is_secure = request.url.scheme == "https"
        response.set_cookie(
            COOKIE, self._sessions.cookie(name), httponly=True, samesite="strict", secure=is_secure, path="/"
        )
        return response

    async def _next(self, request: Request, reviewer: str) -> Response:
        order, facet = _order(request.query_params.get("order")), request.query_params.get("facet", "")
        position = await _in_thread(self._store.lease, reviewer, order, facet)
        if position is None:
            return await _in_thread(self._show_end, reviewer, order, facet)
        return await _in_thread(self._show, reviewer, position, order, facet)

    async def _product(self, request: Request, reviewer: str) -> Response:
        order, facet = _order(request.query_params.get("order")), request.query_params.get("facet", "")
        return await _in_thread(self._show, reviewer, request.path_params["position"], order, facet)

    def _show_end(self, reviewer: str, order: str, facet: str) -> Response:
        return self._page("end", reviewer, **self._bar(order, facet))

    def _bar(self, order: str, facet: str) -> dict[str, Any]:
        return {
            "order": order,
            "facet": facet,
            "orders": ORDER_NAMES,
            "facets": [name for name in self._viewer.vocabulary.facet_names if name],
            "size": int(self._store.recall("size") or 0),
            "num_decided": self._store.num_decided(),
        }

    def _show(
        self,
        reviewer: str,
        position: int,
        order: str,
        facet: str,
        *,
        message: str = "",
        chosen: list[str] | None = None,
        comment: str = "",
    ) -> Response:
        try:
            entry = self._store.entry(position)
        except KeyError:
            return self._page("message", reviewer, 404, text="There is no such product.")
        view = self._viewer.view(entry, chosen)
        status = 422 if message else 200
        return self._page(
            "product",
            reviewer,
            status,
            view=view,
            position=position,
            message=message,
            comment=comment,
            **self._bar(order, facet),
        )

    async def _decide(self, request: Request, reviewer: str) -> Response:
        form = await _form(request)
        if not self._sessions.is_own_form(reviewer, request.headers, _one(form, "form_token")):
            return self._page("message", reviewer, 403, text="This form is not the desk's; load the page again.")
        return await _in_thread(self._take, form, reviewer)

    def _take(self, form: Form, reviewer: str) -> Response:
        from starlette.responses import RedirectResponse

        order, facet = _order(_one(form, "order")), _one(form, "facet")
        action, tags = _one(form, "action"), list(dict.fromkeys(form.get("tag", [])))
        comment = _one(form, "comment")[:_LONGEST_COMMENT]
        position = _number(_one(form, "position"))
        try:
            entry = self._store.entry(position)
        except KeyError:
            return self._page("message", reviewer, 404, text="There is no such product.")
        try:
            decision, tags = _decision(action, tags, [tag.tag for tag in entry.tags])
            check_chosen(tags, self._viewer.vocabulary, "Not kept")
        except DataError as error:
            known = [name for name in tags if name in self._viewer.vocabulary]
            return self._show(reviewer, position, order, facet, message=str(error), chosen=known, comment=comment)
        seconds = _seconds(_one(form, "seconds"))
        self._store.decide(position, reviewer, decision, tags, comment=comment, seconds=seconds)
        return RedirectResponse(_place("/", order, facet), 303)

    async def _undo(self, request: Request, reviewer: str) -> Response:
        from starlette.responses import RedirectResponse

        form = await _form(request)
        if not self._sessions.is_own_form(reviewer, request.headers, _one(form, "form_token")):
            return self._page("message", reviewer, 403, text="This form is not the desk's; load the page again.")
        order, facet = _order(_one(form, "order")), _one(form, "facet")
        position = await _in_thread(self._store.undo, reviewer)
        to = "/" if position is None else f"/product/{position}"
        return RedirectResponse(_place(to, order, facet), 303)

    async def _tags(self, request: Request, reviewer: str) -> Response:
        from starlette.responses import JSONResponse

        found = await _in_thread(self._viewer.search, request.query_params.get("q", "")[:100])
        limits = self._viewer.vocabulary.facets
        return JSONResponse([{"tag": tag, "facet": facet, "most": limits[facet].max} for tag, facet in found])

    async def _progress(self, request: Request, reviewer: str) -> Response:
        found = await _in_thread(progress_of, self._store)
        alpha = None if math.isnan(found.alpha) else found.alpha
        return self._page("progress", reviewer, progress=found, alpha=alpha, forms=FORMS)

    async def _export(self, request: Request, reviewer: str) -> Response:
        from starlette.concurrency import iterate_in_threadpool
        from starlette.responses import StreamingResponse

        form = request.path_params["form"]
        if form not in FORMS:
            return self._page("message", reviewer, 404, text=f"Decisions are exported as {', '.join(FORMS)}.")
        chosen = cast("ExportForm", form)
        text: AsyncIterator[str] = iterate_in_threadpool(
            exported(self._store.decided(), self._viewer.vocabulary, chosen)
        )
        disposition = f'attachment; filename="decisions.{SUFFIX[chosen]}"'
        return StreamingResponse(text, media_type=MEDIA[chosen], headers={"content-disposition": disposition})

    async def _static(self, request: Request) -> Response:
        from starlette.responses import Response

        name = request.path_params["name"]
        if name not in _STATIC:
            return Response("not found", 404)
        text = (files("hangtag.desk") / "static" / name).read_bytes()
        return Response(text, media_type=_STATIC[name], headers={"cache-control": "max-age=60"})


class _Guard:
    """Refuses foreign hosts and large bodies, and gives every response the headers that keep scripts out."""

    def __init__(self, app: Any, sessions: Sessions) -> None:
        self._app, self._sessions = app, sessions

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        from starlette.requests import Request
        from starlette.responses import PlainTextResponse

        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Any) -> None:
            if message["type"] == "http.response.start":
                present = {name for name, _ in message["headers"]}
                extra = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*message["headers"], *(pair for pair in extra if pair[0] not in present)]
            await send(message)

        request = Request(scope)
        if not self._sessions.is_own_host(request.headers.get("host", "")):
            await PlainTextResponse("this host's name is not the desk's", 421)(scope, receive, guarded)
        elif (_number(request.headers.get("content-length", "0"))) > _MOST_BYTES:
            await PlainTextResponse("the form is too large", 413)(scope, receive, guarded)
        else:
            await self._app(scope, receive, guarded)


async def _in_thread(work: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
    from starlette.concurrency import run_in_threadpool

    return await run_in_threadpool(work, *arguments, **options)


async def _form(request: Request) -> Form:
    """Return the fields of a form; a body that is too large or is none has no field."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _MOST_BYTES:
            return {}
    try:
        return parse_qs(body.decode(), keep_blank_values=True, max_num_fields=1000, errors="strict")
    except ValueError:
        return {}


def _one(form: Form, name: str) -> str:
    return form.get(name, [""])[-1]


def _order(given: str | None) -> str:
    return given if given in ORDERS else "least"


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else -1


def _seconds(text: str) -> float | None:
    """Return how long a product was looked at; None where the page did not say, or nobody was there."""
    number = _number(text)
    return number / 1000 if 0 < number < 3_600_000 else None


def _place(path: str, order: str, facet: str) -> str:
    return f"{path}?{urlencode({'order': order} | ({'facet': facet} if facet else {}))}"


def _decision(action: str, tags: list[str], given: list[str]) -> tuple[Decision, list[str]]:
    """Return what a form decides. Raises DataError: it decides nothing."""
    if action == "skip":
        return "skip", []
    if action == "none":
        return "change", []
    if action != "save":
        raise DataError("Not kept: the form says neither save, none nor skip")
    if not tags:
        raise DataError("Not kept: no tag is chosen. Choose one, or say that none fits (0)")
    if set(tags) == set(given):
        return "accept", given
    return "change", tags
