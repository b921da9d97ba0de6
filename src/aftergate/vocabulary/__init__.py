"""The words everyone shares: events, identities, credentials, origins, findings.

Times are integers, milliseconds since 1970 UTC. Names follow OCSF where OCSF has the field.
Shared values (Action, Actor, Agent, Origin, Shape) are interned: one object for each distinct value
within a run, compared by identity. What varies from record to record is on Event and Detail.
"""

from __future__ import annotations

from aftergate.vocabulary.details import NO_DETAIL, Change, Detail, Finding, Subject, Target
from aftergate.vocabulary.events import NO_AGENT, NO_ORIGIN, Action, Actor, Agent, Event, Origin, Plain, Shape
from aftergate.vocabulary.words import (
    GAP_MS,
    RANK,
    REGISTERED_TAGS,
    SEVERITIES,
    SILENT,
    UNREGISTERED,
    VOLUME_FLOOR,
    Bit,
    Kind,
    Severity,
    Tag,
)

__all__ = [
    "GAP_MS",
    "NO_AGENT",
    "NO_DETAIL",
    "NO_ORIGIN",
    "RANK",
    "REGISTERED_TAGS",
    "SEVERITIES",
    "SILENT",
    "UNREGISTERED",
    "VOLUME_FLOOR",
    "Action",
    "Actor",
    "Agent",
    "Bit",
    "Change",
    "Detail",
    "Event",
    "Finding",
    "Kind",
    "Origin",
    "Plain",
    "Severity",
    "Shape",
    "Subject",
    "Tag",
    "Target",
]
