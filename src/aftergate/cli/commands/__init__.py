"""Sub-commands, one module a subject, each with `register(app)`: found by being here."""

from __future__ import annotations

import importlib
import pkgutil

from cyclopts import App


def register_all(app: App) -> None:
    """Add every sub-command. The modules import what they need inside their functions, so that `--help` stays quick."""
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda m: m.name):
        importlib.import_module(f"{__name__}.{module.name}").register(app)
