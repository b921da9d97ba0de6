"""AWS CloudTrail: management, data and sign-in events.

Fields: https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-event-reference-record-contents.html
Where it misleads: `sourceIPAddress` may be a service's name or `AWS Internal`; calls through VPC endpoints carry private addresses; an
assumed role in another account stands twice; of an OIDC token only subject and audience are kept.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import Raw

from aftergate.connectors.aws.operations import describe, operation_name
from aftergate.connectors.aws.records import EMPTY, Context, Object, Record, Sent, StsAnswer, StsAsked, Who
from aftergate.connectors.base import Source
from aftergate.errors import NotMine, Reject
from aftergate.events.clock import from_iso, from_us_text
from aftergate.events.interning import Interner
from aftergate.events.redact import secret_key
from aftergate.vocabulary import NO_ORIGIN, Actor, Agent, Change, Detail, Event, Kind, Origin, Shape, Target
from aftergate.vocabulary.patterns import regex

SLUG = "aws.cloudtrail"


class _Caller:
    """What one `userIdentity` says, and the shapes seen with it."""

    __slots__ = ("actor", "by", "by_service", "credential", "mfa", "provider", "session", "shapes", "source_identity", "subject", "type")

    def __init__(
        self, actor: Actor, credential: str | None, session: str | None, shapes: dict[tuple[str | None, ...], tuple[Shape, int]]
    ) -> None:
        self.actor = actor
        self.credential = credential
        self.session = session
        self.type = ""
        self.by: str | None = None
        self.by_service = False  # a service calls on the caller's behalf: the address is not the caller's
        self.subject: str | None = None
        self.provider: str | None = None
        self.source_identity: str | None = None
        self.mfa: bool | None = None
        self.shapes = shapes  # one dict for all sessions of an actor


_GRANTS = {
    "AssumeRole": "assume_role", "AssumeRoleWithWebIdentity": "web_identity", "AssumeRoleWithSAML": "saml", "AssumeRoot": "assume_role",
    "GetSessionToken": "session_token", "GetFederationToken": "federation_token", "GetRoleCredentials": "sso",
}  # fmt: skip
_SPLIT = frozenset({"ec2:DescribeInstanceAttribute"})  # calls whose parameter decides what they do
_TOLD = frozenset(
    {Kind.SIGN_IN, Kind.DATA_READ, Kind.IDENTITY_LIFECYCLE, Kind.CREDENTIAL_CREATE}
)  # kinds of calls that have a detail, tags or not
DATA: Final = 1  # what a call has beyond its shape
SECRET: Final = 2
TOKEN: Final = 3
OTHER: Final = 4
_RUN = regex(r"(?<!\d)(\d{6,19})(?:[-_.](\d{1,3}))?(?!\d)")
_INSTANCE = regex(r"i-[0-9a-f]{8,17}\Z")
_AWS_SECRET_KEYS = frozenset(
    {"sessionToken", "secretAccessKey", "password", "SecretString", "secretString", "SAMLAssertion", "webIdentityToken"}
)


def _kind_of_role(role: str, session_name: str) -> str:
    if "/aws-service-role/" in role:
        return "service"
    if "AWSReservedSSO_" in role or "@" in session_name:
        return "human"
    return "workload"


class CloudTrail:
    """One record a call. Caches callers by the bytes of `userIdentity`."""

    def __init__(self, intern: Interner) -> None:
        self.intern = intern
        self._decode = msgspec.json.Decoder(Record).decode
        self._context = msgspec.json.Decoder(Context | None).decode
        self._callers: dict[str, _Caller] = {}  # by key: the one seen last
        self._others: dict[tuple[str | None, ...], _Caller] = {}  # without a key, and those that take turns with one
        self._nobody = _Caller(intern.actor("unidentified caller"), None, None, {})
        self._shapes: dict[tuple[Actor, str, bool], dict[tuple[str | None, ...], tuple[Shape, int]]] = {}
        self._sent = msgspec.json.Decoder(Sent | None).decode
        self._object = msgspec.json.Decoder(Object | None).decode
        self._sts_asked = msgspec.json.Decoder(StsAsked | None).decode
        self._sts_answer = msgspec.json.Decoder(StsAnswer | None).decode
        self._read: dict[tuple[bytes, str | None, bool | None, str | None, str | None], Detail] = {}  # details of secret reads, which recur

    def parse(self, line: bytes) -> Event:
        record = self._decode(line)
        name = record.eventName
        moment = record.eventTime
        if name is None or moment is None or record.eventSource is None:
            raise NotMine("not a CloudTrail record: `eventName`, `eventTime` or `eventSource` is missing")
        who = record.userIdentity
        if who is None:
            caller = self._nobody
        else:
            key_id = who.accessKeyId
            found_caller = self._callers.get(key_id) if key_id is not None else None
            if found_caller is None or found_caller.by != who.invokedBy:
                found_caller = self._caller(who, first=found_caller is None)
            caller = found_caller
        key = (record.eventSource, name, record.sourceIPAddress, record.userAgent, record.errorCode, record.recipientAccountId)
        found = caller.shapes.get(key)
        if found is None:
            found = self._shape(caller, record, key)
        shape, more = found
        event = Event(from_iso(moment), record.eventID or self._no_id(line), shape, caller.credential, caller.session)
        if more:
            if more == DATA:
                self._data(event, record)
            elif more == SECRET:
                self._secret(event, record, caller)
            elif more == TOKEN:
                self._sts(event, record, caller)
            else:
                self._fill(event, record, caller)
        return event

    @staticmethod
    def _no_id(line: bytes) -> str:
        import hashlib

        return hashlib.sha256(line.removesuffix(b"\n")).hexdigest()[:32]

    def _caller(self, who: Who, *, first: bool) -> _Caller:
        """A caller other than the last one with its key. The first with a key is kept by the key alone, since most keys have but one."""
        made: _Caller | None = None
        key = who.accessKeyId
        if first and key is not None:
            made = self._make_caller(who)
        else:
            known = (who.arn, key, who.principalId, who.invokedBy, who.userName, who.accountId)
            made = self._others.get(known)
            if made is None:
                made = self._others[known] = self._make_caller(who)
        if len(self._others) + len(self._callers) > 500_000:
            self._others.clear()
            self._callers.clear()
        if key is not None:
            self._callers[key] = made
        return made

    def _make_caller(self, who: Who) -> _Caller:
        actor_of = self.intern.actor
        context = self._context(who.sessionContext) if who.sessionContext is not EMPTY else None
        account = who.accountId
        credential = who.accessKeyId or who.credentialId or None
        session: str | None = None
        kind = who.type or ""
        if kind == "AssumedRole" or (kind == "" and who.arn and ":assumed-role/" in who.arn):
            arn = who.arn or ""
            issuer = context.sessionIssuer if context is not None else None
            role = (issuer.arn if issuer is not None and issuer.arn else None) or _role_of(arn, account)
            name = arn.rpartition("/")[2]
            session = arn or None
            of = _kind_of_role(role, name)
            if of == "human":
                who_id = name.lower() if "@" in name else name or role
                actor = actor_of(who_id, (role, *([who.principalId] if who.principalId else [])), "human", account, None, role)
            else:
                actor = actor_of(
                    role or arn or "unidentified role", (), of, account, role.rpartition("/")[2] or None, role or None, of == "service"
                )
        elif kind == "AWSService" or (who.invokedBy and not who.arn):
            name = who.invokedBy or who.principalId or "aws"
            actor = actor_of(name, (), "service", account, None, None, True)
        elif kind == "Root":
            actor = actor_of(who.arn or f"arn:aws:iam::{account}:root", (), "human", account, f"root of {account}")
        elif kind in ("WebIdentityUser", "SAMLUser"):
            actor = actor_of(
                who.userName or who.principalId or "federated caller", (who.principalId,) if who.principalId else (), "unknown", account
            )
        elif kind == "AWSAccount":
            actor = actor_of(who.principalId or f"account {account}", (), "unknown", account, f"account {account}")
        elif kind in ("IdentityCenterUser", "Unknown") and who.onBehalfOf is not None and who.onBehalfOf.userId:
            actor = actor_of(who.onBehalfOf.userId, (who.userName.lower(),) if who.userName else (), "human", account)
        elif who.arn:
            names = (who.principalId,) if who.principalId and who.principalId != who.arn else ()
            actor = actor_of(who.arn, names, "unknown", account, who.userName)
        else:
            shown = who.userName or who.principalId
            actor = actor_of(shown.lower() if shown and "@" in shown else shown or "unidentified caller", (), "unknown", account)
        behalf = bool(who.invokedBy and who.arn)
        shapes = self._shapes.get((actor, kind, behalf))
        if shapes is None:
            shapes = self._shapes[actor, kind, behalf] = {}
        caller = _Caller(actor, credential, session, shapes)
        caller.by = who.invokedBy
        caller.by_service = behalf
        caller.type = kind
        caller.subject = who.userName if kind in ("WebIdentityUser", "SAMLUser") else None
        caller.provider = who.identityProvider or (
            context.webIdFederationData.federatedProvider if context is not None and context.webIdFederationData is not None else None
        )
        if context is not None:
            caller.source_identity = context.sourceIdentity
            if context.attributes is not None and context.attributes.mfaAuthenticated is not None:
                caller.mfa = str(context.attributes.mfaAuthenticated).lower() == "true"
        return caller

    def _shape(self, caller: _Caller, record: Record, key: tuple[str | None, ...]) -> tuple[Shape, int]:
        source = record.eventSource or ""
        service = source.removesuffix(".amazonaws.com").removesuffix(".amazonaws.com.cn")
        name = f"{service}:{operation_name(record.eventName or '')}"
        action = self.intern.action(SLUG, name, describe)
        origin = self._origin(record, by_service=caller.by_service)
        agent: Agent = self.intern.agent(record.userAgent)
        silent = None
        if action.kind in (Kind.TOKEN_ISSUE, Kind.TOKEN_EXCHANGE) and caller.actor.kind != "human":
            silent = (
                "background_service"
                if caller.actor.kind == "service"
                else "scheduled_workload"
                if caller.type == "WebIdentityUser"
                else "background_service"
            )
        shape = self.intern.shape(
            SLUG,
            action,
            caller.actor,
            origin,
            agent,
            record.errorCode,
            silent=silent,
            account=record.recipientAccountId or caller.actor.account,
        )
        kind = action.kind
        if kind is Kind.DATA_READ and not action.tags:
            more = DATA
        elif kind is Kind.SECRET_READ:
            more = SECRET
        elif kind is Kind.TOKEN_EXCHANGE or kind is Kind.TOKEN_ISSUE:
            more = TOKEN
        elif action.tags or name in _SPLIT or kind in _TOLD:
            more = OTHER
        else:
            more = 0
        made = (shape, more)
        if len(caller.shapes) > 20_000:
            caller.shapes.clear()
        caller.shapes[key] = made
        return made

    def _origin(self, record: Record, *, by_service: bool) -> Origin:
        ip = record.sourceIPAddress
        if not ip:
            return NO_ORIGIN
        if by_service:
            return self.intern.origin(ip, trustworthy=False)
        if record.vpcEndpointId is not None:
            return self.intern.origin(ip, trustworthy=not ip.startswith(("10.", "172.", "192.168.", "fd", "100.64.")))
        return self.intern.origin(ip)

    # -- what only some calls have ------------------------------------------------------------------------------------

    def _fill(self, event: Event, record: Record, caller: _Caller) -> None:
        action = event.shape.action
        request = _object(record.requestParameters)
        if action.name in _SPLIT:
            if request.get("attribute") != "userData":
                return
            self._rename(event, f"{action.name}.userData")
            action = event.shape.action
        response = _object(record.responseElements)
        service, _, call = action.name.partition(":")
        detail = Detail(mfa=caller.mfa, linked=record.sharedEventID, subject=caller.subject, issuer=caller.provider)
        params: dict[str, Any] = {}
        if record.awsRegion is not None:
            params["region"] = record.awsRegion
        if caller.source_identity:
            params["source_identity"] = caller.source_identity
        if record.sessionCredentialFromConsole is not None and str(record.sessionCredentialFromConsole).lower() == "true":
            params["from_console"] = True
        if record.errorMessage:
            detail.status = record.errorMessage[:200]
        if service == "signin":
            self._console(detail, params, call, record, response)
        elif service == "iam":
            self._iam(event, detail, params, call, request, response, record.recipientAccountId or caller.actor.account)
            if call == "UpdateAccessKey":
                self._switched(event, request)
        else:
            _resource(event, detail, service, request)
            if isinstance(request.get("userName"), str) and detail.targets:
                detail.targets = (Target(detail.targets[0].id, detail.targets[0].type, (request["userName"],)), *detail.targets[1:])
            for name, value in request.items():
                if name not in _AWS_SECRET_KEYS and not secret_key(name) and len(params) < 40:
                    params[name] = _short(value)
        detail.params = params or None
        event.detail = detail

    def _data(self, event: Event, record: Record) -> None:
        """Bytes and place of a data event. A malformed part of it is left out, the event stays."""
        try:
            extra = record.additionalEventData
            sent = self._sent(extra) if extra is not EMPTY else None
            if sent is not None and sent.bytesTransferredOut is not None and 0 < sent.bytesTransferredOut < 1e18:
                event.size = int(sent.bytesTransferredOut)
            request = record.requestParameters
            asked = self._object(request) if request is not EMPTY else None
            if asked is not None:
                event.target = asked.bucketName or asked.tableName or asked.queryExecutionId
        except msgspec.ValidationError:
            return

    def _secret(self, event: Event, record: Record, caller: _Caller) -> None:
        """Which secrets were asked for. The same request by callers alike shares one Detail."""
        name = event.shape.action.name
        raw = bytes(record.requestParameters)
        key = (raw, record.awsRegion, caller.mfa, record.errorMessage, name)
        found = self._read.get(key)
        if found is None:
            request = _object(record.requestParameters)
            params: dict[str, Any] = {k: _short(v) for k, v in list(request.items())[:20] if k not in _AWS_SECRET_KEYS}
            if record.awsRegion is not None:
                params["region"] = record.awsRegion
            found = Detail(mfa=caller.mfa, params=params or None, status=record.errorMessage[:200] if record.errorMessage else None)
            found.objects = _secrets(request, found)
            if len(self._read) > 50_000:
                self._read.clear()
            self._read[key] = found
        event.detail = found
        if found.targets:
            event.target = found.targets[0].id

    def _sts(self, event: Event, record: Record, caller: _Caller) -> None:
        """A mint: the key it issues, the role, the session's name and the CI run that stands in it."""
        asked_raw, answer_raw = record.requestParameters, record.responseElements
        asked = self._sts_asked(asked_raw) if asked_raw is not EMPTY else None
        answer = self._sts_answer(answer_raw) if answer_raw is not EMPTY else None
        call = event.shape.action.name.partition(":")[2]
        detail = Detail(
            mfa=caller.mfa, linked=record.sharedEventID, subject=caller.subject, issuer=caller.provider, grant=_GRANTS.get(call, call)
        )
        params: dict[str, Any] = {}
        if caller.source_identity:
            params["source_identity"] = caller.source_identity
        if answer is not None:
            if answer.credentials is not None and answer.credentials.accessKeyId:
                detail.issued, detail.issued_class = (answer.credentials.accessKeyId,), "session_key"
                if answer.credentials.expiration:
                    detail.token_expires_at = from_us_text(answer.credentials.expiration)
            if answer.assumedRoleUser is not None and answer.assumedRoleUser.arn:
                params["assumed_role"] = answer.assumedRoleUser.arn
            detail.issuer = detail.issuer or answer.provider
            detail.subject = answer.subjectFromWebIdentityToken or detail.subject
        if asked is not None:
            if asked.durationSeconds is not None and 0 < asked.durationSeconds < 10**7:
                detail.issued_ttl_s = asked.durationSeconds
            if asked.roleArn is not None:
                detail.targets = (Target(asked.roleArn, "role"),)
                event.target = asked.roleArn
            name = asked.roleSessionName
            if name is not None:
                params["role_session_name"] = name
                found = _RUN.search(name) if detail.grant == "web_identity" else None
                if found is not None:
                    detail.run = found.group(1)
                    detail.attempt = int(found.group(2)) if found.group(2) else None
            if asked.sourceIdentity is not None:
                params["source_identity"] = asked.sourceIdentity
            if asked.policy is not None:
                params["policy"] = asked.policy[:2000]
            if asked.externalId is not None:
                params["external_id"] = asked.externalId[:200]
            if asked.serialNumber is not None:
                params["mfa_serial"] = asked.serialNumber[:200]
        detail.params = params or None
        event.detail = detail

    def _switched(self, event: Event, request: dict[str, Any]) -> None:
        """`UpdateAccessKey` ends or revives a key: the status tells, so it becomes part of the action's name."""
        status = request.get("status")
        if status in ("Active", "Inactive"):
            self._rename(event, f"iam:UpdateAccessKey.{status}")

    def _rename(self, event: Event, name: str) -> None:
        old = event.shape
        action = self.intern.action(SLUG, name, describe)
        event.shape = self.intern.shape(SLUG, action, old.actor, old.origin, old.agent, old.error, silent=old.silent, account=old.account)

    @staticmethod
    def _console(detail: Detail, params: dict[str, Any], call: str, record: Record, response: dict[str, Any]) -> None:
        extra = _object(record.additionalEventData)
        detail.interactive = call in ("ConsoleLogin", "SwitchRole")
        detail.grant = "login"
        used = extra.get("MFAUsed")
        if isinstance(used, str):
            detail.mfa = used == "Yes"
        outcome = response.get("ConsoleLogin") or response.get(call)
        if isinstance(outcome, str):
            detail.status = outcome
            params["outcome"] = outcome
        for name in ("SwitchFrom", "RedirectTo", "LoginTo", "MobileVersion"):
            if isinstance(extra.get(name), str):
                params[name] = extra[name][:200]

    def _iam(
        self,
        event: Event,
        detail: Detail,
        params: dict[str, Any],
        call: str,
        request: dict[str, Any],
        response: dict[str, Any],
        account: str | None,
    ) -> None:
        owner: str | None = None
        kind = ""
        for name, what in (("userName", "user"), ("roleName", "role"), ("groupName", "group"), ("instanceProfileName", "instance-profile")):
            value = request.get(name)
            if isinstance(value, str):
                owner, kind = value, what
                break
        nested = response.get("accessKey")
        if isinstance(nested, dict):
            if isinstance(nested.get("accessKeyId"), str):
                detail.issued, detail.issued_class = (nested["accessKeyId"],), "api_key"
            if owner is None and isinstance(nested.get("userName"), str):
                owner, kind = nested["userName"], "user"
        targets: list[Target] = []
        if owner is not None:
            arn = _answered_arn(response) or f"arn:aws:iam::{account}:{kind}/{owner}"
            targets.append(Target(arn, kind, (owner,)))
        elif call in ("CreateAccessKey", "DeleteAccessKey", "ChangePassword", "UpdateAccessKey"):
            targets.append(Target(event.shape.actor.id, "user"))
        key = request.get("accessKeyId")
        if isinstance(key, str):
            targets.append(Target(key, "access_key"))
            params["access_key"] = key
        for name in (
            "policyArn",
            "policyName",
            "policyDocument",
            "assumeRolePolicyDocument",
            "permissionsBoundary",
            "status",
            "groupName",
            "url",
            "openIDConnectProviderArn",
            "sAMLProviderArn",
            "name",
            "versionId",
            "setAsDefault",
            "clientIDList",
            "passwordResetRequired",
            "serialNumber",
        ):
            value = request.get(name)
            if value is not None:
                params[name] = _short(value)
        document = request.get("policyDocument") or request.get("assumeRolePolicyDocument")
        if isinstance(document, str):
            detail.changes = (Change("policy", None, document[:8000]),)
        if call == "CreateLoginProfile" or call == "UpdateLoginProfile":
            detail.issued_class = "password"
        detail.targets = tuple(targets)
        if targets:
            event.target = targets[0].id


def _role_of(arn: str, account: str | None) -> str:
    """The role's ARN from an assumed-role ARN (without its path, which that form does not carry)."""
    parts = arn.split(":assumed-role/")
    if len(parts) != 2:
        return arn
    return f"arn:aws:iam::{account or parts[0].rpartition(':')[2]}:role/{parts[1].partition('/')[0]}"


def _object(raw: Raw) -> dict[str, Any]:
    text = bytes(raw)
    if not text or text[:1] != b"{":
        return {}
    value = msgspec.json.decode(text)
    return value if isinstance(value, dict) else {}


def _short(value: Any, depth: int = 0) -> Any:
    """A JSON value cut to what a rule reads: long text cut, secrets out, three levels deep."""
    if isinstance(value, str):
        return value[:4000]
    if isinstance(value, (int, float, bool)) or value is None:
        return value
    if depth >= 5:
        return None
    if isinstance(value, list):
        return [_short(item, depth + 1) for item in value[:100]]
    if isinstance(value, dict):
        return {k: _short(v, depth + 1) for k, v in list(value.items())[:60] if k not in _AWS_SECRET_KEYS and not secret_key(k)}
    return None


def _answered_arn(response: dict[str, Any]) -> str | None:
    for name in ("user", "role", "group"):
        made = response.get(name)
        if isinstance(made, dict) and isinstance(made.get("arn"), str):
            return str(made["arn"])
    return None


_TARGET_NAMES = (
    "name",
    "trailName",
    "detectorId",
    "bucketName",
    "functionName",
    "snapshotId",
    "imageId",
    "instanceId",
    "dBSnapshotIdentifier",
    "dBClusterSnapshotIdentifier",
    "secretId",
    "keyId",
    "repositoryName",
    "queueUrl",
    "topicArn",
    "logGroupName",
    "modelId",
    "groupId",
    "documentName",
    "userId",
    "target",
    "roleName",
)


def _resource(event: Event, detail: Detail, service: str, request: dict[str, Any]) -> None:
    targets: list[Target] = []
    for name in _TARGET_NAMES:
        value = request.get(name)
        if isinstance(value, str):
            targets.append(Target(value, f"{service}.{name}"))
    ids = request.get("instanceIds")
    if isinstance(ids, list):
        targets.extend(Target(i, "instance") for i in ids[:50] if isinstance(i, str))
    if targets:
        detail.targets = tuple(targets)
        event.target = targets[0].id


def _secrets(request: dict[str, Any], detail: Detail) -> int | None:
    names: list[str] = []
    for key in ("secretId", "name", "path", "instanceId", "clusterIdentifier"):
        if isinstance(request.get(key), str):
            names.append(request[key])
    for key in ("names", "secretIdList"):
        held = request.get(key)
        if isinstance(held, list):
            names.extend(n for n in held if isinstance(n, str))
    if isinstance(request.get("filters"), list):
        return 20  # a filter asks for a page of secrets; the log does not say which
    if names:
        detail.targets = tuple(Target(n, "secret") for n in names[:100])
    return len(names) or None


def _is_cloudtrail(record: dict[str, Any]) -> bool:
    return isinstance(record.get("eventName"), str) and isinstance(record.get("eventSource"), str) and "eventTime" in record


SOURCES = (
    Source(
        slug=SLUG,
        title="AWS CloudTrail",
        recognise=_is_cloudtrail,
        normaliser=CloudTrail,
        provides=frozenset(
            "origin.ip agent session credential token.mint credential.change identity.lifecycle privilege policy trust secret.read factor share ai "
            "remote_exec discovery bytes ci.subject".split()
        ),
        misleads=(
            "sourceIPAddress may be a service's name or `AWS Internal`; such calls have no origin here and never count as a new place.",
            "Calls through a VPC endpoint carry private addresses.",
            "Taking a role of another account is logged in both accounts; the two records share sharedEventID.",
            "Of an OIDC token only subject and audience are logged: name the run in the role session name to tie a session to a CI run.",
            "Session keys of the console are issued without a record.",
        ),
    ),
)
__all__ = ["SOURCES", "CloudTrail", "Reject"]
