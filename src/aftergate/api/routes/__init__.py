"""Routes, one module a subject, each with its `ROUTES`: found by being here."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Callable
from typing import Any

from litestar.concurrency import sync_to_thread
from litestar.handlers import HTTPRouteHandler

from aftergate.api.openapi import secured


def all_routes() -> list[Any]:
    found: list[Any] = []
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda m: m.name):
        found += importlib.import_module(f"{__name__}.{module.name}").ROUTES
    for handler in found:
        if isinstance(handler, HTTPRouteHandler) and handler.sync_to_thread:
            # Litestar 2.25 wraps the first of two handlers of one path twice, and the call then gives a coroutine instead of an answer. A handler
            # that is a coroutine function already is left alone.
            handler._fn = _threaded(handler.fn)  # noqa: SLF001
            handler.sync_to_thread = None
    return secured(found)


def _threaded(work: Callable[..., Any]) -> Callable[..., Any]:
    """The same, run in a worker thread."""

    @functools.wraps(work)
    async def run(*args: Any, **kwargs: Any) -> Any:
        return await sync_to_thread(work, *args, **kwargs)

    return run
