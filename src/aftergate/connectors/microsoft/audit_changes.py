"""What a directory audit record changed: keys, redirect addresses, consent, roles, conditional access, accounts, factors.

Some operation names tell too little: "Update application" may add a federated subject or a redirect address. Such names get a
suffix in brackets, from what changed, so that one action always means one thing.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from aftergate.connectors.microsoft.audit_operations import DASHES
from aftergate.connectors.microsoft.audit_records import Resource
from aftergate.connectors.microsoft.common import loose, mapping, secretive, short, text
from aftergate.events.redact import secret_key
from aftergate.vocabulary import Change, Detail, Target
from aftergate.vocabulary.patterns import regex

_KEY_ID: Final = regex(r"KeyIdentifier=([0-9a-fA-F-]{8,64})")
_KEY_TYPE: Final = regex(r"KeyType=(\w+)")
_SCOPE: Final = regex(r"Scopes?:\s*\[?([^,\]\[]*)")
_CONSENT_TYPE: Final = regex(r"ConsentType:\s*(\w+)")


class Reader:
    """Reads one record's targets and changed properties into an action name and a Detail."""

    def __init__(self, name: str, resources: list[Resource], extra: dict[str, str | None], reason: str | None) -> None:
        self.name = name
        self.detail = Detail()
        self._params: dict[str, Any] = {}
        self._extra = extra
        self._key = name.lower().translate(DASHES)
        changed = [(m.display_name or "", _plain(m.old_value), _plain(m.new_value)) for r in resources for m in r.modified_properties or []]
        self._changed = {label: (old, new) for label, old, new in changed}
        targets = [_target(r) for r in resources if r.id or r.display_name or r.user_principal_name]
        self.detail.targets = tuple(self._ordered(targets))
        self._keys()
        self._federated()
        self._redirects()
        self._consent()
        self._role()
        self._policy()
        self._account()
        self._factor(reason)
        if not self.detail.changes:
            self.detail.changes = tuple(
                Change(label, _shown(label, old), _shown(label, new))
                for label, old, new in changed
                if label and label != "Included Updated Properties"
            )[:12]
        for key in ("Justification", "ExpirationTime", "StartTime", "TicketNumber", "invitedUserEmailAddress"):
            if extra.get(key):
                self._params[key] = short(extra[key])
        self.detail.params = self._params or None

    def _value(self, label: str) -> str | None:
        """New value of a property as text; the old one where something was taken away."""
        old, new = self._changed.get(label, (None, None))
        return _word(new) or _word(old)

    def _ordered(self, targets: list[Target]) -> list[Target]:
        """The targets with what the operation acts on first: the identity that gains, not the thing it gains."""
        named = self._value("ServicePrincipal.ObjectID") or self._value("Application.ObjectID") or self._value("Group.ObjectID")
        if "owner" in self._key:
            # The log puts the new owner first; acted on is what he now owns.
            if named and not any(t.id == named for t in targets):
                label = self._value("ServicePrincipal.DisplayName") or self._value("Application.DisplayName")
                targets = [*targets, Target(named, "ServicePrincipal", (label,) if label else ())]
            if len(targets) > 1 and "device" not in self._key:
                owners = [t for t in targets if t.type == "User"] or targets[:1]
                self._params["owner"] = owners[0].id
                return [t for t in targets if t is not owners[0]] + [owners[0]]
            return targets
        if "permission grant" in self._key or "permissiongrant" in self._key or "app role assignment to service principal" in self._key:
            # The log puts the API first; acted on is the client application.
            if targets:
                self._params["api"] = targets[0].names[0] if targets[0].names else targets[0].id
            if named:
                client = next((t for t in targets if t.id == named), None) or Target(
                    named, "ServicePrincipal", tuple(n for n in (self._value("ServicePrincipal.DisplayName"),) if n)
                )
                return [client, *(t for t in targets if t.id != named)]
            return targets
        if "role" in self._key or "group" in self._key:
            holders = [
                t for t in targets if t.type not in ("Role", "Group", "RoleAssignment", "RoleDefinition", "Request", "Other", "Directory")
            ]
            return holders + [t for t in targets if t not in holders]
        return targets

    def _keys(self) -> None:
        pair = self._changed.get("KeyDescription")
        if pair is None:
            return
        old, new = (dict.fromkeys(_KEY_ID.findall(_flat(side))) for side in pair)
        added = tuple(key for key in new if key not in old)
        removed = [key for key in old if key not in new]
        if added:
            self.detail.issued = added
            types = _KEY_TYPE.findall(_flat(pair[1]))
            fresh = next((kind for key, kind in zip(new, types, strict=False) if key in added), "")
            self.detail.issued_class = "certificate" if "cert" in fresh.lower() or fresh.startswith("Asym") else "client_secret"
        if removed:
            self._params["removed"] = removed
        if added or removed:
            self.name += " [replaced]" if added and removed else " [added]" if added else " [removed]"

    def _federated(self) -> None:
        pair = self._changed.get("FederatedIdentityCredentials")
        if pair is None:
            return
        old, new = ([item for item in _items(side) if isinstance(item, dict)] for side in pair)
        fresh = [item for item in new if item not in old]
        self.name += " [federated credential]" if fresh or not old else " [federated credential removed]"
        if fresh:
            item = {str(key).lower(): value for key, value in fresh[0].items()}
            self.detail.issuer = text(item.get("issuer"))
            self.detail.subject = text(item.get("subject"))
            if text(item.get("id")):
                self.detail.issued, self.detail.issued_class = (str(item["id"]),), "federated"
        gone = [item.get("Id") or item.get("Name") for item in old if item not in new]
        if gone:
            self._params["removed"] = [str(item) for item in gone if item]
        self.detail.credential_type = "federated"

    def _redirects(self) -> None:
        labels = {"AppAddress", "ReplyUrls", "ReplyUrl", "RedirectUris", "AddressType", "WebRedirectUris", "PublicClientRedirectUris"}
        if not self._key.startswith(("update application", "update service principal")) or "[" in self.name:
            return
        for label in labels & self._changed.keys():
            old, new = self._changed[label]
            if old != new:
                self.name += " [redirect]"
                before, after = _addresses(old), _addresses(new)
                self._params["redirect_added"] = [short(url) for url in sorted(after - before)]
                self._params["redirect_removed"] = [short(url) for url in sorted(before - after)]
                return
        if "RequiredResourceAccess" in self._changed or "RequiredResourceAccess" in (self._value("Included Updated Properties") or ""):
            self.name += " [permissions]"

    def _consent(self) -> None:
        granted = self._changed.get("ConsentAction.Permissions")
        scopes: list[str] = []
        kind = None
        if granted is not None:
            old, arrow, new = _flat(granted[1]).partition("=>")
            now = new if arrow else old
            before = {word for part in _SCOPE.findall(old) for word in part.split()} if arrow else set()
            scopes = [word for part in _SCOPE.findall(now) for word in part.split()]
            self._params["scopes_added"] = [word for word in dict.fromkeys(scopes) if word not in before]
            kinds = _CONSENT_TYPE.findall(now)
            kind = kinds[-1] if kinds else None
        elif "DelegatedPermissionGrant.Scope" in self._changed:
            before_text, after_text = self._changed["DelegatedPermissionGrant.Scope"]
            scopes = (_word(after_text) or "").split()
            before = set((_word(before_text) or "").split())
            self._params["scopes_added"] = [word for word in dict.fromkeys(scopes) if word not in before]
            kind = self._value("DelegatedPermissionGrant.ConsentType")
        elif "AppRole.Value" in self._changed:
            scopes = (self._value("AppRole.Value") or "").split()
            self._params["scopes_added"] = scopes
            kind = "AllPrincipals"
        elif "consent" not in self._key:
            return
        self.detail.scopes = tuple(dict.fromkeys(scopes))
        admin = (self._value("ConsentContext.IsAdminConsent") or "").lower() == "true" or kind == "AllPrincipals"
        self._params["consent_type"] = "admin" if admin else "user"
        if (self._value("ConsentContext.IsAppOnly") or "").lower() == "true":
            self._params["app_only"] = True
        if self.detail.targets and self.detail.targets[0].names:
            self._params["app_name"] = self.detail.targets[0].names[0]
        app_id = self._value("TargetId.ServicePrincipalNames") or self._value("ServicePrincipal.AppId") or self._extra.get("AppId")
        if app_id:
            self._params["app_id"] = app_id.split(";")[0].split(",")[0].strip()
        for key, value in self._extra.items():
            if "publisher" in key.lower() and value:
                self._params["publisher_verified"] = value.lower() not in ("false", "none", "unverified", "0")

    def _role(self) -> None:
        if "role" not in self._key or "app role" in self._key:
            if self._key == "add member to group" and (self._value("Group.IsAssignableToRole") or "").lower() == "true":
                self.name += " [role-assignable]"
            return
        role = self._value("Role.DisplayName") or next((t.names[0] for t in self.detail.targets if t.type == "Role" and t.names), None)
        if role:
            self._params["role"] = role
        template = self._value("Role.TemplateId")
        if template:
            self._params["role_template"] = template
        if "outside of pim" in self._key:
            self._params["assignment"] = "outside_pim"
        elif "eligible" in self._key:
            self._params["assignment"] = "eligible"
        elif "activation" in self._key:
            self._params["assignment"] = "activation"
        elif "timebound" in self._key:
            self._params["assignment"] = "timebound"
        elif "add" in self._key:
            self._params["assignment"] = "permanent"

    def _policy(self) -> None:
        pair = self._changed.get("ConditionalAccessPolicy")
        if pair is None:
            return
        old, new = (mapping(loose(side)) for side in pair)
        before, after = _policy_facts(old), _policy_facts(new)
        self.detail.changes = tuple(
            Change(label, short(before.get(label)), short(after.get(label)))
            for label in dict.fromkeys([*before, *after])
            if before.get(label) != after.get(label)
        )
        if after.get("state"):
            self._params["state"] = after["state"]
        if old and new and _weaker(before, after):
            self.name += " [weakened]"

    def _account(self) -> None:
        pair = self._changed.get("AccountEnabled")
        if pair is None or self._key not in ("update user", "update service principal"):
            if self._key == "update user" and any(label.startswith("StrongAuthentication") for label in self._changed):
                self.name += " [strong authentication]"
            return
        now = _flat(pair[1]).lower()
        if "false" in now:
            self.name += " [disabled]"
        elif "true" in now and "false" in _flat(pair[0]).lower():
            self.name += " [enabled]"

    def _factor(self, reason: str | None) -> None:
        if "security info" in self._key or "authentication method" in self._key or "temporary access pass" in self._key:
            method = (reason or "").strip()
            for lead in ("User registered ", "Admin registered ", "User deleted ", "Admin deleted ", "User added ", "Admin added "):
                method = method.removeprefix(lead)
            if "temporary access pass" in (method + self._key).lower():
                method = "temporary access pass"
            if method:
                self._params["method"] = short(method)


def _plain(value: Any) -> Any:
    """A property's value with the text layers around it taken off: `"\\"x\\""` is x, `"[\\"x\\"]"` is ["x"]."""
    return loose(value)


def _flat(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else msgspec.json.encode(value).decode()


def _word(value: Any) -> str | None:
    """A value as one word or sentence; a list of one is its item."""
    if isinstance(value, list):
        value = value[0] if len(value) == 1 else " ".join(item for item in value if isinstance(item, str))
    if isinstance(value, bool):
        return "true" if value else "false"
    return text(value)


def _items(value: Any) -> list[Any]:
    """A value as a list, its items freed of text around them."""
    if isinstance(value, str):
        value = loose(value)
    return [loose(item) for item in value] if isinstance(value, list) else [value] if isinstance(value, dict) else []


def _addresses(value: Any) -> set[str]:
    return set(re.findall(r"[a-zA-Z][a-zA-Z0-9+.-]*://[^\s\"',\]\[}]+", _flat(value)))


def _shown(label: str, value: Any) -> str | None:
    """A changed value for people. Certificates and secrets are cut to what tells them apart."""
    if value is None or value in ([], "") or secret_key(label):
        return None
    shown = short(value if not (isinstance(value, list) and len(value) == 1) else value[0])
    if shown and secretive(label) and "KeyDescription" not in label and "StsRefreshTokens" not in label:
        return shown[:16] + ("..." if len(shown) > 16 else "")
    return shown


def _target(resource: Resource) -> Target:
    names = tuple(name for name in ((resource.user_principal_name or "").lower(), resource.display_name) if name and name != resource.id)
    return Target(resource.id or names[0], resource.type or "", names)


_LISTS: Final = ("includeUsers", "includeGroups", "includeRoles", "excludeUsers", "excludeGroups", "excludeRoles")


def _policy_facts(policy: dict[str, Any]) -> dict[str, Any]:
    """What a conditional access policy demands of whom, as flat values."""
    facts: dict[str, Any] = {}
    state = text(policy.get("state"))
    if state:
        facts["state"] = state
    conditions = mapping(policy.get("conditions"))
    users = mapping(conditions.get("users"))
    for name in _LISTS:
        if isinstance(users.get(name), list) and users[name]:
            facts[name] = sorted(str(item) for item in users[name])
    for part, names in (
        ("applications", ("includeApplications", "excludeApplications")),
        ("locations", ("includeLocations", "excludeLocations")),
        ("platforms", ("includePlatforms", "excludePlatforms")),
    ):
        section = mapping(conditions.get(part))
        for name in names:
            if isinstance(section.get(name), list) and section[name]:
                facts[name] = sorted(str(item) for item in section[name])
    if isinstance(conditions.get("clientAppTypes"), list):
        facts["clientAppTypes"] = sorted(str(item) for item in conditions["clientAppTypes"])
    controls = mapping(policy.get("grantControls"))
    if isinstance(controls.get("builtInControls"), list):
        facts["grantControls"] = sorted(str(item) for item in controls["builtInControls"])
    if controls.get("operator"):
        facts["grantOperator"] = str(controls["operator"])
    if policy.get("sessionControls"):
        facts["sessionControls"] = _flat(policy["sessionControls"])
    return facts


_STRENGTH: Final = {"enabled": 2, "enabledforreportingbutnotenforced": 1, "disabled": 0}


def _weaker(before: dict[str, Any], after: dict[str, Any]) -> bool:
    """True if a policy that was in force now demands less: switched off or to report-only, more left out, a control dropped."""
    was, now = (_STRENGTH.get(str(side.get("state", "enabled")).lower(), 2) for side in (before, after))
    if was < 2:
        return False
    if now < was:
        return True
    if any(set(after.get(name, ())) - set(before.get(name, ())) for name in before.keys() | after.keys() if name.startswith("exclude")):
        return True
    for name in ("includeUsers", "includeGroups", "includeRoles", "includeApplications"):
        lost = set(before.get(name, ())) - set(after.get(name, ()))
        if lost and "All" not in after.get(name, ()):
            return True
    if set(before.get("grantControls", ())) - set(after.get("grantControls", ())):
        return True
    return before.get("grantOperator") == "AND" and after.get("grantOperator") == "OR"
