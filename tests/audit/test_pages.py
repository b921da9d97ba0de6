"""The pages about the log say what the code says."""

from __future__ import annotations

import re
from fnmatch import fnmatch
from pathlib import Path

from aftergate.audit.bundle import FORMAT
from aftergate.audit.evidence import FORMS
from aftergate.audit.findings import STEPS
from aftergate.audit.records import PERSONAL_TYPES, RECORD_TYPES, Record

DOCS = Path(__file__).resolve().parents[2] / "docs"


def page(name: str) -> str:
    return (DOCS / name).read_text("utf-8")


def test_every_record_type_has_its_row_and_no_other() -> None:
    table = page("formats/audit-record.md").split("## Types")[1]
    told = [word for line in table.splitlines() if line.startswith("| `") for word in re.findall(r"`([a-z_.*]+)`", line.split("|")[1])]
    assert all(any(fnmatch(kind, pattern) for pattern in told) for kind in RECORD_TYPES), RECORD_TYPES
    assert all(any(fnmatch(kind, pattern) for kind in RECORD_TYPES) for pattern in told), told


def test_every_member_and_every_personal_type_is_told() -> None:
    text = page("formats/audit-record.md")
    assert all(f"`{name}`" in text for name in Record.__struct_fields__)
    assert all(name in text for name in PERSONAL_TYPES)


def test_the_steps_the_format_and_the_forms_are_told() -> None:
    assert all(title in page("audit.md") for title in STEPS.values())
    assert FORMAT in page("formats/audit-bundle.md")
    assert all(f"`{form}`" in page("formats/audit-evidence.md") for form in FORMS)


def test_the_settings_it_names_exist() -> None:
    from aftergate.settings import rows

    named = set(re.findall(r"`(keep_[a-z_]+|checkpoint_s|decision_flush_ms)`", page("audit.md")))
    assert named
    assert named <= {row.name for row in rows()}
