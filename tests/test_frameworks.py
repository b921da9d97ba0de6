"""Ids are those that the frameworks publish."""

from __future__ import annotations

import re

import pytest

from aftergate import frameworks


@pytest.mark.parametrize("code", ["T1550.001", "AML.T0053", "NHI7", "PR.AA-01"])
def test_published_ids_are_known(code: str) -> None:
    assert frameworks.check(code)
    assert frameworks.title(code)
    assert frameworks.framework(code) in frameworks.VERSIONS


@pytest.mark.parametrize("code", ["T9999", "t1550.001", "NHI-03", "NHI11", "DE.CM-1", "AML.T9999", ""])
def test_others_are_not(code: str) -> None:
    assert not frameworks.check(code)
    assert frameworks.title(code) is None


def test_every_id_has_its_frameworks_form_and_every_part_its_whole() -> None:
    assert all(re.fullmatch(r"T\d{4}(\.\d{3})?", code) for code in frameworks.ATTACK)
    assert all(re.fullmatch(r"AML\.T\d{4}(\.\d{3})?", code) for code in frameworks.ATLAS)
    assert all(re.fullmatch(r"[A-Z]{2}\.[A-Z]{2}-\d{2}", code) for code in frameworks.CSF)
    assert all(code.partition(".")[0] in frameworks.ATTACK for code in frameworks.ATTACK)
    assert len(frameworks.NHI) == 10
