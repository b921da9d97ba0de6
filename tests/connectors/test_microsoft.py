"""Microsoft logs: records in, facts of events out. All identifiers are invented."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from aftergate.connectors.microsoft.common import address, moment, number
from aftergate.connectors.microsoft.graph import template_of
from aftergate.connectors.microsoft.normalise import SOURCES
from aftergate.errors import NotMine, Reject
from aftergate.events.interning import Interner
from aftergate.vocabulary import Event, Kind, Tag

INTERNER = Interner()  # shared, since an Interner reads the address tables
BY_SLUG = {source.slug: source for source in SOURCES}
TENANT = "11111111-2222-4333-8444-555555555555"
MICROSOFT = "f8cdef31-a31e-4b4a-93e4-5f571e91255a"


def parse(slug: str, record: dict[str, Any]) -> Event:
    event = BY_SLUG[slug].normaliser(INTERNER).parse(msgspec.json.encode(record))
    assert isinstance(event, Event)
    return event


def fact(event: Event, path: str) -> Any:
    value: Any = event
    for part in path.split("."):
        value = value[part] if isinstance(value, dict) else getattr(value, part)
    return value


def check(event: Event, facts: dict[str, Any]) -> None:
    assert {path: fact(event, path) for path in facts} == facts


def sign_in(category: str, **changes: Any) -> dict[str, Any]:
    properties: dict[str, Any] = {
        "id": "row-1",
        "createdDateTime": "2026-02-02T09:25:07.3738886+00:00",
        "userPrincipalName": "Ada@Example.test",
        "userId": "user-1",
        "appId": "app-1",
        "appDisplayName": "Reports",
        "appOwnerTenantId": TENANT,
        "ipAddress": "198.51.100.7",
        "status": {"errorCode": 0},
        "clientAppUsed": "Browser",
        "userAgent": "Mozilla/5.0",
        "deviceDetail": {"deviceId": "", "operatingSystem": "", "isManaged": False, "isCompliant": False},
        "location": {"countryOrRegion": "DE"},
        "correlationId": "corr-1",
        "clientCredentialType": "none",
        "authenticationRequirement": "multiFactorAuthentication",
        "autonomousSystemNumber": 64500,
        "uniqueTokenIdentifier": "uti-1",
        "incomingTokenType": "none",
        "authenticationProtocol": "none",
        "originalTransferMethod": "none",
        "riskLevelDuringSignIn": "none",
        "resourceId": "api-1",
        "sessionId": "sid-1",
    }
    properties.update(changes)
    return {
        "time": "2026-02-02T09:27:28.5156548Z",
        "category": category,
        "tenantId": TENANT,
        "resultType": str(properties["status"]["errorCode"]),
        "properties": properties,
    }


def principal(**changes: Any) -> dict[str, Any]:
    return {"userId": None, "userPrincipalName": None, "servicePrincipalId": "sp-1", "servicePrincipalName": "nightly", **changes}


SIGN_INS: list[tuple[str, str, str, dict[str, Any], dict[str, Any]]] = [
    (
        "a person in a browser",
        "entra.signin",
        "SignInLogs",
        {},
        {
            "kind": Kind.SIGN_IN,
            "time": 1770024307373,
            "known_at": 1770024448515,
            "id": "row-1",
            "actor.id": "user-1",
            "actor.names": ("ada@example.test",),
            "actor.kind": "human",
            "session": "sid-1",
            "credential": None,
            "mints": ("uti-1",),
            "d.mfa": True,
            "d.grant": "authorization_code",
            "d.interactive": True,
            "origin.ip": "198.51.100.7",
            "origin.asn": 64500,
            "origin.country": "DE",
            "shape.device": None,
            "shape.client": "app-1",
            "shape.client_name": "Reports",
            "shape.resource": "api-1",
            "shape.error": None,
            "shape.silent": None,
            "action.tags": frozenset({Tag.CONSOLE_LOGIN}),
        },
    ),
    (
        "a device code is approved",
        "entra.signin",
        "SignInLogs",
        {"authenticationProtocol": "deviceCode"},
        {"kind": Kind.DEVICE_CODE_APPROVAL, "d.grant": "device_code"},
    ),
    (
        "a failure mints nothing",
        "entra.signin",
        "SignInLogs",
        {"status": {"errorCode": 50126}},
        {"shape.error": "50126", "mints": (), "ok": False},
    ),
    (
        "a refresh of a session that began with a device code",
        "entra.noninteractive",
        "NonInteractiveUserSignInLogs",
        {"incomingTokenType": "refreshToken", "originalTransferMethod": "deviceCodeFlow"},
        {
            "kind": Kind.SILENT_SIGN_IN,
            "shape.silent": "token_refresh",
            "d.transfer": "deviceCodeFlow",
            "d.incoming": "refreshToken",
            "d.aggregated": True,
            "origin.trustworthy": True,
        },
    ),
    (
        "a managed device goes on with its primary refresh token",
        "entra.noninteractive",
        "NonInteractiveUserSignInLogs",
        {
            "incomingTokenType": "primaryRefreshToken",
            "deviceDetail": {"deviceId": "dev-1", "isManaged": True},
            "tokenProtectionStatusDetails": {"signInSessionStatus": "bound"},
        },
        {"shape.silent": "session_continuation", "shape.device": "dev-1", "d.managed": True, "d.binding": "bound"},
    ),
    (
        "a web back end repeats an address that is not its own",
        "entra.noninteractive",
        "NonInteractiveUserSignInLogs",
        {"incomingTokenType": "refreshToken", "clientCredentialType": "clientSecret"},
        {"shape.silent": "delegated_application", "origin.trustworthy": False, "d.credential_type": "secret"},
    ),
    (
        "a password without a person",
        "entra.noninteractive",
        "NonInteractiveUserSignInLogs",
        {"authenticationProtocol": "ropc", "authenticationRequirement": "singleFactorAuthentication"},
        {"d.grant": "password", "d.mfa": False},
    ),
    (
        "an agent acts",
        "entra.noninteractive",
        "NonInteractiveUserSignInLogs",
        {"agent": {"agentType": "agenticAppInstance", "parentAppId": "blueprint-1"}},
        {"shape.silent": "agent_tool", "d.act": ("blueprint-1",), "actor.kind": "agent"},
    ),
    (
        "a service principal with a secret",
        "entra.serviceprincipal",
        "ServicePrincipalSignInLogs",
        principal(clientCredentialType="clientSecret", servicePrincipalCredentialKeyId="key-1"),
        {
            "actor.id": "sp-1",
            "actor.names": ("app-1", "nightly"),
            "actor.kind": "workload",
            "credential": "key-1",
            "session": None,
            "shape.silent": "background_service",
            "d.grant": "client_credentials",
            "d.credential_type": "secret",
        },
    ),
    (
        "an application of another tenant, federated",
        "entra.serviceprincipal",
        "ServicePrincipalSignInLogs",
        principal(appOwnerTenantId="other", federatedCredentialId="fic-1", clientCredentialType="federatedIdentityCredential"),
        {"actor.kind": "third_party_app", "credential": "fic-1", "d.credential_type": "federated", "actor.first_party": False},
    ),
    (
        "Microsoft's own application",
        "entra.serviceprincipal",
        "ServicePrincipalSignInLogs",
        principal(appOwnerTenantId=MICROSOFT),
        {"actor.kind": "service", "actor.first_party": True},
    ),
    (
        "a managed identity has no address and no key",
        "entra.managedidentity",
        "ManagedIdentitySignInLogs",
        principal(ipAddress="", managedServiceIdentity={"associatedResourceId": "/subscriptions/S/vm/A"}),
        {"origin.ip": None, "credential": None, "d.bound": "/subscriptions/s/vm/a", "d.credential_type": "managed_identity"},
    ),
]


@pytest.mark.parametrize(("slug", "category", "changes", "facts"), [row[1:] for row in SIGN_INS], ids=[row[0] for row in SIGN_INS])
def test_a_sign_in_becomes_its_facts(slug: str, category: str, changes: dict[str, Any], facts: dict[str, Any]) -> None:
    record = sign_in(category, **changes)
    check(parse(slug, record), facts)
    assert [source.slug for source in SOURCES if source.recognise(record)] == [slug]


def test_the_three_forms_of_a_sign_in_tell_the_same() -> None:
    """Envelope, Graph API and columns with JSON inside text give equal facts, in one normaliser, in any order."""
    envelope = sign_in("NonInteractiveUserSignInLogs", incomingTokenType="refreshToken")
    p = envelope["properties"]
    flat = {**p, "signInEventTypes": ["nonInteractiveUser"], "resourceTenantId": TENANT}
    columns = {key[0].upper() + key[1:]: value for key, value in p.items()}
    columns.update(
        IPAddress=columns.pop("IpAddress"),
        ResourceIdentity=columns.pop("ResourceId"),
        LocationDetails=msgspec.json.encode(columns.pop("Location")).decode(),
        DeviceDetail=msgspec.json.encode(columns["DeviceDetail"]).decode(),
        AutonomousSystemNumber="64500",
        AADTenantId=TENANT,
        Type="AADNonInteractiveUserSignInLogs",
        ResultType="0",
    )
    normaliser = BY_SLUG["entra.noninteractive"].normaliser(INTERNER)
    events = [normaliser.parse(msgspec.json.encode(record)) for record in (envelope, columns, flat, envelope, flat)]
    assert all(isinstance(event, Event) for event in events)
    assert len({id(event.shape) for event in events if isinstance(event, Event)}) == 1
    assert {event.id for event in events if isinstance(event, Event)} == {"row-1"}
    for record in (flat, columns):
        assert [source.slug for source in SOURCES if source.recognise(record)] == ["entra.noninteractive"]


def audit(name: str, *targets: dict[str, Any], **changes: Any) -> dict[str, Any]:
    properties: dict[str, Any] = {
        "id": "Directory_1",
        "activityDisplayName": name,
        "activityDateTime": "2026-03-02T09:00:00.8387355Z",
        "correlationId": "corr-2",
        "result": "success",
        "initiatedBy": {"user": {"id": "admin-1", "userPrincipalName": "Boss@Example.test", "ipAddress": "198.51.100.9"}},
        "targetResources": list(targets),
        "additionalDetails": [{"key": "User-Agent", "value": "Mozilla/5.0"}],
    }
    properties.update(changes)
    return {"time": "2026-03-02T09:00:05Z", "category": "AuditLogs", "tenantId": TENANT, "operationName": name, "properties": properties}


def target(id_: str, type_: str, name: str | None = None, **changed: tuple[Any, Any]) -> dict[str, Any]:
    modified = [{"displayName": key.replace("__", "."), "oldValue": old, "newValue": new} for key, (old, new) in changed.items()]
    return {"id": id_, "type": type_, "displayName": name, "modifiedProperties": modified}


def keys(*ids: str) -> str:
    return msgspec.json.encode([f"[KeyIdentifier={key},KeyType=Password,KeyUsage=Verify,DisplayName=x]" for key in ids]).decode()


OLD, NEW = "aaaaaaaa-0000-4000-8000-000000000001", "aaaaaaaa-0000-4000-8000-000000000002"
SECRETS = "Update application – Certificates and secrets management "
POLICY = {"state": "enabled", "conditions": {"users": {"includeUsers": ["All"], "excludeUsers": []}}}
FIC = {"Name": "ci", "Issuer": "https://issuer.example", "Subject": "repo:org/app:ref:refs/heads/main"}


def text(value: Any) -> str:
    return msgspec.json.encode(value).decode()


AUDITS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    (
        "a secret is added",
        audit(SECRETS, target("app-obj", "Application", "till", KeyDescription=(keys(OLD), keys(OLD, NEW)))),
        {
            "action.tags": frozenset({Tag.CREDENTIAL_ADD}),
            "kind": Kind.CREDENTIAL_CREATE,
            "d.issued": (NEW,),
            "d.issued_class": "client_secret",
            "target": "app-obj",
            "actor.id": "admin-1",
            "actor.names": ("boss@example.test",),
            "origin.ip": "198.51.100.9",
            "known_at": 1772442005000,
        },
    ),
    (
        "a secret is removed",
        audit(SECRETS, target("app-obj", "Application", "till", KeyDescription=(keys(OLD, NEW), keys(NEW)))),
        {"action.tags": frozenset({Tag.CREDENTIAL_REMOVE}), "d.issued": (), "d.params": {"removed": [OLD]}},
    ),
    (
        "a federated subject is added",
        audit("Update application", target("app-obj", "Application", "till", FederatedIdentityCredentials=("[]", text([FIC])))),
        {
            "action.tags": frozenset({Tag.TRUST_CHANGE, Tag.CREDENTIAL_ADD}),
            "d.subject": FIC["Subject"],
            "d.issuer": FIC["Issuer"],
        },
    ),
    (
        "a redirect address is added",
        audit(
            "Update application",
            target("app-obj", "Application", "till", AppAddress=("[]", text([{"Address": "https://x.example/cb"}]))),
        ),
        {"action.tags": frozenset({Tag.REDIRECT_CHANGE}), "d.params.redirect_added": ["https://x.example/cb"]},
    ),
    (
        "an owner is added: acted on is what he now owns",
        audit(
            "Add owner to service principal",
            target("user-2", "User", None, ServicePrincipal__ObjectID=(None, '"sp-1"')),
            target("sp-1", "ServicePrincipal", "till"),
        ),
        {"action.tags": frozenset({Tag.OWNER_ADD}), "target": "sp-1", "d.params": {"owner": "user-2"}},
    ),
    (
        "a person consents",
        audit(
            "Consent to application",
            target(
                "sp-2",
                "ServicePrincipal",
                "Polls",
                ConsentContext__IsAdminConsent=(None, '"False"'),
                ConsentAction__Permissions=(
                    None,
                    '"[] => [[Id: 1, ClientId: sp-2, ConsentType: Principal, Scope: openid Mail.Read, CreatedDateTime: ]]; "',
                ),
            ),
        ),
        {
            "kind": Kind.CONSENT,
            "d.scopes": ("openid", "Mail.Read"),
            "d.params.consent_type": "user",
            "d.params.app_name": "Polls",
            "d.params.scopes_added": ["openid", "Mail.Read"],
        },
    ),
    (
        "a delegated grant for everybody: acted on is the client",
        audit(
            "Add delegated permission grant",
            target(
                "graph-sp",
                "ServicePrincipal",
                "Microsoft Graph",
                DelegatedPermissionGrant__Scope=(None, '"Files.ReadWrite.All"'),
                DelegatedPermissionGrant__ConsentType=(None, '"AllPrincipals"'),
                ServicePrincipal__ObjectID=(None, '"sp-2"'),
            ),
            target("sp-2", "ServicePrincipal"),
        ),
        {"target": "sp-2", "d.scopes": ("Files.ReadWrite.All",), "d.params.consent_type": "admin", "d.params.api": "Microsoft Graph"},
    ),
    (
        "a standing role is given",
        audit(
            "Add member to role",
            target("user-2", "User", None, Role__DisplayName=(None, '"Global Administrator"')),
            target("role-1", "Role"),
        ),
        {
            "action.tags": frozenset({Tag.PRIVILEGE_GRANT}),
            "target": "user-2",
            "d.params": {"role": "Global Administrator", "assignment": "permanent"},
        },
    ),
    (
        "an eligible role is activated",
        audit(
            "Add member to role completed (PIM activation)",
            target("role-1", "Role", "User Administrator"),
            target("admin-1", "User"),
        ),
        {"action.tags": frozenset({Tag.PRIVILEGE_ACTIVATE}), "target": "admin-1", "d.params.assignment": "activation"},
    ),
    (
        "an activation is asked for",
        audit("Add member to role requested (PIM activation)", target("role-1", "Role", "User Administrator")),
        {"action.tags": frozenset()},
    ),
    (
        "a policy goes to report-only",
        audit(
            "Update conditional access policy",
            target(
                "ca-1",
                "Policy",
                "MFA",
                ConditionalAccessPolicy=(text(POLICY), text({**POLICY, "state": "enabledForReportingButNotEnforced"})),
            ),
        ),
        {"action.tags": frozenset({Tag.DEFENCE_CHANGE, Tag.DEFENCE_WEAKEN}), "d.params.state": "enabledForReportingButNotEnforced"},
    ),
    (
        "a policy is put in force",
        audit(
            "Update conditional access policy",
            target("ca-1", "Policy", "MFA", ConditionalAccessPolicy=(text({**POLICY, "state": "disabled"}), text(POLICY))),
        ),
        {"action.tags": frozenset({Tag.DEFENCE_CHANGE}), "d.params.state": "enabled"},
    ),
    (
        "a person is disabled by an application",
        audit(
            "Disable account",
            target("user-2", "User", None, AccountEnabled=("[true]", "[false]")),
            initiatedBy={"app": {"displayName": "hr-sync", "servicePrincipalId": "sp-9"}},
        ),
        {
            "action.tags": frozenset({Tag.IDENTITY_DISABLE}),
            "actor.id": "sp-9",
            "actor.kind": "workload",
            "actor.names": ("hr-sync",),
            "target": "user-2",
            "origin.ip": None,
        },
    ),
    (
        "a temporary pass is made",
        audit(
            "Admin registered security info",
            target("user-2", "User"),
            resultReason="Admin registered temporary access pass method for user",
        ),
        {"action.tags": frozenset({Tag.FACTOR_ADD}), "d.params.method": "temporary access pass"},
    ),
    (
        "a change fails",
        audit("Delete conditional access policy", target("ca-1", "Policy"), result="failure", resultReason="no rights"),
        {"shape.error": "no rights", "ok": False},
    ),
]


@pytest.mark.parametrize(("record", "facts"), [row[1:] for row in AUDITS], ids=[row[0] for row in AUDITS])
def test_a_directory_change_becomes_its_facts(record: dict[str, Any], facts: dict[str, Any]) -> None:
    check(parse("entra.audit", record), facts)
    check(parse("entra.audit", record["properties"]), {key: value for key, value in facts.items() if key != "known_at"})
    for form in (record, record["properties"]):
        assert [source.slug for source in SOURCES if source.recognise(form)] == ["entra.audit"]


def test_audit_columns_with_json_in_text_tell_the_same() -> None:
    p = AUDITS[0][1]["properties"]
    row = {
        "Type": "AuditLogs",
        "TimeGenerated": "2026-03-02T09:00:00.8387355Z",
        "ActivityDateTime": p["activityDateTime"],
        "OperationName": p["activityDisplayName"],
        "Id": p["id"],
        "Result": "success",
        "InitiatedBy": text(p["initiatedBy"]),
        "TargetResources": text(p["targetResources"]),
        "AdditionalDetails": text(p["additionalDetails"]),
        "AADTenantId": TENANT,
    }
    facts = {key: value for key, value in AUDITS[0][2].items() if key != "known_at"}
    check(parse("entra.audit", row), facts)


def call(method: str, uri: str, **changes: Any) -> dict[str, Any]:
    properties: dict[str, Any] = {
        "requestId": "req-1",
        "timeGenerated": "2026-03-02T09:00:00.8387355Z",
        "requestMethod": method,
        "requestUri": f"https://graph.microsoft.com/v1.0{uri}",
        "responseStatusCode": 200,
        "responseSizeBytes": 900,
        "signInActivityId": "uti-1",
        "C_Sid": "sid-1",
        "appId": "app-1",
        "userId": "user-1",
        "ipAddress": "198.51.100.7",
        "userAgent": "python-requests/2.31",
        "scopes": "Mail.Read User.Read",
        "clientAuthMethod": "0",
        "tokenIssuedAt": "2026-03-02T08:50:00Z",
    }
    properties.update(changes)
    return {"time": "2026-03-02T09:00:00.8387355Z", "category": "MicrosoftGraphActivityLogs", "tenantId": TENANT, "properties": properties}


ID = "abcdefab-0000-4000-8000-000000000001"
CALLS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (
        call("GET", f"/users/{ID}/messages?$top=50"),
        {
            "action.name": "GET /users/{id}/messages",
            "action.klass": "graph-users:read",
            "action.tags": frozenset({Tag.MAIL_READ}),
            "credential": "uti-1",
            "session": "sid-1",
            "size": 900,
            "d.token_issued_at": 1772441400000,
            "d.scopes": ("Mail.Read", "User.Read"),
            "actor.kind": "human",
            "shape.client": "app-1",
        },
    ),
    (call("POST", "/me/mailFolders/inbox/messageRules"), {"action.tags": frozenset({Tag.MAIL_RULE})}),
    (call("POST", f"/applications/{ID}/addPassword"), {"action.tags": frozenset({Tag.CREDENTIAL_ADD}), "kind": Kind.CREDENTIAL_CREATE}),
    (call("POST", f"/directoryRoles/{ID}/members/$ref"), {"action.tags": frozenset({Tag.PRIVILEGE_GRANT})}),
    (call("POST", "/oauth2PermissionGrants"), {"action.name": "POST /oauth2PermissionGrants", "kind": Kind.CONSENT}),
    (call("DELETE", f"/identity/conditionalAccess/policies/{ID}"), {"action.tags": frozenset({Tag.DEFENCE_CHANGE, Tag.DEFENCE_WEAKEN})}),
    (call("POST", "/users/ada@example.test/revokeSignInSessions"), {"action.tags": frozenset({Tag.REVOKE})}),
    (call("GET", "/servicePrincipals"), {"kind": Kind.DISCOVERY, "action.klass": "graph-servicePrincipals:discover"}),
    (
        call("GET", "/users", userId=None, servicePrincipalId="sp-1", scopes=None, roles="User.Read.All", responseStatusCode=403),
        {
            "actor.id": "sp-1",
            "actor.names": ("app-1",),
            "actor.kind": "workload",
            "d.scopes": ("User.Read.All",),
            "shape.error": "403",
        },
    ),
]


@pytest.mark.parametrize(("record", "facts"), CALLS)
def test_a_graph_call_becomes_its_facts(record: dict[str, Any], facts: dict[str, Any]) -> None:
    check(parse("graph.activity", record), facts)
    assert [source.slug for source in SOURCES if source.recognise(record)] == ["graph.activity"]


@pytest.mark.parametrize(
    ("uri", "template"),
    [
        ("https://graph.microsoft.com/v1.0/me", "/me"),
        ("https://graph.microsoft.com/beta/users('ada@example.test')/manager", "/users/{id}/manager"),
        ("https://graph.microsoft.com/v1.0/reports/getOffice365ActiveUserDetail(period='D7')", "/reports/getOffice365ActiveUserDetail"),
        ("https://graph.microsoft.com/v1.0/me/drive/root:/a/b%20c.xlsx:/content", "/me/drive/root/{path}/content"),
        ("https://graph.microsoft.com/v1.0/users/delta", "/users/delta"),
        ("https://graph.microsoft.com/v1.0/oauth2PermissionGrants", "/oauth2PermissionGrants"),
        ("https://graph.microsoft.com/v1.0/chats/19:meeting_x@thread.v2/messages", "/chats/{id}/messages"),
    ],
)
def test_graph_addresses_lose_their_keys(uri: str, template: str) -> None:
    assert template_of(uri) == template


def mail(operation: str, **changes: Any) -> dict[str, Any]:
    return {
        "Id": "rec-1",
        "CreationTime": "2026-02-20T21:12:00",
        "Operation": operation,
        "RecordType": 50,
        "Workload": "Exchange",
        "OrganizationId": TENANT,
        "UserId": "Ada@Example.test",
        "UserKey": "1003",
        "UserType": 0,
        "ResultStatus": "Succeeded",
        "ClientIPAddress": "[2001:db8::7]:4431",
        "ClientAppId": "app-1",
        **changes,
    }


UNIFIED: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (
        mail(
            "MailItemsAccessed",
            AppAccessContext={"AADSessionId": "sid-1", "UniqueTokenId": "uti-1", "IssuedAtTime": "2026-02-20T21:00:00"},
            Folders=[{"FolderItems": [{"SizeInBytes": 10}, {"SizeInBytes": 20}]}],
        ),
        {
            "action.tags": frozenset({Tag.MAIL_READ}),
            "session": "sid-1",
            "credential": "uti-1",
            "size": 30,
            "d.objects": 2,
            "origin.ip": "2001:db8::7",
            "actor.id": "ada@example.test",
            "time": 1771621920000,
            "d.token_issued_at": 1771621200000,
        },
    ),
    (
        mail(
            "New-InboxRule",
            Parameters=[{"Name": "ForwardTo", "Value": "x@outside.test"}, {"Name": "DeleteMessage", "Value": "True"}],
            ResultStatus="True",
        ),
        {"action.tags": frozenset({Tag.MAIL_RULE}), "d.params.ForwardTo": "x@outside.test", "shape.error": None},
    ),
    (
        mail("Set-Mailbox", Parameters=[{"Name": "ForwardingSmtpAddress", "Value": "smtp:x@outside.test"}]),
        {"action.name": "Set-Mailbox [forwarding]", "action.tags": frozenset({Tag.MAIL_RULE})},
    ),
    (mail("Set-Mailbox", Parameters=[{"Name": "Password", "Value": "hunter2"}]), {"d.params.Password": "(hidden)"}),
    (mail("AnonymousLinkCreated", Workload="OneDrive"), {"action.tags": frozenset({Tag.SHARE_CHANGE})}),
    (
        mail("Set-AdminAuditLogConfig", Parameters=[{"Name": "UnifiedAuditLogIngestionEnabled", "Value": "False"}]),
        {"action.tags": frozenset({Tag.DEFENCE_CHANGE, Tag.DEFENCE_WEAKEN})},
    ),
    (
        mail(
            "Consent to application.",
            Workload="AzureActiveDirectory",
            Target=[{"ID": "ServicePrincipal_sp-2", "Type": 2}, {"ID": "sp-2", "Type": 2}, {"ID": "Polls", "Type": 1}],
            ModifiedProperties=[
                {"Name": "ConsentAction.Permissions", "NewValue": "[] => [[ConsentType: AllPrincipals, Scope: Mail.Read, X: ]]"}
            ],
        ),
        {"kind": Kind.CONSENT, "d.scopes": ("Mail.Read",), "d.params.consent_type": "admin", "target": "sp-2"},
    ),
    ({"RecordType": 50, "AuditData": text(mail("Send"))}, {"action.name": "Send", "id": "rec-1"}),
]


@pytest.mark.parametrize(("record", "facts"), UNIFIED)
def test_a_unified_audit_record_becomes_its_facts(record: dict[str, Any], facts: dict[str, Any]) -> None:
    check(parse("m365.audit", record), facts)
    assert [source.slug for source in SOURCES if source.recognise(record)] == ["m365.audit"]


def azure(operation: Any, **changes: Any) -> dict[str, Any]:
    return {
        "time": "2026-02-20T21:12:00.0000000Z",
        "resourceId": "/subscriptions/SUB-1/resourceGroups/rg/providers/Microsoft.Compute/virtualMachines/vm",
        "operationName": operation,
        "category": "Administrative",
        "resultType": "Success",
        "callerIpAddress": "198.51.100.7",
        "correlationId": "corr-3",
        "tenantId": TENANT,
        "identity": {
            "claims": {
                "appid": "app-1",
                "uti": "uti-1",
                "iat": "1771621200",
                "http://schemas.microsoft.com/identity/claims/objectidentifier": "user-1",
                "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/upn": "Ada@Example.test",
            }
        },
        **changes,
    }


AZURE: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (
        azure("MICROSOFT.COMPUTE/VIRTUALMACHINES/RUNCOMMAND/ACTION"),
        {
            "action.name": "microsoft.compute/virtualmachines/runcommand/action",
            "action.tags": frozenset({Tag.REMOTE_EXEC}),
            "actor.id": "user-1",
            "actor.names": ("ada@example.test",),
            "credential": "uti-1",
            "shape.client": "app-1",
            "shape.account": "sub-1",
            "d.token_issued_at": 1771621200000,
        },
    ),
    (
        azure(
            {"value": "Microsoft.Authorization/roleAssignments/write"},
            eventDataId="ev-1",
            properties={"requestbody": text({"Properties": {"PrincipalId": "sp-3", "RoleDefinitionId": "/x/roleDefinitions/R"}})},
        ),
        {"action.tags": frozenset({Tag.PRIVILEGE_GRANT}), "id": "ev-1", "target": "sp-3", "d.params.role": "r"},
    ),
    (
        azure(
            "Microsoft.Storage/storageAccounts/blobServices/write",
            properties={"requestbody": text({"properties": {"isVersioningEnabled": False}})},
        ),
        {
            "action.name": "microsoft.storage/storageaccounts/blobservices/write [weakened]",
            "action.tags": frozenset({Tag.DEFENCE_CHANGE, Tag.DEFENCE_WEAKEN}),
        },
    ),
    (
        azure(
            "Microsoft.Storage/storageAccounts/blobServices/write",
            properties={"requestbody": text({"properties": {"isVersioningEnabled": True}})},
        ),
        {"action.tags": frozenset()},
    ),
    (azure("microsoft.insights/diagnosticSettings/delete"), {"action.tags": frozenset({Tag.DEFENCE_CHANGE, Tag.DEFENCE_WEAKEN})}),
    (azure("Microsoft.Storage/storageAccounts/listKeys/action", resultType="Failed"), {"kind": Kind.SECRET_READ, "shape.error": "Failed"}),
    (
        azure(
            "SecretGet",
            category="AuditEvent",
            resourceId="/SUBSCRIPTIONS/S/RESOURCEGROUPS/RG/PROVIDERS/MICROSOFT.KEYVAULT/VAULTS/V",
            properties={"id": "https://v.vault.azure.net/secrets/db/1", "httpStatusCode": 200, "clientInfo": "curl/8"},
            identity={"claim": {"oid": "sp-3", "appid": "app-3"}},
        ),
        {"action.tags": frozenset({Tag.SECRET_READ}), "actor.id": "sp-3", "target": "https://v.vault.azure.net/secrets/db/1"},
    ),
]


@pytest.mark.parametrize(("record", "facts"), AZURE)
def test_azure_activity_becomes_its_facts(record: dict[str, Any], facts: dict[str, Any]) -> None:
    check(parse("azure.activity", record), facts)
    assert [source.slug for source in SOURCES if source.recognise(record)] == ["azure.activity"]


def test_a_shared_access_signature_is_kept_nowhere() -> None:
    """The query of a storage address is a bearer credential."""
    record = azure(
        "GetBlob", category="StorageRead", uri="https://a.blob.test/c/f?sig=SECRETSIG", properties={"objectKey": "/a/c/f?sig=SECRETSIG"}
    )
    event = parse("azure.activity", record)
    assert "SECRETSIG" not in repr((event, event.detail, event.shape))


@pytest.mark.parametrize("slug", sorted(BY_SLUG))
@pytest.mark.parametrize(
    "line", [b"", b"{", b"[]", b"{}", b"null", b'"x"', b"\xff", b'{"properties": {}}', b'{"properties": 3}', b'{"Id": "\xff"}']
)
def test_what_is_no_record_is_refused(slug: str, line: bytes) -> None:
    with pytest.raises((Reject, msgspec.MsgspecError)):
        BY_SLUG[slug].normaliser(INTERNER).parse(line)


def test_a_record_of_a_sister_log_is_not_mine() -> None:
    with pytest.raises(NotMine):
        parse("entra.signin", sign_in("NonInteractiveUserSignInLogs"))


@pytest.mark.parametrize(
    ("changes", "words"), [({"userId": None, "userPrincipalName": None}, "userId"), ({"createdDateTime": "soon"}, "not a time")]
)
def test_a_refusal_names_the_field(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(Reject, match=words):
        parse("entra.signin", sign_in("SignInLogs", **changes))


@pytest.mark.parametrize(
    ("written", "ms"),
    [
        ("2026-02-02T09:25:07.3738886+00:00", 1770024307373),
        ("2026-02-02T09:25:07.3738886Z", 1770024307373),
        ("2026-02-02T09:25:07.373", 1770024307373),
        ("2026-02-02T09:25:07Z", 1770024307000),
        ("2026-02-02 09:25:07.373888600", 1770024307373),
        ("2026-02-02T10:25:07.3738886+01:00", 1770024307373),
    ],
)
def test_times_are_read_alike_cold_and_warm(written: str, ms: int) -> None:
    assert [moment(written), moment(written)] == [ms, ms]


@pytest.mark.parametrize(
    ("written", "plain"),
    [
        ("198.51.100.7:443", "198.51.100.7"),
        ("[2001:db8::7]:443", "2001:db8::7"),
        ("2001:db8::7", "2001:db8::7"),
        ("::ffff:198.51.100.7", "198.51.100.7"),
        ("", None),
        ("<null>", None),
    ],
)
def test_addresses_lose_ports_and_brackets(written: str, plain: str | None) -> None:
    assert address(written) == plain


@pytest.mark.parametrize(("value", "whole"), [("12", 12), (12.0, 12), ("", None), ("x", None), (True, None), (10**30, None), (None, None)])
def test_numbers_may_be_text(value: Any, whole: int | None) -> None:
    assert number(value) == whole
