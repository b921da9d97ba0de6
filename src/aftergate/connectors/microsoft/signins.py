"""Entra sign-ins: interactive, non-interactive, service principal, managed identity; three record forms.

The same facts come as an Azure Monitor envelope (`category`, `properties`), as Log Analytics columns (PascalCase, nested
values as JSON or as JSON inside text) and as the Graph API writes them (camelCase, flat, `signInEventTypes`).

Nearly every row repeats what the same user, application and device did before: everything that recurs is looked up at once by
one tuple, and only times and ids are made anew.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

import msgspec

from aftergate.connectors.microsoft.common import (
    CACHE_MAX,
    MICROSOFT_TENANTS,
    UNREADABLE,
    address,
    country_of,
    embedded,
    later,
    mapping,
    moment,
    number,
    tenant_of,
    text,
)
from aftergate.connectors.microsoft.signin_records import Columns, Envelope, GraphApi, SignIn
from aftergate.errors import NotMine, Reject
from aftergate.events.interning import Interner
from aftergate.vocabulary import NO_ORIGIN, Actor, Detail, Event, Kind, Shape, Tag

INTERACTIVE: Final = "entra.signin"
NON_INTERACTIVE: Final = "entra.noninteractive"
SERVICE_PRINCIPAL: Final = "entra.serviceprincipal"
MANAGED_IDENTITY: Final = "entra.managedidentity"

CATEGORIES: Final = {
    "SignInLogs": INTERACTIVE,
    "NonInteractiveUserSignInLogs": NON_INTERACTIVE,
    "ServicePrincipalSignInLogs": SERVICE_PRINCIPAL,
    "ManagedIdentitySignInLogs": MANAGED_IDENTITY,
}
TABLES: Final = {
    "SigninLogs": INTERACTIVE,
    "AADNonInteractiveUserSignInLogs": NON_INTERACTIVE,
    "AADServicePrincipalSignInLogs": SERVICE_PRINCIPAL,
    "AADManagedIdentitySignInLogs": MANAGED_IDENTITY,
}
EVENT_TYPES: Final = {
    "interactiveUser": INTERACTIVE,
    "nonInteractiveUser": NON_INTERACTIVE,
    "servicePrincipal": SERVICE_PRINCIPAL,
    "managedIdentity": MANAGED_IDENTITY,
}

# Protocols of `authenticationProtocol`, lower case, to the grant that they are.
GRANTS: Final = {
    "devicecode": "device_code",
    "ropc": "password",
    "directusergrant": "password",
    "authenticationtransfer": "authentication_transfer",
    "clientcredentials": "client_credentials",
    "refreshtokengrant": "refresh_token",
    "onbehalfof": "on_behalf_of",
    "oauth2onbehalfof": "on_behalf_of",
    "samlonbehalfof": "on_behalf_of",
    "saml20": "saml",
    "wsfederation": "saml",
    "kerberos": "kerberos",
    "seamlesssso": "kerberos",
    "prtgrant": "primary_refresh_token",
    "prtbrokerbased": "primary_refresh_token",
    "prtnonbrokerbased": "primary_refresh_token",
    "authorizationcodewithpkce": "authorization_code",
    "authorizationcodewithoutpkce": "authorization_code",
}
CREDENTIAL_TYPES: Final = {
    "clientsecret": "secret",
    "clientassertion": "certificate",
    "certificate": "certificate",
    "federatedidentitycredential": "federated",
    "managedidentity": "managed_identity",
    "none": "none",
}
# `clientAppUsed` of clients that cannot do a second factor.
LEGACY: Final = frozenset(
    {
        "authenticated smtp",
        "autodiscover",
        "exchange activesync",
        "exchange online powershell",
        "exchange web services",
        "imap",
        "imap4",
        "mapi over http",
        "offline address book",
        "other clients",
        "outlook anywhere (rpc over http)",
        "pop",
        "pop3",
        "reporting web services",
        "universal outlook",
    }
)
_EMPTY: Final = frozenset({"", "none", "null"})
_UNTOLD: Final = frozenset({"hidden", "", "unknownFutureValue"})
_MFA: Final = {"multifactorauthentication": True, "singlefactorauthentication": False}


class SignIns:
    """Normaliser of one of the four sign-in logs."""

    def __init__(self, slug: str, interner: Interner) -> None:
        self.slug = slug
        self._user = slug in (INTERACTIVE, NON_INTERACTIVE)
        self._interner = interner
        self._envelope = msgspec.json.Decoder(Envelope).decode
        self._columns = msgspec.json.Decoder(Columns).decode
        self._graph = msgspec.json.Decoder(GraphApi).decode
        self._forms = [self._from_envelope, self._from_columns, self._from_graph]  # the form of the last record stands first
        self._seen: dict[tuple[Any, ...], tuple[Shape, Detail, str | None]] = {}

    def parse(self, line: bytes) -> Event:
        """The event of one sign-in. Raises: NotMine, Reject, msgspec.DecodeError, msgspec.ValidationError."""
        try:
            event = self._forms[0](line)
            return event if event is not None else self._search(line)
        except UNREADABLE as error:
            raise Reject(f"unreadable record: {error}") from None

    def _search(self, line: bytes) -> Event:
        """The record in another form than the last one had."""
        for form in self._forms[1:]:
            event = form(line)
            if event is not None:
                self._forms.remove(form)
                self._forms.insert(0, form)
                return event
        raise NotMine("neither `properties`, nor sign-in columns, nor `createdDateTime`")

    def _from_envelope(self, line: bytes) -> Event | None:
        record = self._envelope(line)
        p = record.properties
        if p is None:
            return None
        category = record.category
        if CATEGORIES.get(category or "") != self.slug:
            raise NotMine(f"category `{category}` is not of {self.slug}")
        if p.correlation_id is None:
            p.correlation_id = record.correlation_id
        return self._event(p, record.tenant_id or tenant_of(record.resource_id), record.result_type, record.time)

    def _from_columns(self, line: bytes) -> Event | None:
        row = self._columns(line)
        if not (row.created_date_time or row.time_generated):
            return None
        slug = TABLES.get(row.type or "") or CATEGORIES.get(row.category or "")
        if slug == INTERACTIVE and row.is_interactive in (False, "false", "False"):
            slug = NON_INTERACTIVE  # older exports of SigninLogs hold both
        if slug != self.slug:
            raise NotMine(f"a row of {slug or 'no sign-in log'}")
        return self._event(row, row.aad_tenant_id, row.result_type, row.time_generated)

    def _from_graph(self, line: bytes) -> Event | None:
        flat = self._graph(line)
        if not flat.created_date_time or not (flat.app_id or flat.sign_in_event_types):
            return None
        if graph_slug(flat.sign_in_event_types, flat.is_interactive, bool(flat.service_principal_id and not flat.user_id)) != self.slug:
            raise NotMine("`signInEventTypes` name another log")
        return self._event(flat, flat.resource_tenant_id, None, None)

    def _event(self, p: SignIn, tenant: str | None, result: str | int | None, written: str | None) -> Event:
        if result is None or result == "":
            result = _code(bytes(p.status))
        key: tuple[Any, ...]
        if self._user:
            binding = p.sign_in_token_protection_status
            key = (
                p.user_id,
                p.app_id,
                p.ip_address,
                p.user_agent,
                bytes(p.device_detail),
                p.resource_id,
                p.incoming_token_type,
                p.authentication_protocol,
                p.client_credential_type,
                p.authentication_requirement,
                p.original_transfer_method,
                p.conditional_access_status,
                p.risk_level_during_sign_in,
                p.client_app_used,
                p.user_principal_name,
                bytes(p.location),
                binding if binding is not None else bytes(p.token_protection_status_details),
                bytes(p.agent),
                p.autonomous_system_number,
                result,
                tenant,
            )
        else:
            key = (
                p.service_principal_id,
                p.app_id,
                p.ip_address,
                p.user_agent,
                p.resource_id,
                p.service_principal_credential_key_id,
                p.federated_credential_id,
                p.service_principal_credential_thumbprint,
                p.client_credential_type,
                p.authentication_protocol,
                p.conditional_access_status,
                p.risk_level_during_sign_in,
                p.app_owner_tenant_id,
                bytes(p.location),
                bytes(p.managed_service_identity),
                bytes(p.agent),
                p.autonomous_system_number,
                result,
                tenant,
            )
        found = self._seen.get(key)
        if found is None:
            if len(self._seen) >= CACHE_MAX:
                self._seen.clear()
            found = self._seen[key] = self._recurring(p, tenant, result)
        shape, template, credential = found
        time = moment(p.created_date_time or written)
        token = p.unique_token_identifier
        event_id = p.id or p.original_request_id or token or p.correlation_id
        if not event_id:
            raise Reject("a sign-in without `id`")
        # a workload gets a new session id with every token, so there it joins nothing
        session = (p.session_id or None) if self._user else None
        minted = token or None if shape.error is None else None
        return Event(time, event_id, shape, credential, session, None, 0, later(written, time), 0, template, minted)

    def _recurring(self, p: SignIn, tenant: str | None, result: str | int | None) -> tuple[Shape, Detail, str | None]:
        """What equal rows share: the shape, a detail without ids of its own, the credential. Slow; once per distinct row."""
        agentic, parent = _agentic(bytes(p.agent))
        device_id, managed, trust = _device(bytes(p.device_detail))
        owner = (p.app_owner_tenant_id or "").lower()
        confidential = (p.client_credential_type or "").lower() not in _EMPTY
        credential = None
        if not self._user:
            credential = (
                p.service_principal_credential_key_id or p.federated_credential_id or p.service_principal_credential_thumbprint or None
            )
        ip = address(p.ip_address)
        origin = NO_ORIGIN
        if ip is not None:
            # Rows of confidential clients on a user's behalf repeat the address of the first issue, not the caller's.
            origin = self._interner.origin(
                ip,
                number(p.autonomous_system_number) or None,
                _country(bytes(p.location)),
                trustworthy=not (self.slug == NON_INTERACTIVE and confidential),
            )
        protocol = (p.authentication_protocol or "").lower()
        incoming = _stated(p.incoming_token_type)
        legacy = (p.client_app_used or "").lower() in LEGACY
        grant = self._grant(protocol, (incoming or "").lower(), legacy)
        shape = self._interner.shape(
            self.slug,
            self._action(grant, p.client_app_used),
            self._actor(p, tenant, owner, agentic),
            origin,
            self._interner.agent(p.user_agent),
            _error(result),
            p.app_id or None,
            p.app_display_name or None,
            p.resource_id or p.resource_display_name or None,
            device_id,
            self._silent(agentic, confidential, grant, (incoming or "").lower()),
            tenant,
        )
        detail = Detail(
            grant=grant,
            interactive=self.slug == INTERACTIVE,
            incoming=incoming,
            transfer=_stated(p.original_transfer_method),
            credential_type=self._credential_type(p),
            mfa=_MFA.get((p.authentication_requirement or "").lower()),
            managed=managed,
            aggregated=self.slug == NON_INTERACTIVE,
            risk=p.risk_level_during_sign_in if p.risk_level_during_sign_in not in _UNTOLD else None,
            act=(parent,) if agentic and parent else (),
        )
        binding = p.sign_in_token_protection_status
        if binding is None:
            binding = _binding(bytes(p.token_protection_status_details))
        if binding in ("bound", "unbound"):
            detail.binding = binding
        if not self._user:
            detail.bound, detail.issuer, detail.subject = _attached(bytes(p.managed_service_identity))
        params: dict[str, Any] = {}
        if p.conditional_access_status:
            params["conditional_access"] = p.conditional_access_status
        if owner in MICROSOFT_TENANTS:
            params["client_owner"] = "microsoft"
        elif owner and tenant:
            params["client_owner"] = "tenant" if owner == tenant.lower() else "other"
        if trust:
            params["trust_type"] = trust
        if legacy:
            params["legacy_client"] = p.client_app_used
        if p.resource_display_name:
            params["resource_name"] = p.resource_display_name
        detail.params = params or None
        return shape, detail, credential

    def _actor(self, p: SignIn, tenant: str | None, owner: str, agentic: bool) -> Actor:
        if self._user:
            upn = (p.user_principal_name or "").lower()
            actor_id = p.user_id or upn
            if not actor_id:
                raise Reject("a user sign-in without `userId`")
            return self._interner.actor(actor_id, (upn,) if upn and upn != actor_id else (), "agent" if agentic else "human", tenant)
        actor_id = p.service_principal_id or p.app_id or ""
        if not actor_id:
            raise Reject("a workload sign-in without `servicePrincipalId`")
        names = tuple(name for name in (p.app_id, p.service_principal_name) if name and name != actor_id)
        first_party = owner in MICROSOFT_TENANTS
        if agentic:
            kind = "agent"
        elif first_party:
            kind = "service"
        elif self.slug == SERVICE_PRINCIPAL and owner and tenant and owner != tenant.lower():
            kind = "third_party_app"
        else:
            kind = "workload"
        return self._interner.actor(actor_id, names, kind, tenant, p.service_principal_name or None, None, first_party)

    def _grant(self, protocol: str, incoming: str, legacy: bool) -> str | None:
        grant = GRANTS.get(protocol)
        if grant is not None:
            return grant
        if not self._user:
            return "client_credentials"
        if protocol.startswith("implicit"):
            return "implicit"
        if legacy:
            return "password"
        if incoming == "refreshtoken":
            return "refresh_token"
        if incoming.startswith("primaryrefreshtoken"):
            return "primary_refresh_token"
        if incoming.startswith("saml"):
            return "saml"
        return "authorization_code" if self.slug == INTERACTIVE else "session"

    def _silent(self, agentic: bool, confidential: bool, grant: str | None, incoming: str) -> str | None:
        if self.slug == INTERACTIVE:
            return None
        if agentic:
            return "agent_tool"
        if not self._user or grant == "password":
            return "background_service"
        if confidential or grant == "on_behalf_of":
            return "delegated_application"
        if incoming == "refreshtoken" or grant in ("device_code", "refresh_token"):
            return "token_refresh"
        return "session_continuation"

    def _action(self, grant: str | None, client_app: str | None) -> Any:
        if self.slug != INTERACTIVE:
            return self._interner.action(self.slug, "silent-sign-in", lambda _: (Kind.SILENT_SIGN_IN, "entra", "auth", ()))
        if grant == "device_code":
            return self._interner.action(self.slug, "device-code-approval", lambda _: (Kind.DEVICE_CODE_APPROVAL, "entra", "auth", ()))
        if client_app == "Browser":
            return self._interner.action(self.slug, "browser-sign-in", lambda _: (Kind.SIGN_IN, "entra", "auth", (Tag.CONSOLE_LOGIN,)))
        return self._interner.action(self.slug, "sign-in", lambda _: (Kind.SIGN_IN, "entra", "auth", ()))

    def _credential_type(self, p: SignIn) -> str | None:
        if self.slug == MANAGED_IDENTITY:
            return "managed_identity"
        named = CREDENTIAL_TYPES.get((p.client_credential_type or "").lower())
        if not self._user and named in (None, "none"):
            if p.federated_credential_id:
                return "federated"
            return "certificate" if p.service_principal_credential_thumbprint else named
        return named


def _stated(value: str | None) -> str | None:
    return value if value is not None and value.lower() not in _EMPTY else None


def _error(result: str | int | None) -> str | None:
    """Code of a failure; None for success."""
    if result is None or result in (0, "0", ""):
        return None
    return None if str(result).lower() in ("success", "none") else str(result)


# The following read parts that recur, from their bytes.


@lru_cache(maxsize=4096)
def _code(status: bytes) -> str | int | None:
    code = mapping(embedded(status)).get("errorCode")
    return code if isinstance(code, str | int) else None


@lru_cache(maxsize=4096)
def _country(place: bytes) -> str | None:
    value = embedded(place)
    return country_of(mapping(value).get("countryOrRegion") if isinstance(value, dict) else value)


@lru_cache(maxsize=256)
def _binding(details: bytes) -> str | None:
    return text(mapping(embedded(details)).get("signInSessionStatus"))


@lru_cache(maxsize=256)
def _agentic(agent: bytes) -> tuple[bool, str | None]:
    """Whether an agent identity acts, and the application it was made from."""
    value = mapping(embedded(agent))
    kind = text(value.get("agentType")) or "notAgentic"
    return kind.lower() not in ("notagentic", "none", "unknownfuturevalue"), text(value.get("parentAppId"))


@lru_cache(maxsize=256)
def _attached(identity: bytes) -> tuple[str | None, str | None, str | None]:
    """Of a managed identity: the resource it is attached to (lower case, since the log varies it), federated issuer and token id."""
    value = mapping(embedded(identity))
    resource = text(value.get("associatedResourceId"))
    return resource.lower() if resource else None, text(value.get("federatedTokenIssuer")), text(value.get("federatedTokenId"))


@lru_cache(maxsize=4096)
def _device(detail: bytes) -> tuple[str | None, bool | None, str | None]:
    """Device id, whether it is managed or compliant (None where the row says nothing of the device itself), trust type."""
    device = mapping(embedded(detail))
    flags = [device.get("isManaged"), device.get("isCompliant")]
    managed: bool | None = None
    if any(flag in (True, "true", "True") for flag in flags):
        managed = True
    elif any(flag is not None for flag in flags) and any(text(device.get(name)) for name in ("deviceId", "operatingSystem", "browser")):
        managed = False
    return text(device.get("deviceId")), managed, text(device.get("trustType"))


def graph_slug(event_types: Any, interactive: Any, userless: bool) -> str:
    """Which of the four logs a Graph API record belongs to."""
    if isinstance(event_types, list):
        for name in event_types:
            slug = EVENT_TYPES.get(name) if isinstance(name, str) else None
            if slug is not None:
                return slug
    if userless:
        return SERVICE_PRINCIPAL
    return NON_INTERACTIVE if interactive is False else INTERACTIVE


def slug_of(record: dict[str, Any]) -> str | None:
    """Which sign-in log a decoded record belongs to; None if to none."""
    category = record.get("category")
    if isinstance(category, str) and category in CATEGORIES:
        return CATEGORIES[category] if isinstance(record.get("properties"), dict) else None
    table = record.get("Type")
    column_category = record.get("Category")
    slug = TABLES.get(table) if isinstance(table, str) else None
    if slug is None and isinstance(column_category, str) and ("CreatedDateTime" in record or "AppId" in record):
        slug = CATEGORIES.get(column_category)
    if slug is not None:
        return NON_INTERACTIVE if slug == INTERACTIVE and record.get("IsInteractive") in (False, "false", "False") else slug
    if "createdDateTime" in record and "appId" in record and ("signInEventTypes" in record or "conditionalAccessStatus" in record):
        return graph_slug(
            record.get("signInEventTypes"), record.get("isInteractive"), bool(record.get("servicePrincipalId") and not record.get("userId"))
        )
    return None
