"""The tables, one module a group, all on one `METADATA`; migrations make them, a test compares the two."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Final

from sqlalchemy import MetaData

METADATA: Final = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pk",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ix": "%(table_name)s_%(column_0_N_name)s_ix",
    }
)


def all_tables() -> MetaData:
    """Every table of every group."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return METADATA
