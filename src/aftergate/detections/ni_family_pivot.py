"""A person's refresh token is spent for a client or resource they never used, from a place they never were."""

from __future__ import annotations

from aftergate.detections.api import Meta, Rule, on, subject_of
from aftergate.detections.reasoning import RENTED, SCRIPTED, agent_new, established, homes, ours, place, same_place, who
from aftergate.lineage.tracking import Facts
from aftergate.vocabulary import Bit, Event, Kind, Severity

# Clients of the office suite, whose refresh tokens hop among each other all day. Microsoft publishes the ids of its own applications.
OFFICE = frozenset(
    {
        "d3590ed6-52b3-4102-aeff-aad2292ab01c",  # Office
        "1fec8e78-bce4-4aaf-ab1b-5451cc387264",  # Teams
        "27922004-5251-4030-b22d-91ecd9a37ea4",  # Outlook Mobile
        "ab9b8c07-8f02-4f72-87fa-80105867a763",  # OneDrive SyncEngine
        "5d661950-3475-41cd-a2c3-d671a3162bc1",  # Outlook
        "4e291c71-d680-4d0e-9640-0a3358e31177",  # PowerApps
        "89bee1f7-5e6e-4d8a-9f3d-ecd601259da7",  # Office365 Shell
        "4765445b-32c6-49b0-83e6-1d93765276ca",  # Office web apps
        "08e18876-6177-487e-b8b5-cf950c1e598c",  # SharePoint web client extensibility
        "00b41c95-dab0-4487-9791-b9d2c32c80f2",  # Office 365 management
        "0ec893e0-5785-4de6-99da-4ed124e5296c",  # Office UWP
        "57336123-6e14-4acc-8dcf-287b6088aa28",  # Whiteboard
        "af124e86-4e96-495a-b70a-90f90ab96707",  # OneDrive iOS
        "b26aadf8-566f-4478-926f-589f601d9c74",  # OneDrive
        "22098786-6e16-43cc-a27d-191a01a1e3b5",  # To Do
        "66375f6b-983f-4c2c-9701-d680650f588f",  # Planner
        "cc15fd57-2c6c-4117-a88c-83b1d56b4bbe",  # Teams services
        "5e3ce6c0-2b1f-4285-8d4b-75ee78787346",  # Teams web
        "2d4d3d8e-2be3-4bef-9f87-7875a61c29de",  # OneNote
    }
)
# Clients and resources that manage: tokens for them are what a thief wants from a mail session.
MANAGEMENT = frozenset(
    {
        "04b07795-8ddb-461a-bbee-02f9e1bf7b46",  # Azure CLI
        "1950a258-227b-4e31-a9cf-717495945fc2",  # Azure PowerShell
        "14d82eec-204b-4c2f-b7e8-296a70dab67e",  # Graph command line
        "1b730954-1685-4b74-9bfd-dac224a7b894",  # Azure AD PowerShell
        "de8bc8b5-d9f9-48b1-a8ad-b748da725064",  # Graph Explorer
        "29d9ed98-a469-4536-ade2-f981bc1d605e",  # Authentication Broker
        "872cd9fa-d31f-45e0-9eab-6e460a02d1f1",  # Visual Studio
        "aebc6443-996d-45c2-90f0-388ff96faa56",  # VS Code
        "fb78d390-0c51-40cd-8e17-fdbfab77341b",  # Exchange Online PowerShell
        "a0c73c16-a7e3-4564-9a95-2bdf47383716",  # Exchange remote PowerShell
        "9bc3ab49-b65d-410a-85ad-de819febfddc",  # SharePoint PowerShell
        "797f4846-ba00-4fd7-ba43-dac1f8f63013",  # Azure management
        "00000002-0000-0000-c000-000000000000",  # Azure AD Graph
        "cfa8b339-82a2-471a-a3c9-0fc0be7a4093",  # Key Vault
        "01cb2876-7ebd-4aa4-9cc9-d28bd4d359a9",  # device registration
        "0000000a-0000-0000-c000-000000000000",  # Intune
        "c44b4083-3bb0-49c1-b47d-974e53cbdf3c",  # Azure portal
        "499b84ac-1321-427f-aa17-267ca6975798",  # Azure DevOps
    }
)


class Detection(Rule):
    meta = Meta(
        slug="ni-family-pivot",
        title="Refresh token spent for a client or resource this person never used, from a new place",
        severity="medium",
        about=(
            "Some refresh tokens are good for a whole family of clients: one taken from a mail program also buys tokens for command lines and management "
            "interfaces. Spent for what the person never touched, from where they never were, it is in other hands."
        ),
        attack=("T1550.001", "T1528"),
        needs=(("session", "client", "resource", "origin.ip"),),
        traps=(
            "Hops within the office suite: a person's usual programs share tokens all day.",
            "A new program at the person's own place.",
            "Rows of web applications that repeat the address of the first issue, and refreshes from the vendor's own network.",
            "The first days of an account, when everything is new.",
        ),
        blind=("A pivot from the person's own machine or network.",),
        recommended=("Revoke the session's refresh tokens", "Read what the new client did since", "Bind tokens to devices for this client"),
    )
    subscriptions = (
        on(
            kinds=(Kind.SILENT_SIGN_IN, Kind.TOKEN_REFRESH),
            bits=Bit.IDENTITY_CLIENT | Bit.IDENTITY_RESOURCE | Bit.SESSION_CLIENT | Bit.IDENTITY_NET,
        ),
    )

    def start(self) -> None:
        self.moved: set[tuple[str, str]] = set()  # sessions already told of, with the network: further hops are evidence

    def step(self, event: Event, facts: Facts) -> None:
        shape, session, identity, origin = event.shape, facts.session, facts.identity, event.origin
        if not event.ok or session is None or event.actor.kind in ("workload", "service") or not origin.known:
            return
        detail = event.d
        if event.kind is not Kind.TOKEN_REFRESH and not event.source.startswith("entra."):
            return  # a browser session that opens another application spends no refresh token
        if detail.credential_type not in (None, "none") or detail.transfer is not None:
            return  # a confidential client's row; or a device code's, which has its own detection
        now = event.time
        client, resource = shape.client or "", shape.resource or ""
        told = (session.id, origin.net) in self.moved
        new_client = bool(client) and identity.clients.get(client, now) >= now
        new_resource = bool(resource) and identity.resources.get(resource, now) >= now
        if not (new_client or new_resource or told) or not established(identity, now):
            return
        before = homes(identity, now)
        earlier = homes(session, now)
        if not told:
            first = identity.net_first.get(origin.net, now)
            if not earlier or any(same_place(origin, o) for o in earlier) or any(same_place(origin, o) for o in before):
                # a place this session already told of stays told; any other known place is the person's
                return
            if first < now or ours(self.world, origin, identity):
                return
        script = event.agent.kind in SCRIPTED or (event.agent.kind == "cli" and agent_new(identity.agents, event))
        managing = (new_client and client in MANAGEMENT) or (new_resource and resource in MANAGEMENT)
        rented = origin.network in RENTED and not any(o.network in RENTED for o in before if not same_place(o, origin))
        countries = {o.country for o in before if o.country and not same_place(o, origin)}
        abroad = bool(origin.country and countries and origin.country not in countries)
        if origin.provider == "azure" and (detail.params or {}).get("client_owner") == "microsoft" and not script:
            return
        office = client in OFFICE and not managing
        strong = script + managing + rented + abroad
        severity: Severity = "high" if strong >= 3 else "medium" if strong >= 2 else "low"
        traps: list[str] = []
        if office and not script:
            severity, traps = "low", ["a hop within the office suite"]
            if not (rented or abroad):
                return
        elif severity == "low":
            traps = ["a new program at a new place, and nothing more"]
        self.moved.add((session.id, origin.net))
        what = [f"client {shape.client_name or client}"] if new_client else []
        if new_resource:
            what.append(f"resource {(detail.params or {}).get('resource_name') or resource}")
        self.report(
            f"{session.id}|{origin.net}",
            event,
            severity=severity,
            narrative=(
                f"A refresh token of {who(event)} was spent from {place(origin)} with {event.agent.family} for {' and '.join(what) or 'more'}, never used by this "
                f"person before; the session was until then used from {place(earlier[0]) if earlier else 'elsewhere'}."
            ),
            subject=subject_of(identity, event),
            evidence=(session.mint.event,) if session.mint is not None else (),
            traps=traps,
            root=session.id,
        )
