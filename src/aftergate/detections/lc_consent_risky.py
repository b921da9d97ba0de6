"""An application was given powerful access, by somebody or for everybody."""

from __future__ import annotations

import re
import unicodedata

from msgspec import Struct, field

from aftergate.detections.api import Meta, Rule, on, raise_to, subject_of
from aftergate.detections.reasoning import established, place, strangeness, when, who
from aftergate.lineage.state import DAY_MS, HOUR_MS, Identity
from aftergate.lineage.tracking import Facts
from aftergate.vocabulary import RANK, Event, Severity, Tag
from aftergate.vocabulary.patterns import regex

_ROLLOUT = 5  # other people who use or authorise an app make it the organisation's
# what a permission opens: 4 the tenant or everybody's rights, 3 all content of a person or the organisation, 2 some content, 1 little, 0 sign-in only
_WEIGHTS: tuple[tuple[int, re.Pattern[str]], ...] = tuple(
    (weight, regex(pattern, re.IGNORECASE))
    for weight, pattern in (
        (
            0,
            r"openid|profile|email|User\.Read|address|phone|.*userinfo\.(?:email|profile)|.*auth/plus\.(?:me|login)|.*/drive\.file|.*/drive\.appdata",
        ),
        (0, r".*\.default|okta\.myAccount\.profile\.read|read:user|user:email|web-origins|roles|acr|basic|.*calendar\.(?:app|freebusy).*"),
        (
            4,
            r"RoleManagement\.ReadWrite\..*|AppRoleAssignment\.ReadWrite\.All|(?:Application|Directory|Domain|Organization|Policy)\.ReadWrite\..*",
        ),
        (4, r"Directory\.AccessAsUser\.All|PrivilegedAccess\.ReadWrite.*|full_access_as_app|UserAuthenticationMethod\.ReadWrite\.All"),
        (
            4,
            r"(?:User|Group|GroupMember|Device|DeviceManagement\w*)\.ReadWrite\.All|ServicePrincipalEndpoint\.ReadWrite\.All|Policy\.ReadWrite.*",
        ),
        (4, r".*/admin\.directory\.(?:user|group|rolemanagement|domain|orgunit|customer)(?:\.security|\.member)?|.*/cloud-platform"),
        (4, r"okta\.(?:users|apps|roles|groups|policies|authorizationServers|idps|clients|apiTokens|logStreams|factors|schemas)\.manage"),
        (
            4,
            r"admin:(?:org|enterprise|org_hook|repo_hook|public_key)|site_admin|delete_repo|administration=write|organization_administration=write",
        ),
        (
            3,
            r"(?:Mail|MailboxSettings|Files|Sites|Chat|ChannelMessage|Notes|OnlineMeetingTranscript)\.(?:ReadWrite|Read|FullControl|Manage)(?:\.All|\.Shared)?",
        ),
        (3, r"Mail\.Send(?:\.Shared)?|EWS\.AccessAsUser\.All|(?:IMAP|POP|SMTP)\.\w+|user_impersonation|AuditLog\.Read\.All|AllSites\.\w+"),
        (
            3,
            r".*mail\.google\.com/?|.*/gmail\.(?:readonly|modify|insert|settings\.\w+|compose)|.*/drive(?:\.readonly|\.activity.*)?|.*/spreadsheets",
        ),
        (
            3,
            r".*/(?:ediscovery|cloud_search.*|documents|apps\.groups.*|chat\.messages.*|admin\.(?:datatransfer|reports.*)|vault.*|devstorage.*|bigquery)",
        ),
        (
            3,
            r"repo|workflow|write:(?:org|packages|discussion)|read:org_hook|codespace.*|okta\.\w+\.(?:manage|read)|(?:contents|workflows|secrets|members)=\w+",
        ),
        (
            2,
            r"(?:Contacts|Calendars|People|Tasks|Directory|User|Group|GroupMember|Reports|Team\w*|Device)\.(?:Read|ReadWrite|ReadBasic)(?:\.All|\.Shared)?",
        ),
        (
            2,
            r".*/gmail\.(?:send|metadata|labels)|.*/(?:contacts|calendar|calendar\.events|tasks|admin\..*\.readonly|directory\.readonly)|public_repo",
        ),
        (1, r"offline_access|.*readonly|.*\.Read(?:Basic)?(?:\.All|\.Shared)?|read:.*|gist|notifications"),
    )
)
_BRANDS = (
    "microsoft outlook sharepoint onedrive office teams azure exchange google gmail workspace drive okta github slack zoom docusign dropbox adobe "
    "salesforce atlassian confluence servicenow workday onelogin duo amazon apple linkedin webex notion"
).split()
_SPELT = frozenset(
    "microsoft outlook sharepoint onedrive google docusign dropbox salesforce atlassian confluence servicenow linkedin".split()
)
_TWINS = str.maketrans("0134578$@|аеорсухіјѕԁӏαονιρτκ", "oleastbsalaeopcyxijsdlaoviptk")
_OKTA_SCOPE = regex(r"okta\.\w+\.\w+|openid|profile|email|phone|address|groups|offline_access|[a-z_]+\.(?:read|write|manage)")
_WORDS = regex(r"[^\W_]+", re.UNICODE)


class _Grant(Struct):
    """One act: the rows of one consent, which share application and person, and come within minutes."""

    event: Event
    identity: Identity
    rows: list[str]
    scopes: list[str]
    wide: bool  # for everybody, or for the application itself
    strange: int
    why: tuple[str, ...]
    settled: bool


class _App(Struct):
    ids: set[str] = field(default_factory=set)
    names: list[str] = field(default_factory=list)
    made: int = 0  # when the log shows it coming into the organisation
    made_by: str = ""
    made_event: str = ""
    approved: int = 0
    verified: bool | None = None
    grants: list[_Grant] = field(default_factory=list)


class Detection(Rule):
    meta = Meta(
        slug="lc-consent-risky",
        title="Powerful access given to an application",
        severity="high",
        about=(
            "Somebody consented to, installed or authorised an application that may now read mail and files or change the tenant, without a "
            "password ever being stolen. It weighs the permissions, how many in the organisation use the app, how new it is, whether its name "
            "imitates a known one, and from where the consent came."
        ),
        attack=("T1528", "T1671"),
        nhi=("NHI3",),
        needs=(("consent", "scopes"), ("consent",)),
        traps=(
            "Sign-in and basic profile only.",
            "Roll-out of a bought product: an administrator approved it before, many people authorise or use it, or a change ticket names it.",
            "The usual program of a small organisation: most of its people authorise it and still use it a week later.",
            "An administrator with a history, at the usual place, approves an ordinary app.",
        ),
        blind=("Entra's log does not tell the publisher's age, and forges tell an app's permissions only in part.",),
        recommended=(
            "Ask the person whether they meant to, and look up the publisher",
            "Revoke the grant and the app's refresh tokens, and disable the app",
            "Limit user consent to verified publishers and low permissions",
        ),
    )
    subscriptions = (on(tags=(Tag.CONSENT, Tag.APP_CREATE)),)

    def start(self) -> None:
        self.apps: dict[str, _App] = {}
        self.by_act: dict[str, str] = {}  # correlation -> application

    def step(self, event: Event, facts: Facts) -> None:
        if not event.ok:
            return
        detail = event.d
        params = detail.params or {}
        name = event.shape.client or event.target or ""
        if event.source.startswith(("entra.", "m365.", "graph.", "github.")) or not name:
            name = event.target or event.shape.client or params.get("integration") or ""
        if event.source.startswith("github.") and event.shape.client_name:
            name = f"github:{event.shape.client_name}"
        scopes = params.get("scopes_added") or detail.scopes or ()
        if event.source == "okta":
            # a grant lists the scopes among its targets, sometimes before the application
            name = next((t.id for t in detail.targets if "app" in t.type.lower() or "client" in t.type.lower()), name)
            scopes = scopes or [text for t in detail.targets for text in (t.id, *t.names) if _OKTA_SCOPE.fullmatch(text)]
        if not name:
            return
        app = self.apps.get(name)
        if app is None:
            app = self.apps[name] = _App()
        app.ids.update(i for i in (name, event.shape.client, params.get("app_id")) if isinstance(i, str))
        first = next((t for t in detail.targets if t.id == name), None)
        for known in (
            event.shape.client_name,
            params.get("app_name"),
            params.get("integration"),
            *(first.names if first is not None else ()),
        ):
            if isinstance(known, str) and known and known not in app.names:
                app.names.append(known)
        if "publisher_verified" in params:
            app.verified = bool(params["publisher_verified"])
        action = event.action
        if isinstance(params.get("APPLICATION_NAME"), str) and not app.names:
            app.names.append(params["APPLICATION_NAME"])
        if Tag.APP_CREATE in action.tags and action.name != "admin/ADD_APPLICATION":
            app.made, app.made_by, app.made_event = app.made or event.time, facts.identity.id, event.id
            return
        if Tag.DEFENCE_CHANGE in action.tags or action.name == "org.oauth_app_access_approved":
            app.approved = app.approved or event.time  # put on the list of trusted apps: an administrator's decision
            return
        if action.name.startswith(("org_credential_authorization", "Remove")):
            return
        if not scopes and isinstance(params.get("permissions_added"), dict):
            scopes = [f"{key}={value}" for key, value in params["permissions_added"].items()]
        installed = action.name in ("integration_installation.create", "admin/ADD_APPLICATION")
        if not scopes and not installed:
            return
        wide = installed or params.get("consent_type") == "admin" or bool(params.get("app_only")) or Tag.PRIVILEGE_GRANT in action.tags
        for grant in reversed(app.grants):
            if grant.identity is facts.identity and event.time - grant.event.time < 10 * 60_000:
                grant.rows.append(event.id)
                grant.scopes.extend(s for s in scopes if s not in grant.scopes)
                grant.wide = grant.wide or wide
                grant.event = event
                return
        strange = strangeness(self.world, facts.identity, event)
        settled = established(facts.identity, event.time)
        app.grants.append(
            _Grant(event, facts.identity, [event.id], list(scopes), wide, strange.score if settled else 0, strange.reasons, settled)
        )

    def finish(self) -> None:
        for key in sorted(self.apps):
            app = self.apps[key]
            for grant in app.grants:
                self._judge(key, app, grant)

    def _judge(self, key: str, app: _App, grant: _Grant) -> None:
        event = grant.event
        label = app.names[0] if app.names else key
        weight, worst = _weigh(grant.scopes)
        imitated = self._imitates(app, label)
        unknown = not grant.scopes
        severity: Severity = "medium"
        reasons: list[str] = []
        delegated = event.action.name.replace("_", "").lower().endswith("authorizeapiclientaccess")
        if weight >= 4 or (weight >= 3 and grant.wide):
            severity = "high"
        elif weight < 3 and not delegated and not (weight == 2 and (imitated or grant.strange >= 3)) and not unknown:
            if imitated is None:
                return
            severity = "low"
        if delegated:
            reasons.append("for every account of the domain")
        elif grant.wide and not unknown:
            reasons.append("for everybody or for the application itself")
        if imitated is not None:
            reasons.append(f"the name imitates {imitated}")
            severity = raise_to("high", severity) if weight >= 2 else severity
        if app.made and 0 <= event.time - app.made < DAY_MS:
            reasons.append("the application came into the organisation just before")
            if weight >= 3 and not grant.wide:
                severity = raise_to("high", severity)
        if app.verified is False:
            reasons.append("its publisher is not verified")
            if weight >= 3:
                severity = raise_to("high", severity)
        if grant.strange >= 3:
            reasons.append(", ".join(grant.why))
            if RANK[severity] >= RANK["medium"]:
                severity = raise_to("high", severity)
        trap = self._explained(app, grant, imitated, weight)
        if trap == "ticket":
            return
        if trap:
            severity = "low"
        what = ", ".join(worst[:6]) if worst else "permissions the log does not tell"
        why = f" Beside that: {'; '.join(reasons)}." if reasons else ""
        self.report(
            f"{key}|{grant.identity.id}",
            event,
            severity=severity,
            narrative=f"{who(event)} gave \u201c{label}\u201d {what} at {when(event.time)} from {place(event.origin)}.{why}",
            subject=subject_of(grant.identity, event, identities=sorted(app.ids), credentials=event.d.issued),
            evidence=[*grant.rows, *([app.made_event] if app.made_event else [])],
            traps=(trap,) if trap else (),
        )

    def _explained(self, app: _App, grant: _Grant, imitated: str | None, weight: int) -> str:
        """Which trap makes the grant an ordinary one; `ticket` for a declared change."""
        now = grant.event.time
        if self.directory.ticket_for([*app.names, *app.ids], now):
            return "ticket"
        if imitated is not None or grant.strange >= 3 or app.verified is False:
            return ""
        if app.approved and app.approved <= now:
            return "an administrator put the application on the list of trusted ones before"
        if app.verified and weight <= 3 and not grant.wide:
            return "its publisher is verified"
        others = {g.identity.id for g in app.grants} - {grant.identity.id}
        users = {
            i.id
            for i in self.world.identities.values()
            if i is not grant.identity and any(i.clients.get(c, now) < now - HOUR_MS for c in app.ids)
        }
        if len(users) >= _ROLLOUT or (len(others) >= _ROLLOUT and weight < 4):
            return f"{max(len(users), len(others))} others in the organisation use it or authorised it"
        if weight < 4 and not grant.wide and self._everybodys(app):
            return "most people of the organisation authorised it and still use it a week later"
        if not grant.wide and any(g.wide and g.event.time < now and g.strange < 3 for g in app.grants):
            return "an administrator consented for all before"
        if grant.wide and grant.settled and not grant.strange and weight <= 3:
            later = {i.id for i in self.world.identities.values() if i is not grant.identity and any(c in i.clients for c in app.ids)}
            if not grant.scopes or len(later | others) >= 3:
                return "an established administrator at the usual place; people went on to use it"
        return ""

    def _everybodys(self, app: _App) -> bool:
        """True for the ordinary program of a small organisation: most of its people authorised it and three or more used it for a week after."""
        stayed: set[str] = set()
        for grant in app.grants:
            for name in (grant.event.credential, *grant.event.d.issued):
                life = self.world.lives.get(name or "")
                if life is not None and life.count and life.last - grant.event.time >= 7 * DAY_MS:
                    stayed.add(grant.identity.id)
        together = {grant.identity.id for grant in app.grants if grant.strange < 3}
        if len(stayed) < 3 or len(together) < 4:
            return False
        people = sum(1 for identity in self.world.identities.values() if identity.kind == "human" and identity.count)
        return len(together) * 2 > people

    def _imitates(self, app: _App, label: str) -> str | None:
        """The known name that this one is written to look like, or None."""
        for word in _WORDS.findall(label):
            plain = word.lower()
            if plain in _BRANDS:
                continue
            twin = _twin(plain)
            for brand in _BRANDS:
                if twin == brand or (brand in _SPELT and _one_edit(plain, brand)):
                    return brand.capitalize()
        whole = _twin(label.lower())
        if len(whole) >= 6:
            for other_key in sorted(self.apps):
                other = self.apps[other_key]
                if other is app or other.ids & app.ids or not other.names or len({g.identity.id for g in other.grants}) < 2:
                    continue
                for name in other.names:
                    if name.lower() != label.lower() and _twin(name.lower()) == whole:
                        return name
        return None


def _weigh(scopes: list[str]) -> tuple[int, list[str]]:
    """The greatest weight, and the permissions that have at least 2, heaviest first."""
    weighed = sorted(((_weight(scope), n, scope) for n, scope in enumerate(scopes)), key=lambda row: (-row[0], row[1]))
    return (weighed[0][0] if weighed else 0), [
        scope.rpartition("/auth/")[2] for weight, _, scope in weighed if weight >= min(2, weighed[0][0])
    ]


def _weight(scope: str) -> int:
    name = scope.strip().removeprefix("https://graph.microsoft.com/").removeprefix("https://outlook.office.com/")
    for weight, pattern in _WEIGHTS:
        if pattern.fullmatch(name):
            return weight
    return 2 if re.search(r"write|manage|full|admin|delete|\.all\b", name, re.IGNORECASE) else 1


def _twin(text: str) -> str:
    """What a hurried reader takes the text for."""
    plain = unicodedata.normalize("NFKD", text).translate(_TWINS).replace("rn", "m").replace("vv", "w")
    return "".join(c for c in plain if c.isalnum())


def _one_edit(word: str, brand: str) -> bool:
    """True when one letter was left out, put in, changed or swapped with its neighbour. Plurals and possessives are no imitation."""
    if word == brand or word.rstrip("s") == brand.rstrip("s") or abs(len(word) - len(brand)) > 1 or word[0] != brand[0]:
        return False
    start = 0
    while start < min(len(word), len(brand)) and word[start] == brand[start]:
        start += 1
    a, b = word[start:], brand[start:]
    return a[1:] == b[1:] or a[1:] == b or a == b[1:] or (a[:2] == b[1::-1] and a[2:] == b[2:])
