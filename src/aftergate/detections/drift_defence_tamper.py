"""Logging, detection or sign-in policy weakened by a session."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from aftergate.detections.api import Meta, Rule, on, subject_of
from aftergate.detections.conduct import Practice, automation, band, began, place_of, refused, session_key
from aftergate.detections.reasoning import established, span, when, who
from aftergate.lineage.tracking import Facts
from aftergate.vocabulary import Detail, Event, Tag
from aftergate.vocabulary.patterns import regex

# 3: blinds the defenders or drops a safeguard for everybody; 2: weakens one safeguard; 1: may; what is not named goes by its tags
_WEIGHT = {
    "cloudtrail:StopLogging": 3, "cloudtrail:DeleteTrail": 3, "cloudtrail:DeleteEventDataStore": 3, "cloudtrail:StopEventDataStoreIngestion": 3,
    "guardduty:DeleteDetector": 3, "securityhub:DisableSecurityHub": 3, "config:StopConfigurationRecorder": 3, "config:DeleteConfigurationRecorder": 3,
    "config:DeleteDeliveryChannel": 3, "organizations:LeaveOrganization": 3, "macie2:DisableMacie": 3, "ec2:DeleteFlowLogs": 3,
    "bedrock:DeleteModelInvocationLoggingConfiguration": 3, "system.log_stream.lifecycle.delete": 3, "system.log_stream.lifecycle.deactivate": 3,
    "audit_log_streaming.destroy": 3, "audit_log_stream.destroy": 3, "org.disable_two_factor_requirement": 3, "business.disable_two_factor_requirement": 3,
    "org.disable_saml": 3, "business.disable_saml": 3, "disable security defaults": 3,
    "logs:DeleteLogStream": 1, "logs:DeleteLogGroup": 1, "logs:DeleteSubscriptionFilter": 2, "logs:DeleteMetricFilter": 1, "cloudwatch:DeleteAlarms": 1,
    "monitoring:DeleteAlarms": 1, "cloudwatch:DisableAlarmActions": 1, "monitoring:DisableAlarmActions": 1, "events:RemoveTargets": 1, "events:DeleteRule": 1, "events:DisableRule": 1,
    "kms:ScheduleKeyDeletion": 1, "kms:DisableKey": 1, "config:DeleteConfigRule": 1, "waf:DeleteRule": 1, "waf-regional:DeleteRule": 1, "wafv2:DeleteRuleGroup": 1,
    "waf:DeleteRuleGroup": 1, "organizations:DetachPolicy": 2, "cloudtrail:StartLogging": 0, "cloudtrail:CreateTrail": 0, "cloudtrail:RemoveTags": 0,
    "config:StartConfigurationRecorder": 0, "guardduty:CreateIPSet": 2, "guardduty:UpdateIPSet": 2, "lambda:UpdateEventSourceMapping": 0, "delete named location": 1,
    "workflows.delete_workflow_run": 0,
}  # fmt: skip
_MISHAP = regex(
    r"throttl|limit.?exceeded|timeout|unavailable|internal|expired|dry.?run|already|validation|in.?use", re.IGNORECASE
)  # errors that tell no intent
_ADMIN_PORTS = (22, 23, 135, 139, 445, 1433, 1521, 2375, 3306, 3389, 5432, 5900, 5985, 6379, 9200, 27017)


class Detection(Rule):
    meta = Meta(
        slug="drift-defence-tamper",
        title="Logging or protection was weakened",
        severity="critical",
        about=(
            "A session stops a trail, deletes a detector or log stream, narrows what is recorded, switches a sign-in policy off or opens a firewall to "
            "everybody. Attackers do this to work unseen or to come back; administrators seldom need to."
        ),
        attack=("T1562.008", "T1556.009"),
        nhi=("NHI5",),
        needs=(("defence.change",), ("defence.weaken",)),
        traps=(
            "Changes that make a rule stricter or record more are no tampering: old and new value are compared.",
            "Policy rollouts step by step by the same administrator from the usual place.",
            "Pipelines that replace resources.",
        ),
        blind=("Settings whose log entry shows neither the old nor the new value are weighed by the operation's name.",),
        recommended=("Restore the setting", "End the session that changed it", "Look through what the session did while nobody watched"),
    )
    subscriptions = (on(tags=[Tag.DEFENCE_CHANGE, Tag.DEFENCE_WEAKEN]),)

    def start(self) -> None:
        self.practice = Practice()
        self.recorded: dict[str, int] = {}  # trail -> how much it recorded when last set
        self.acts: dict[str, dict[str, str]] = {}  # session -> weakening action -> event

    def step(self, event: Event, facts: Facts) -> None:
        actor = event.actor
        if (
            actor.first_party
            or actor.kind == "service"
            or (Tag.FACTOR_REMOVE in event.action.tags and Tag.DEFENCE_CHANGE not in event.action.tags)
        ):
            return
        denied = refused(event)
        if not event.ok and not denied and _MISHAP.search(event.shape.error or ""):
            return
        identity = facts.identity
        weight, what = self._weight(event)
        if weight == 0 or (not event.ok and not denied and weight < 3):
            return
        machine = automation(self.world, event, facts.session or facts.life)
        act = event.action.name
        habit = self.practice.habit(identity, act, event.time)
        if event.ok:
            self.practice.note(identity, act, event, machine)
        place = place_of(self.world, identity, event)
        points, reasons = (weight + (2 if weight == 3 else 1 if weight == 2 else 0)), [what]
        key = session_key(identity, event)
        done = self.acts.setdefault(key, {})
        if weight >= 2 and event.ok:
            done.setdefault(act, event.id)
        if not event.ok:
            points -= 2 if denied else 3
            reasons.append("the try was refused" if denied else f"the try failed ({event.shape.error})")
        if place.score:
            points += place.score
            reasons.append(place.why)
        if len(done) > 1:
            points += 2
            reasons.append(f"{len(done)} protections in one session")
        if event.agent.kind == "tool":
            points += 1
            reasons.append(f"with {event.agent.family}")
        known = established(identity, event.time)
        if known and began(identity, act, event.time) and weight >= 2:
            points += 1
            reasons.append("it never did this before")
        traps: list[str] = []
        if self.directory.is_deployer(identity.id) and not place.score:
            points -= 2
            traps.append("registered deployer")
        elif machine and not place.score:
            points -= 2
            traps.append("a pipeline that changes the control plane by trade")
        elif habit and place.score < 2:
            points -= 2
            traps.append("does this on other days too")
        elif known and not place.score and weight == 1:
            points -= 1
        severity = band(points, critical=7)
        if severity is None:
            return
        session = facts.life or facts.session
        since = f", {span(event.time - session.first)} into the session" if session is not None and session.count > 1 else ""
        on_what = f" on {event.target.rpartition('/')[2]}" if event.target else ""
        self.report(
            key,
            event,
            severity=severity,
            narrative=f"{who(event)}{on_what} at {when(event.time)}{since}: {'; '.join(reasons)}.",
            subject=subject_of(identity, event),
            evidence=done.values(),
            traps=traps,
        )

    def _weight(self, event: Event) -> tuple[int, str]:
        """How much an act weakens, and a phrase for it."""
        name, detail = event.action.name, event.d
        params: Mapping[str, Any] = detail.params or {}
        source = event.source
        if source.startswith("aws."):
            found = self._aws(name, params, event)
            if found is not None:
                return found, f"{name.partition(':')[2]} weakens what is recorded or protected" if found else ""
        elif source.startswith(("entra", "m365", "graph")):
            return _directory_policy(name, detail)
        named = _WEIGHT.get(name, _WEIGHT.get(name.lower()))
        if named is not None:
            return named, name
        lower = name.lower()
        if Tag.DEFENCE_WEAKEN in event.action.tags:
            if any(word in lower for word in ("log-stream", "log_stream", "sink", "deletelog", "audit")) and "audit-config" not in lower:
                return 3, f"{name}: records stop"
            if "audit-config" in lower:
                return (1 if automation(self.world, event, None) else 2), "what is audited was changed"
            return (1 if Tag.CI_RUN in event.action.tags or "environment" in lower else 2), name
        values = " ".join(f"{c.old}>{c.new}" for c in detail.changes).lower()
        if any(word in f"{c.name}".lower() for c in detail.changes for word in ("reuse", "less secure", "allow", "disable_", "disable ")):
            return (2, f"{name}: {detail.changes[0].name}") if "false>true" in values or "none>true" in values else (0, "")
        if any(
            pair in values
            for pair in (
                "true>false",
                "enabled>disabled",
                "active>inactive",
                "active>evaluate",
                "on>off",
                "required>optional",
                "none>false",
            )
        ):
            return 2, f"{name}: a protection was switched off"
        if "patch /api" in lower or "put /" in lower or "patch /" in lower:
            return (2, name) if params.get("disabled") is True or params.get("enabled") is False else (1, name)
        return (1, name) if source in ("okta", "auth0") or (source == "gcp.audit" and "update" in lower) else (0, "")

    def _aws(self, name: str, params: Mapping[str, Any], event: Event) -> int | None:
        if name == "cloudtrail:PutEventSelectors":
            now = _recorded(params)
            trail = str(params.get("trailName"))
            before = self.recorded.get(trail)
            if event.ok:
                self.recorded[trail] = now
            return 3 if now < 10 or (before is not None and now < before) else 0
        if name == "cloudtrail:UpdateTrail":
            off = [
                k
                for k in ("isMultiRegionTrail", "includeGlobalServiceEvents", "enableLogFileValidation", "isOrganizationTrail")
                if params.get(k) is False
            ]
            return 3 if off else 1 if params.get("s3BucketName") or params.get("kmsKeyId") == "" else 0
        if name == "cloudtrail:PutInsightSelectors":
            return 2 if not params.get("insightSelectors") else 0
        if name == "guardduty:UpdateDetector":
            return 3 if params.get("enable") is False else 0
        if name in ("guardduty:CreateFilter", "guardduty:UpdateFilter"):
            return 2 if params.get("action") == "ARCHIVE" else 0
        if name == "guardduty:ArchiveFindings" or name == "guardduty:UpdateMemberDetectors":
            return 1
        if name in ("ec2:AuthorizeSecurityGroupIngress", "ec2:AuthorizeSecurityGroupEgress"):
            return _opened(params) if name.endswith("Ingress") else 0
        if name == "ec2:ModifyInstanceMetadataOptions":
            return 2 if params.get("httpTokens") == "optional" else 0
        if name == "logs:PutRetentionPolicy":
            days = params.get("retentionInDays")
            return 1 if isinstance(days, int) and days < 7 else 0
        if name == "s3:PutBucketLogging":
            status = params.get("BucketLoggingStatus")
            return 2 if isinstance(status, dict) and not status.get("LoggingEnabled") else 0
        if name == "s3:PutBucketVersioning":
            text = json.dumps(params.get("VersioningConfiguration"))
            return 2 if "Suspended" in text or '"Disabled"' in text else 0
        if name == "s3:DeleteBucketEncryption":
            return 2
        if name.startswith("s3:PutBucketLifecycle"):
            text = json.dumps(params.get("LifecycleConfiguration"))
            return 1 if '"Days": 1}' in text or '"Days": 1,' in text else 0
        if name == "bedrock:PutModelInvocationLoggingConfiguration":
            return 0
        if name == "iam:UpdateAccountPasswordPolicy":
            return 0
        if name == "organizations:UpdatePolicy" or name == "organizations:AttachPolicy":
            return 0
        return None


def _recorded(params: Mapping[str, Any]) -> int:
    """How much a set of event selectors records: 10 and more with all management events, plus kinds and values of data."""
    total = 0
    for one in params.get("eventSelectors") or ():
        if isinstance(one, dict):
            whole = one.get("includeManagementEvents") is not False and one.get("readWriteType", "All") == "All"
            total += 10 if whole else 4 if one.get("includeManagementEvents") is not False else 0
            total += sum(1 + len(r.get("values") or ()) for r in one.get("dataResources") or () if isinstance(r, dict) and r.get("values"))
            total -= min(len(one.get("excludeManagementEventSources") or ()), 2)
    advanced = params.get("advancedEventSelectors")
    if isinstance(advanced, list):
        text = json.dumps(advanced)
        total += (10 if "Management" in text and "readOnly" not in text else 4 if "Management" in text else 0) + text.count("Data")
        total -= min(text.count("notEquals") + text.count("notStartsWith"), 2)
    return total


def _opened(params: Mapping[str, Any]) -> int:
    """2 for a way in for the whole internet to a port of administration or of data, or to all ports."""
    held = params.get("ipPermissions")
    items = held.get("items") if isinstance(held, dict) else None
    for one in [params, *(i for i in items or () if isinstance(i, dict))]:
        if not any(part in json.dumps(one) for part in ('/0"',)):
            continue
        low, high = one.get("fromPort"), one.get("toPort")
        if str(one.get("ipProtocol")) == "-1" or not isinstance(low, int) or not isinstance(high, int):
            if one is params and items:
                continue
            return 2
        if any(low <= port <= high for port in _ADMIN_PORTS):
            return 2
    return 0


def _directory_policy(name: str, detail: Detail) -> tuple[int, str]:
    """Weight of an Entra or Microsoft 365 policy change by what it changes."""
    lower = name.lower()
    changed = {c.name: (c.old or "", c.new or "") for c in detail.changes}
    if "disable security defaults" in lower:
        return 3, "security defaults were switched off"
    if "conditional access policy" in lower:
        old, new = changed.get("state", ("", ""))
        if lower.startswith("delete"):
            return 3, "a conditional access policy was deleted"
        if old == "enabled" and new and new != "enabled":
            return 3, f"a conditional access policy went from enabled to {new}"
        wider = "All" in changed.get("includeUsers", ("", ""))[1] or "All" in changed.get("includeApplications", ("", ""))[1]
        left_out = [k for k in changed if k.startswith("exclude") and len(changed[k][1]) > len(changed[k][0])]
        if "[weakened]" in lower and (not wider or left_out):
            return 2, f"a conditional access policy demands less: {', '.join(left_out or changed)}"
        return 0, ""
    if "strong authentication" in lower or "per-user mfa" in lower:
        return 2, "second factor no longer asked of a person"
    if lower.startswith(("delete", "disable", "remove")):
        return 2, name
    if "adminauditlogconfig" in lower or "auditbypass" in lower or "mailboxaudit" in lower:
        return 3, name
    return (1, name) if "authorization policy" in lower or "named location" in lower else (0, "")
