"""Code run on machines, containers or functions through the control plane."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from aftergate.detections.api import Meta, Rule, on, subject_of
from aftergate.detections.conduct import Practice, automation, band, began, is_person, place_of, session_key
from aftergate.detections.reasoning import established, span, when, who
from aftergate.lineage.tracking import Facts
from aftergate.vocabulary import Event, Tag

# 3: a command or a way in on a machine; 2: code or start-up changed; 1: may; 0: the daily business of builds and deployments
_AWS = {
    "ssm:SendCommand": 3, "ssm:StartSession": 2, "ssm:ResumeSession": 1, "ssm:StartAutomationExecution": 1, "ssm:CreateAssociation": 2, "ssm:UpdateAssociation": 1,
    "ec2-instance-connect:SendSSHPublicKey": 3, "ec2-instance-connect:SendSerialConsoleSSHPublicKey": 3, "ec2-instance-connect:OpenTunnel": 2,
    "ec2:EnableSerialConsoleAccess": 2, "ecs:ExecuteCommand": 3, "lambda:UpdateFunctionCode": 2, "lambda:UpdateFunctionConfiguration": 0, "lambda:CreateFunction": 0,
    "lambda:PublishLayerVersion": 0, "ec2:AssociateIamInstanceProfile": 1, "ec2:ReplaceIamInstanceProfileAssociation": 2, "glue:UpdateDevEndpoint": 2, "glue:CreateDevEndpoint": 2,
    "sagemaker:CreateNotebookInstanceLifecycleConfig": 1, "sagemaker:UpdateNotebookInstanceLifecycleConfig": 2, "codebuild:UpdateProject": 1,
}  # fmt: skip
_MANY = 3


class Detection(Rule):
    meta = Meta(
        slug="drift-remote-execution",
        title="Code run on machines through the control plane",
        severity="high",
        about=(
            "A session sends commands to machines, opens a shell in a container, pushes an SSH key, or changes the code or start-up script of a machine "
            "or function, and neither it nor its role does so as a rule. From there the machine's own credentials are one step away."
        ),
        attack=("T1651", "T1021.008", "T1059.009"),
        nhi=("NHI5",),
        needs=(("remote.exec",),),
        traps=(
            "Deployment pipelines change function code and start builds all day.",
            "People on call who open shells on other days too.",
            "Settings of functions and machines other than code, layers and start-up scripts.",
        ),
        blind=("What was run is not in the control plane's log.", "Shells opened with keys that lie on the machine already."),
        recommended=(
            "End the session and the command or shell",
            "Rotate the credentials of the machines it reached",
            "Restore code, layers and start-up scripts",
        ),
    )
    subscriptions = (on(tags=[Tag.REMOTE_EXEC]),)

    def start(self) -> None:
        self.practice = Practice()
        self.reached: dict[str, set[str]] = {}  # session -> machines and functions
        self.users: dict[str, set[str]] = {}  # action -> identities that did it, up to some

    def step(self, event: Event, facts: Facts) -> None:
        if event.actor.first_party or event.actor.kind == "service":
            return
        weight, what = _weight(event)
        if weight == 0:
            return
        identity = facts.identity
        act = event.action.name
        machine = automation(self.world, event, facts.session or facts.life)
        habit = self.practice.habit(identity, act, event.time)
        if event.ok:
            self.practice.note(identity, act, event, machine)
        users = self.users.setdefault(act, set())
        common = len(users - {identity.id}) >= 3
        if len(users) < 50 and event.ok:
            users.add(identity.id)
        key = session_key(identity, event)
        reached = self.reached.setdefault(key, set())
        reached.update(t.id for t in event.d.targets[:50] if not t.type.endswith("documentName"))
        points, reasons = weight, [what]
        place = place_of(self.world, identity, event)
        if place.score:
            points += place.score
            reasons.append(place.why)
        if event.agent.kind == "tool":
            points += 1
            reasons.append(f"with {event.agent.family}")
        known = established(identity, event.time)
        new = began(identity, act, event.time)
        if new:
            points += 1
            reasons.append("it never did this before")
        if len(reached) >= _MANY and weight >= 2:
            points += 1
            reasons.append(f"on {len(reached)} machines or functions")
        traps: list[str] = []
        if not event.ok:
            points -= 1
            traps.append("the try was refused")
        if machine and not place.score:
            points -= 3
            traps.append("a pipeline that changes the control plane by trade")
        elif habit and place.score < 2:
            points -= 2
            traps.append("does this on other days too")
        elif common and not place.score:
            points -= 1
            traps.append("several colleagues do this")
        elif known and not new and not place.score:
            points -= 1
        elif not known and weight == 2 and is_person(event):
            points += 1
            reasons.append("by hand")
        elif not known and not is_person(event) and (weight < 3 or event.actor.kind == "workload"):
            points -= 1
        severity = band(points)
        if severity is None:
            return
        session = facts.life or facts.session
        since = f", {span(event.time - session.first)} into the session" if session is not None and session.count > 1 else ""
        on_what = next((t.id for t in event.d.targets if not t.type.endswith("documentName")), event.target)
        target = f" on {on_what.rpartition('/')[2]}" if on_what else ""
        self.report(
            key,
            event,
            severity=severity,
            narrative=f"{who(event)}{target} at {when(event.time)}{since}: {'; '.join(r for r in reasons if r)}.",
            subject=subject_of(identity, event),
            traps=traps,
        )


def _weight(event: Event) -> tuple[int, str]:
    """How much of a way in an act is, and a phrase for it."""
    params: Mapping[str, Any] = event.d.params or {}
    name = event.action.name
    if event.source.startswith("aws."):
        if name == "ec2:ModifyInstanceAttribute":
            script = "userData" in params or params.get("attribute") == "userData"
            return (3, "the start-up script of a machine was changed") if script else (0, "")
        if name == "lambda:UpdateFunctionConfiguration":
            layers = params.get("layers")
            return (3, "a layer was put into a function") if layers else (0, "")
        if name == "lambda:UpdateFunctionCode":
            return (1 if params.get("dryRun") is True else 2), "the code of a function was replaced"
        if name == "codebuild:UpdateProject" and params.get("source") is None:
            return 0, ""
        return _AWS.get(name, 0), name.partition(":")[2]
    if event.source == "gcp.audit":
        keys = [k for k in params.get("metadata_keys") or () if isinstance(k, str)]
        if "metadata" in name.lower():
            script = [
                k
                for k in keys
                if "startup-script" in k or "shutdown-script" in k or k in ("ssh-keys", "sshKeys", "windows-startup-script-ps1")
            ]
            return (3 if any("script" in k for k in script) else 2 if script else 0), f"instance metadata {', '.join(script)} was set"
        if "pods" in name and ("exec" in name or "attach" in name or "ephemeral" in name):
            return 3, "a shell was opened in a container"
        if "serialport" in name:
            return 3, "a serial console was opened"
        if name == "iap.AuthorizeUser:tunnel":
            return 1, "a tunnel to a machine was opened"  # the machine still asks for its own login
        return (1, name) if event.action.service not in ("cloudfunctions", "run") else (1, "the code of a function was replaced")
    if event.source == "kubernetes.audit":
        if "portforward" in name or "proxy" in name:
            return 1, name
        return 3, "a shell was opened in a container" if "exec" in name else name
    if event.source.startswith("azure"):
        return (3 if re.search(r"runcommand|extensions|serialconsole|serialports|applications/versions", name) else 2), name.rpartition(
            "microsoft."
        )[2]
    return 2, name
