"""The process that splits the requests of an endpoint among its deployments.

Run as ``python -m mnist_deploy.local.core.router FD`` with the endpoint's listening socket. The
routing table arrives as lines of JSON on standard input (see `RoutingTable`); each line is
acknowledged on standard output as soon as it is applied. The process ends with its standard input.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from aiohttp import ClientError, ClientSession, ClientTimeout, UnixConnector, web
from yarl import URL

from ..authorization import is_authorized

DEPLOYMENT = "azureml-model-deployment"  # header: asks for a deployment by its name
BODY_LIMIT = 256 << 20  # bytes
SILENCE_LIMIT = 30.0  # seconds that a sender may pause within a request
IDLE_LIMIT = 60.0  # seconds that a connection is kept on which no request comes
LAST_CALL = 1.0  # seconds without a request, at the end, after which connections are closed
DRAIN_LIMIT = 60.0  # seconds in which what was begun has to be answered at the end
LONGEST_LINE = 1 << 20  # bytes of standard input
MIRROR_QUEUE = 64  # chunks that a copy may lag behind before it is given up
MOST_MIRRORS = 64  # copies at once
HOP_BY_HOP = {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding",
              "upgrade"}  # fmt: skip


@dataclass
class Backend:
    """One deployment.

    Attributes
    ----------
    socket : str
        Path of the UNIX socket where its containers accept.
    share, mirror : float
        In percent: of the requests that name no deployment, and of those copies of such.
    problem : str or None
        Why nobody answers there.
    """

    socket: str
    share: float = 0
    mirror: float = 0
    problem: str | None = None
    waiting: set[asyncio.Task] = field(default_factory=set)


@dataclass
class RoutingTable:
    """A line of standard input.

    Attributes
    ----------
    number : int
        Repeated in the acknowledgement.
    keys : list of str or None
        One of them is asked for, or a token; None: nothing is.
    tokens : dict of str to float
        When each ends, in seconds since the epoch.
    closed : int
        The status where a deployment has a problem.
    """

    number: int
    targets: dict[str, Backend]
    keys: list[str] | None = None
    tokens: dict[str, float] = field(default_factory=dict)
    closed: int = 503

    @classmethod
    def parse(cls, line: bytes) -> RoutingTable:
        fields = json.loads(line)
        targets = {name: Backend(**target) for name, target in fields.pop("targets").items()}
        return cls(targets=targets, **fields)


class Refusal(Exception):
    """Ends a request with a status and a message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Router:
    """Answers requests by passing them on, as its routes say."""

    def __init__(self) -> None:
        self.routes = RoutingTable(0, {})
        self.ending = False  # no connection is kept any more
        self.heard = 0.0  # when the last request came, by the monotonic clock
        self._sessions: dict[str, ClientSession] = {}
        self._mirrors: set[asyncio.Task] = set()

    def apply(self, routes: RoutingTable) -> None:
        """Take new routes; who waits at a deployment that has closed by them is told at once."""
        before, self.routes = self.routes.targets, routes
        for name, target in routes.targets.items():
            target.waiting = before[name].waiting if name in before else target.waiting
            if target.problem is not None:
                for task in target.waiting:
                    task.cancel()

    async def close(self) -> None:
        for session in self._sessions.values():
            await session.close()

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        self.heard = time.monotonic()
        try:
            routes, authorization = self.routes, request.headers.get("Authorization", "")
            if request.path != "/" and not is_authorized(authorization, routes.keys, routes.tokens):
                raise Refusal(
                    401,
                    "This endpoint asks for a key or a token: send the header 'Authorization: "
                    "Bearer <key>'.",
                )
            if (request.content_length or 0) > BODY_LIMIT:
                raise too_large()
            if not request.raw_path.startswith("/"):
                raise Refusal(400, f"{request.raw_path} is no path.")
            name, target = self._choose(request.headers.get(DEPLOYMENT))
            return await self._pass_on(request, name, target)
        except Refusal as refusal:
            answer = web.json_response({"message": str(refusal)}, status=refusal.status)
            answer.force_close()  # whatever is left of its body
            return answer

    def _choose(self, asked: str | None) -> tuple[str, Backend]:
        targets = self.routes.targets
        if asked is not None:
            if asked not in targets:
                names = ", ".join(targets) or "none"
                raise Refusal(404, f"There is no deployment {asked} here. There is: {names}.")
            return asked, targets[asked]
        shares = [target.share for target in targets.values()]
        if not any(shares):
            raise Refusal(404, "No deployment of this endpoint gets any of its traffic.")
        [name] = random.choices(list(targets), shares)
        return name, targets[name]

    async def _pass_on(
        self, request: web.BaseRequest, name: str, target: Backend
    ) -> web.StreamResponse:
        if target.problem is not None:
            raise Refusal(self.routes.closed, target.problem)
        body = Body(request, self._mirror(request)) if request.body_exists else None
        task = asyncio.ensure_future(self._send(request, target, body))
        target.waiting.add(task)
        try:
            answer = await task
        except asyncio.CancelledError:
            raise Refusal(self.routes.closed, self._problem(name)) from None
        except (ClientError, OSError) as error:
            refusal = body.refusal if body is not None else None
            raise refusal or Refusal(502, f"{name} did not answer: {error}") from error
        finally:
            target.waiting.discard(task)
        async with answer:
            response = web.StreamResponse(
                status=answer.status, reason=answer.reason, headers=passed_on(answer.headers)
            )
            response.headers[DEPLOYMENT] = name
            if self.ending:
                response.force_close()
            await response.prepare(request)
            try:
                async for chunk in answer.content.iter_any():
                    await response.write(chunk)
            except (ClientError, OSError):  # cut off: not to be taken for the whole answer
                if request.transport is not None:
                    request.transport.abort()
                return response
            await response.write_eof()
            return response

    def _problem(self, name: str) -> str:
        target = self.routes.targets.get(name)
        return (target and target.problem) or f"{name} was deleted."

    async def _send(self, request: web.BaseRequest, target: Backend, body: Any) -> Any:
        return await self._session(target.socket).request(
            request.method,
            URL(f"http://deployment{request.raw_path}", encoded=True),
            headers=passed_on(request.headers),
            data=body,
            allow_redirects=False,
        )

    def _session(self, path: str) -> ClientSession:
        if path not in self._sessions:
            # A connection for each request: one that is kept could be closed just when a
            # container is stopped, and would let one of two containers do all the work.
            self._sessions[path] = ClientSession(
                connector=UnixConnector(path, force_close=True, limit=0),
                timeout=ClientTimeout(total=None),
                auto_decompress=False,
                skip_auto_headers=["User-Agent", "Content-Type", "Accept", "Accept-Encoding"],
            )
        return self._sessions[path]

    def _mirror(self, request: web.BaseRequest) -> list[asyncio.Queue[bytes]]:
        """Queues for copies of this request's body, each with somebody who sends it."""
        if DEPLOYMENT in request.headers:
            return []
        queues = []
        for target in self.routes.targets.values():
            drawn = target.problem is None and random.uniform(0, 100) < target.mirror
            if drawn and len(self._mirrors) < MOST_MIRRORS:
                queue: asyncio.Queue[bytes] = asyncio.Queue(MIRROR_QUEUE)
                task = asyncio.ensure_future(self._send_copy(request, target, queue))
                self._mirrors.add(task)
                task.add_done_callback(self._mirrors.discard)
                queues.append(queue)
        return queues

    async def _send_copy(
        self, request: web.BaseRequest, target: Backend, queue: asyncio.Queue[bytes]
    ) -> None:
        async def body() -> AsyncIterator[bytes]:
            while chunk := await asyncio.wait_for(queue.get(), SILENCE_LIMIT):
                yield chunk

        with contextlib.suppress(ClientError, OSError, asyncio.TimeoutError):
            async with await self._send(request, target, body()) as answer:
                await answer.read()


class Body:
    """The body of a request as it arrives; copies go to queues, as long as they keep up."""

    def __init__(self, request: web.BaseRequest, queues: list[asyncio.Queue[bytes]]) -> None:
        self._content = request.content
        self._queues = queues
        self.refusal: Refusal | None = None  # why it broke off

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = BODY_LIMIT
        while True:
            try:
                chunk = await asyncio.wait_for(self._content.readany(), SILENCE_LIMIT)
            except TimeoutError:
                self.refusal = Refusal(408, "The rest of the body did not come in time.")
                raise self.refusal from None
            left -= len(chunk)
            if left < 0:
                self.refusal = too_large()
                raise self.refusal
            self._copy(chunk)
            if not chunk:
                return
            yield chunk

    def _copy(self, chunk: bytes) -> None:
        for queue in list(self._queues):
            try:
                queue.put_nowait(chunk)
            except asyncio.QueueFull:  # it lags behind: it must not delay the original
                self._queues.remove(queue)


def too_large() -> Refusal:
    return Refusal(413, f"The body is larger than {BODY_LIMIT} bytes. Send smaller batches.")


def passed_on(headers: Any) -> Any:
    """Headers without those that are about one connection alone."""
    kept = headers.copy()
    for name in HOP_BY_HOP:
        kept.popall(name, None)
    return kept


async def serve(listener: socket.socket) -> None:
    """Ingress until standard input ends; or, after SIGTERM, until what was begun is answered."""
    loop, router, ended = asyncio.get_running_loop(), Router(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    lines = asyncio.StreamReader(limit=LONGEST_LINE)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    server = web.Server(
        router.answer, keepalive_timeout=IDLE_LIMIT, access_log=None, auto_decompress=False
    )
    runner = web.ServerRunner(server, shutdown_timeout=DRAIN_LIMIT)
    await runner.setup()

    async def listen() -> None:
        while line := await lines.readline():
            routes = RoutingTable.parse(line)
            router.apply(routes)
            if not runner.sites:
                await web.SockSite(runner, listener, backlog=1024).start()
            print(routes.number, flush=True)
        os._exit(0)  # the control plane is gone

    listening = asyncio.ensure_future(listen())
    await ended.wait()
    for site in runner.sites:
        await site.stop()
    router.ending, router.heard = True, time.monotonic()
    # Who still sends leaves with the answer; a connection that is closed under a request loses it.
    while (quiet := time.monotonic() - router.heard) < LAST_CALL:
        await asyncio.sleep(LAST_CALL - quiet)
    await runner.cleanup()
    listening.cancel()
    await router.close()


if __name__ == "__main__":
    asyncio.run(serve(socket.socket(fileno=int(sys.argv[1]))))
