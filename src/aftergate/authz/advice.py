"""What would lift a forbid: read from the policy's annotations, checked when the set is loaded.

@id("pay-needs-fresh-login") @advice("step-up") @acr_values("urn:example:aal3") @max_age("300")
@id("pay-needs-approval") @advice("approval") @approvers("finance,treasury") @quorum("2") @ttl("600") @device_bound("true")
"""

from __future__ import annotations

import re
from typing import Any, Final, Literal

from msgspec import Struct

APPROVAL: Final = "approval"
STEP_UP: Final = "step-up"
KNOWN: Final = frozenset(
    {
        "id",
        "reason",
        "risk",
        "advice",
        "acr_values",
        "amr_values",
        "max_age",
        "approvers",
        "quorum",
        "ttl",
        "device_bound",
        "batch",
        "break_glass",
        "machine",
    }
)
_ONLY_STEP_UP: Final = ("acr_values", "amr_values", "max_age")
_ONLY_APPROVAL: Final = ("approvers", "quorum", "ttl", "device_bound", "batch", "break_glass", "machine")
_ACR: Final = re.compile(r'[^\s"\\]+\Z')
MAX_TTL_S: Final = 86_400


class Advice(Struct, frozen=True, omit_defaults=True):
    """What one forbid asks for. Ages and times to live are seconds."""

    kind: Literal["approval", "step-up"]
    policy: str
    reason: str = ""
    acr_values: tuple[str, ...] = ()
    amr_values: tuple[str, ...] = ()
    max_age_s: int | None = None
    approvers: tuple[str, ...] = ()  # groups; each approval comes from a member of one of them
    quorum: int = 1
    ttl_s: int = 0  # 0: the policy does not say, the server's setting holds
    device_bound: bool = False
    batch: bool = False  # one approval may cover a declared list
    break_glass: tuple[str, ...] = ()  # groups that may open it alone, with a reason and a review
    machine: str = ""  # action whose permit stands for a person's yes, asked with the same resource and context


def advice_of(policy: str, annotations: dict[str, Any], effect: str) -> tuple[Advice | None, list[str]]:
    """The advice of one policy and everything that is wrong with its annotations."""
    wrong: list[str] = []
    kind = annotations.get("advice")
    risk = annotations.get("risk")
    if risk is not None and risk not in ("high", "ordinary"):
        wrong.append(f'@risk("{risk}") must be "high" or "ordinary"')
    if "advice" not in annotations:
        stray = [name for name in (*_ONLY_STEP_UP, *_ONLY_APPROVAL) if name in annotations]
        wrong.extend(f'@{name} has no meaning without @advice("approval") or @advice("step-up")' for name in stray)
        return None, wrong
    if kind not in (APPROVAL, STEP_UP):
        return None, [*wrong, f'@advice("{kind or ""}") must be "approval" or "step-up"']
    if effect != "forbid":
        return None, [*wrong, "@advice belongs on a forbid: it says what would lift it"]
    other = _ONLY_STEP_UP if kind == APPROVAL else _ONLY_APPROVAL
    wrong.extend(f'@{name} does not go with @advice("{kind}")' for name in other if name in annotations)
    read = _Reader(annotations, wrong)
    if kind == STEP_UP:
        made = Advice(
            STEP_UP,
            policy,
            annotations.get("reason") or "",
            acr_values=read.words("acr_values"),
            amr_values=read.words("amr_values"),
            max_age_s=read.number("max_age", None, 0, 10 * 365 * 86_400),
        )
        if not made.acr_values:
            wrong.append('@advice("step-up") needs @acr_values: a step-up names the authentication it wants')
        wrong.extend(f"`{each}` cannot be an acr or amr value" for each in (*made.acr_values, *made.amr_values) if not _ACR.match(each))
        return made, wrong
    made = Advice(
        APPROVAL,
        policy,
        annotations.get("reason") or "",
        approvers=read.names("approvers"),
        quorum=read.number("quorum", 1, 1, 20) or 1,
        ttl_s=read.number("ttl", 0, 10, MAX_TTL_S) or 0,
        device_bound=read.flag("device_bound"),
        batch=read.flag("batch"),
        break_glass=read.names("break_glass"),
        machine=annotations.get("machine") or "",
    )
    if not made.approvers and not made.machine:
        wrong.append('@advice("approval") needs @approvers("group,...") or @machine("action")')
    if made.machine and made.quorum > 1 and not made.approvers:
        wrong.append("@quorum above 1 needs @approvers: a policy's yes counts once")
    return made, wrong


class _Reader:
    def __init__(self, annotations: dict[str, Any], wrong: list[str]) -> None:
        self.annotations = annotations
        self.wrong = wrong

    def words(self, name: str) -> tuple[str, ...]:
        return tuple((self.annotations.get(name) or "").split())

    def names(self, name: str) -> tuple[str, ...]:
        return tuple(part.strip() for part in (self.annotations.get(name) or "").split(",") if part.strip())

    def number(self, name: str, default: int | None, low: int, high: int) -> int | None:
        text = self.annotations.get(name)
        if name not in self.annotations:
            return default
        if text is None or not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
            self.wrong.append(f'@{name}("{text or ""}") must be a whole number from {low} to {high}')
            return default
        return int(text)

    def flag(self, name: str) -> bool:
        text = self.annotations.get(name)
        if name in self.annotations and text not in ("true", "false"):
            self.wrong.append(f'@{name}("{text or ""}") must be "true" or "false"')
        return text == "true"


def challenge(advice: tuple[Advice, ...]) -> str:
    """The value of `WWW-Authenticate` for a resource server to send on: RFC 9470, section 3. Empty if no step-up is asked.

    Several step-ups are joined: any of the acr values that all of them name, else those of the first, and the smallest age.
    """
    asked = [each for each in advice if each.kind == STEP_UP]
    if not asked:
        return ""
    acr, _, max_age = joined(asked)
    parts = [
        'Bearer error="insufficient_user_authentication"',
        'error_description="A different authentication level is required"',
        f'acr_values="{" ".join(acr)}"',
    ]
    if max_age is not None:
        parts.append(f'max_age="{max_age}"')
    return ", ".join(parts)


def joined(asked: list[Advice]) -> tuple[tuple[str, ...], tuple[str, ...], int | None]:
    """The acr values, amr values and greatest age in seconds that satisfy all step-ups at once, as far as that is possible."""
    common = [acr for acr in asked[0].acr_values if all(acr in each.acr_values for each in asked)]
    ages = [each.max_age_s for each in asked if each.max_age_s is not None]
    amr = tuple(dict.fromkeys(value for each in asked for value in each.amr_values))
    return tuple(common) or asked[0].acr_values, amr, min(ages) if ages else None
