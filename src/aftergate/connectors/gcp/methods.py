"""What single methods carry beside their name: bindings of a policy, service accounts and their keys, exchanged tokens, jobs."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from aftergate.connectors.gcp.records import Payload
from aftergate.connectors.loose import decode, items, mail, mapping, number, text, texts, unique
from aftergate.vocabulary import Change, Detail, Target

KEY_PREFIX: Final = "//iam.googleapis.com/"

ABOUT_ACCOUNTS: Final = frozenset(
    """
    generateaccesstoken generateidtoken signjwt signblob
    createserviceaccountkey uploadserviceaccountkey deleteserviceaccountkey disableserviceaccountkey enableserviceaccountkey
    createserviceaccount deleteserviceaccount disableserviceaccount enableserviceaccount undeleteserviceaccount
""".split()
)

_any = msgspec.json.Decoder()


def object_of(raw: msgspec.Raw, key: str | None = None) -> dict[str, Any]:
    data = bytes(raw)
    if not data:
        return {}
    value = mapping(decode(_any, data))
    return mapping(value.get(key)) if key else value


def key_name(value: str) -> str:
    """A service account key in the form that later entries show in `serviceAccountKeyName`."""
    return value if value.startswith("//") else KEY_PREFIX + value


def bindings(
    payload: Payload, detail: Detail, facts: dict[str, Any], targets: list[Target], labels: dict[str, Any], resource: str | None
) -> str:
    """What a policy change gave or took, and to whom. Returns the variant of the action."""
    delta = mapping(mapping(payload.service_data).get("policyDelta")) or mapping(mapping(payload.metadata).get("policyDelta"))
    found: list[tuple[str, str, str]] = []
    for item in items(delta.get("bindingDeltas"))[:200]:
        one = mapping(item)
        role, member = text(one.get("role")), text(one.get("member"))
        if role and member:
            found.append((text(one.get("action")) or "ADD", role, member))
    if not delta:
        for item in items(object_of(payload.request, "policy").get("bindings"))[:100]:
            one = mapping(item)
            found.extend(("ADD", text(one.get("role")) or "role", member) for member in texts(one.get("members"))[:100])
    account = mail(labels.get("email_id"))
    if account:
        targets.append(Target(account, "service_account", unique((text(labels.get("unique_id")), resource))))
    elif resource:
        targets.append(Target(resource, "resource"))
    detail.changes = tuple(
        Change(role, member if act == "REMOVE" else None, None if act == "REMOVE" else member) for act, role, member in found
    )
    members = list(dict.fromkeys(member for act, _, member in found if act != "REMOVE"))
    targets.extend(Target(bare(member), "member", unique((member,), bare(member))) for member in members[:50])
    facts["bindings"] = [list(item) for item in found]
    facts["roles"] = sorted({role for act, role, _ in found if act != "REMOVE"})
    facts["members"] = members
    facts["public"] = True if any(member in ("allUsers", "allAuthenticatedUsers") for member in members) else None
    if delta.get("auditConfigDeltas"):
        return "audit-config"
    return "remove" if found and not members else ""


def account(
    last: str,
    payload: Payload,
    detail: Detail,
    facts: dict[str, Any],
    targets: list[Target],
    labels: dict[str, Any],
    resource: str | None,
) -> None:
    """The service account that a call is about, and the key that it made or removed."""
    request, response = object_of(payload.request), object_of(payload.response)
    answered = text(response.get("name"))
    named = [name for name in (answered, text(request.get("name")), resource) if name]
    ids = [mail(part) for name in named if (part := _after(name, "serviceAccounts/"))]
    email = mail(response.get("email")) or mail(labels.get("email_id")) or next((one for one in ids if one and "@" in one), None)
    number_id = (
        text(labels.get("unique_id"))
        or text(response.get("unique_id"))
        or next((one for one in ids if one and "@" not in one and one != "-"), None)
    )
    subject = email or number_id
    if subject:
        targets.append(Target(subject, "service_account", unique((number_id,), subject)))
    keys = [name for name in named if "/keys/" in name]
    # the form with the account's address is the one that uses show, so it goes before a number or a wildcard project
    keys.sort(key=lambda name: ("projects/-/" in name, "@" not in name))
    if last in ("createserviceaccountkey", "uploadserviceaccountkey") and answered and "/keys/" in answered:
        detail.issued = (key_name(answered),)
        detail.issued_class = "api_key"
    elif keys:
        targets.append(Target(key_name(keys[0]), "credential", unique((keys[0].rpartition("/")[2],))))
    if last == "generateaccesstoken":
        detail.issued_class = "access_token"
        detail.grant = "impersonation"
        detail.scopes = texts(request.get("scope"))
        lifetime = text(request.get("lifetime"))
        detail.issued_ttl_s = number(lifetime.rstrip("s")) if lifetime else None
    elif last == "generateidtoken":
        detail.issued_class = "id_token"
        detail.grant = "impersonation"
        detail.audience = texts(request.get("audience"))
    elif last in ("signjwt", "signblob"):
        detail.issued_class = "assertion"
        detail.grant = "jwt_bearer"
    delegates = [mail(_after(name, "serviceAccounts/") or name) for name in texts(request.get("delegates"))]
    facts["delegates"] = [one for one in delegates if one]


def exchange(payload: Payload, detail: Detail, facts: dict[str, Any], resource: str | None) -> None:
    request, metadata = object_of(payload.request), mapping(payload.metadata)
    detail.grant = "token_exchange"
    detail.issued_class = "access_token"
    detail.credential_type = "federated"
    detail.subject = text(metadata.get("mapped_principal")) or text(metadata.get("mappedPrincipal")) or detail.subject
    detail.audience = texts(request.get("audience"))
    claims = mapping(metadata.get("claims")) or mapping(metadata.get("attributes"))
    detail.issuer = text(claims.get("iss")) or text(metadata.get("issuer"))
    facts["provider"] = resource or (detail.audience[0] if detail.audience else None)
    facts["subject_token_type"] = text(request.get("subjectTokenType")) or text(request.get("subject_token_type"))


def job(payload: Payload, detail: Detail) -> str:
    metadata = mapping(payload.metadata)
    job = mapping(mapping(metadata.get("jobChange") or metadata.get("jobInsertion")).get("job"))
    config = mapping(job.get("jobConfig"))
    query = mapping(mapping(job.get("jobStats")).get("queryStats"))
    detail.objects = number(query.get("outputRowCount"))
    return "export" if config.get("type") == "EXPORT" or mapping(config.get("extractConfig")) else ""


def workspace(payload: Payload, facts: dict[str, Any], targets: list[Target]) -> None:
    """Parameters of a Workspace activity: whom an administrator acted on, in which group."""
    for event in items(mapping(payload.metadata).get("event"))[:5]:
        values = {
            str(mapping(item).get("name")): text(mapping(item).get("value"))
            for item in items(mapping(event).get("parameter"))[:40]
            if isinstance(item, dict)
        }
        user = mail(values.get("USER_EMAIL"))
        if user:
            targets.append(Target(user, "user"))
        group = mail(values.get("GROUP_EMAIL"))
        if group:
            targets.append(Target(group, "group"))
        facts["event"] = text(mapping(event).get("eventName"))
        facts["role"] = values.get("ROLE_NAME")
        facts["login_type"] = values.get("login_type")


def metadata_keys(payload: Payload) -> list[str] | None:
    """Names of the instance metadata that changed: `ssh-keys` and `startup-script` are ways onto a machine."""
    metadata = mapping(payload.metadata)
    found: list[str] = []
    for part in ("instanceMetadataDelta", "projectMetadataDelta"):
        delta = mapping(metadata.get(part))
        for kind in ("addedMetadataKeys", "modifiedMetadataKeys", "deletedMetadataKeys"):
            found.extend(texts(delta.get(kind)) if delta.get(kind) else ())
    if not found:
        request = object_of(payload.request)
        entries = items(request.get("Metadata Keys Added")) + items(request.get("Metadata Keys Modified"))
        found.extend(name for name in texts(entries) if name)
    return found[:50] or None


def _after(name: str, marker: str) -> str | None:
    _, found, rest = name.partition(marker)
    return rest.partition("/")[0] if found else None


def bare(member: str) -> str:
    """The principal of a policy member: `user:a@b` is a@b."""
    kind, _, name = member.partition(":")
    return name.lower() if kind in ("user", "serviceAccount", "group", "domain") and name else member
