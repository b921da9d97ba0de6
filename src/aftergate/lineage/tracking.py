"""One pass over events in order: lives, habits, lineage, and for each event a mask of what is new.

INVARIANT: `step` is deterministic in (state, event), reads no clock, and allocates next to nothing for an event that repeats
what its credential has done before.
"""

from __future__ import annotations

import re
from typing import Final

from aftergate.lineage.state import DAY_MS, Coverage, CredentialChange, Death, Identity, Life, Mint, Run, Use
from aftergate.vocabulary import GAP_MS, NO_DETAIL, VOLUME_FLOOR, Actor, Bit, Detail, Event, Kind, Origin, Shape, Tag

FEW_SHAPES: Final = 12
HABIT_DAYS: Final = 2  # days on which an identity did a thing in a way, before a new session key that does it so brings nothing new
_GUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z", re.IGNORECASE)

# Plain numbers: compiled, a Final is a C constant, while a flag is a look-up and its `&` a call of Python.
B_NEW_IDENTITY: Final = int(Bit.NEW_IDENTITY)
B_NEW_LIFE: Final = int(Bit.NEW_LIFE)
B_UNMINTED: Final = int(Bit.UNMINTED)
B_LIFE_IP: Final = int(Bit.LIFE_IP)
B_LIFE_NET: Final = int(Bit.LIFE_NET)
B_LIFE_AGENT: Final = int(Bit.LIFE_AGENT)
B_LIFE_ACTION: Final = int(Bit.LIFE_ACTION)
B_LIFE_CLIENT: Final = int(Bit.LIFE_CLIENT)
B_SESSION_NEW: Final = int(Bit.SESSION_NEW)
B_SESSION_NET: Final = int(Bit.SESSION_NET)
B_SESSION_AGENT: Final = int(Bit.SESSION_AGENT)
B_SESSION_DEVICE: Final = int(Bit.SESSION_DEVICE)
B_SESSION_CLIENT: Final = int(Bit.SESSION_CLIENT)
B_SESSION_ACTION: Final = int(Bit.SESSION_ACTION)
B_IDENTITY_IP: Final = int(Bit.IDENTITY_IP)
B_IDENTITY_NET: Final = int(Bit.IDENTITY_NET)
B_IDENTITY_COUNTRY: Final = int(Bit.IDENTITY_COUNTRY)
B_IDENTITY_AGENT: Final = int(Bit.IDENTITY_AGENT)
B_IDENTITY_DEVICE: Final = int(Bit.IDENTITY_DEVICE)
B_IDENTITY_CLIENT: Final = int(Bit.IDENTITY_CLIENT)
B_IDENTITY_RESOURCE: Final = int(Bit.IDENTITY_RESOURCE)
B_IDENTITY_ACTION: Final = int(Bit.IDENTITY_ACTION)
B_IDENTITY_CLASS: Final = int(Bit.IDENTITY_CLASS)
B_SWITCH: Final = int(Bit.SWITCH)
B_SESSION_SWITCH: Final = int(Bit.SESSION_SWITCH)
B_GAP: Final = int(Bit.GAP)
B_VOLUME: Final = int(Bit.VOLUME)
B_NEW_COMBINATION: Final = int(Bit.NEW_COMBINATION)
B_AFTER_DEATH: Final = int(Bit.AFTER_DEATH)
B_PAST_END: Final = int(Bit.PAST_END)
_LOGINS: Final = frozenset({Kind.SIGN_IN, Kind.DEVICE_CODE_APPROVAL})
_LIFE_PARTS: Final = B_LIFE_NET | B_LIFE_AGENT | B_LIFE_ACTION | B_LIFE_CLIENT


def _elsewhere(a: Origin, b: Origin) -> bool:
    """True when two origins are known to be different networks: an unknown one, or another address of the same cloud, is no change of place."""
    return a.ip is not None and b.ip is not None and a.net != b.net and (a.provider is None or a.provider != b.provider)


def _session_bits(bits: int) -> int:
    """The SESSION_* bits that say of a session what LIFE_* bits say of a credential."""
    if not bits & _LIFE_PARTS:
        return 0
    mask = 0
    if bits & B_LIFE_NET:
        mask = B_SESSION_NET
    if bits & B_LIFE_AGENT:
        mask |= B_SESSION_AGENT
    if bits & B_LIFE_ACTION:
        mask |= B_SESSION_ACTION
    if bits & B_LIFE_CLIENT:
        mask |= B_SESSION_CLIENT
    return mask


class Facts:
    """What tracking learned from one event. One object, overwritten by the next event: keep values, never the object."""

    __slots__ = ("event", "gap_ms", "identity", "idle_ms", "life", "mask", "previous", "session", "session_previous")

    event: Event
    mask: int
    identity: Identity
    life: Life | None  # credential used, or the session where no credential is known
    session: Life | None
    previous: Shape | None  # shape of the life's last use before this one
    session_previous: Shape | None
    gap_ms: int  # idle time of the life before this event
    idle_ms: int  # idle time of the identity before this event

    def __init__(self) -> None:
        self.mask = 0
        self.gap_ms = 0
        self.idle_ms = 0
        self.life = None
        self.session = None
        self.previous = None
        self.session_previous = None

    def has(self, bit: Bit) -> bool:
        return bool(self.mask & int(bit))


def joinable(name: str) -> bool:
    """True for names that are one actor's everywhere: e-mail addresses, object ids, ARNs of users, long opaque ids."""
    return "@" in name or name.startswith(("arn:", "system:serviceaccount:")) or bool(_GUID.match(name))


def plain(name: str) -> str:
    return name.lower() if "@" in name else name


class World:
    """All state of one run, with the registers rules look things up in."""

    def __init__(self) -> None:
        self.lives: dict[str, Life] = {}
        self.unused: dict[str, Mint] = {}  # tokens issued by sign-ins and not used so far, as far as the logs show
        self.identities: dict[str, Identity] = {}
        self.alias: dict[str, Identity] = {}
        self.net_identities: dict[str, int] = {}  # net -> distinct identities that used it
        self.klass_identities: dict[str, int] = {}  # action class -> distinct identities
        self.action_identities: dict[str, int] = {}
        self.client_identities: dict[str, int] = {}
        self.changes: dict[str, list[CredentialChange]] = {}  # raw id of the target identity -> its credential changes
        self.runs: dict[str, Run] = {}
        self.coverage: dict[str, Coverage] = {}
        self.features: set[tuple[str, str]] = set()
        self.silent: dict[str, int] = {}
        self.silent_rooted: dict[str, int] = {}
        self.first = 0
        self.now = 0  # time of the event in hand: the only clock
        self.events = 0
        self.facts = Facts()
        self._by_actor: dict[Actor, Identity] = {}

    # -- look-ups for rules -------------------------------------------------------------------------------------------

    def identity(self, name: str | None) -> Identity | None:
        """The identity with this raw id or name."""
        if not name:
            return None
        return self.identities.get(name) or self.alias.get(plain(name))

    def root(self, life: Life) -> Life:
        """The oldest known ancestor of a life: approval, login or first mint."""
        seen: set[str] = set()
        while life.mint is not None and life.id not in seen:
            seen.add(life.id)
            parent = self.lives.get(life.mint.parent or "") or self.lives.get(life.mint.session or "")
            if parent is None or parent is life:
                break
            life = parent
        return life

    def shared_net(self, net: str, beside: Identity | None = None) -> int:
        """How many identities other than `beside` have used a network: high for offices, gateways and the common cloud region."""
        count = self.net_identities.get(net, 0)
        if beside is not None and net in beside.net_first:
            count -= 1
        return count

    def kill_identity(self, name: str, death: Death) -> None:
        found = self.identity(name)
        if found is None:
            found = self.identities[name] = Identity(name, Actor(name), death.time, death.time)
            self.alias.setdefault(plain(name), found)
        if found.death is None or found.death.undone is not None:
            found.death = death

    def kill_life(self, name: str, death: Death) -> None:
        life = self.lives.get(name)
        if life is None:
            return
        if life.death is None:
            life.death = death

    # -- the step -----------------------------------------------------------------------------------------------------

    def step(self, event: Event) -> Facts:
        """Track one event; the answer is valid until the next call."""
        facts = self.facts
        shape = event.shape
        now = event.time
        self.now = now
        self.events += 1
        facts.event = event
        key = event.credential or event.session
        if key is not None:
            life = self.lives.get(key)
            if life is not None:
                use = life.uses.get(shape)
                up = use.up if use is not None else None
                if use is None and life.main is not None:
                    # a session key goes on from its place with its program, doing what its identity has done for days: as good as seen
                    last = life.shape
                    if last.origin is shape.origin and last.agent is shape.agent and life.identity is not None:
                        up = life.identity.uses.get(shape)
                        if up is not None and up.days >= HABIT_DAYS:
                            use = life.main
                            if now >= up.day_end:
                                up.days += 1
                                up.day_end = now - now % DAY_MS + DAY_MS
                if use is not None and life.session_id == event.session:
                    # nothing new: the common case
                    mask = 0
                    if now >= use.day_end:
                        use.days += 1
                        use.day_end = now - now % DAY_MS + DAY_MS
                        if up is not None and now >= up.day_end:
                            up.days += 1
                            up.day_end = use.day_end
                    use.count += 1
                    use.last = now
                    if up is not None:
                        up.count += 1
                        up.last = now
                    previous = life.shape
                    if previous is not shape:
                        if previous.origin is not shape.origin and _elsewhere(previous.origin, shape.origin):
                            mask = B_SWITCH
                        life.shape = shape
                    gap = now - life.last
                    if gap > GAP_MS:
                        mask |= B_GAP
                    life.last = now
                    life.count += 1
                    if now > life.ends:
                        mask |= B_PAST_END
                    session = life.session
                    facts.session_previous = None
                    if session is not None:
                        before = session.shape
                        facts.session_previous = before
                        if before is not shape:
                            if before.origin is not shape.origin and _elsewhere(before.origin, shape.origin):
                                mask |= B_SESSION_SWITCH
                            session.shape = shape
                        session.last = now
                        session.count += 1
                    identity = life.identity
                    assert identity is not None
                    facts.idle_ms = now - identity.last
                    identity.last = now
                    identity.count += 1
                    identity.shape = shape
                    if identity.death is not None or life.death is not None:
                        mask |= B_AFTER_DEATH
                    if event.size:
                        mask |= self._volume(event, identity)
                    if shape.silent is not None and identity.kind != "human":
                        self._rhythm(now, identity)
                    facts.mask = mask
                    facts.identity = identity
                    facts.life = life
                    facts.session = session
                    facts.previous = previous
                    facts.gap_ms = gap
                    if event.token is not None:
                        self._mint_token(event, event.token)
                    detail = event.detail
                    if detail is not None and shape.error is None and (shape.action.registers or detail.issued):
                        self._register(event, identity, life)
                    return facts
        return self._slow(event, key)

    def _slow(self, event: Event, key: str | None) -> Facts:
        """Something is new: for the identity, for the credential, or at least for the session."""
        facts = self.facts
        shape = event.shape
        now = event.time
        day_end = now - now % DAY_MS + DAY_MS
        mask = 0
        identity = self._by_actor.get(shape.actor)
        if identity is None:
            identity = self._identify(shape.actor, now)
            if not identity.count:
                mask = B_NEW_IDENTITY
        identity.count += 1
        gap = facts.idle_ms = now - identity.last
        if gap > GAP_MS:
            mask |= B_GAP
        identity.last = now
        own = identity.uses.get(shape)
        if own is None:
            if shape.source not in self.coverage:
                self.coverage[shape.source] = Coverage(first=now)
                self.first = self.first or now
            mask |= self._novel(identity, shape, now)
            own = identity.uses[shape] = Use(now, now, 1, 1, day_end)
            self._observe(event)
        else:
            own.count += 1
            own.last = now
            if now >= own.day_end:
                own.days += 1
                own.day_end = day_end
        life: Life | None = None
        session: Life | None = None
        session_previous: Shape | None = None
        previous = identity.shape
        identity.shape = shape
        if key is not None:
            sid = event.session
            device = 0
            if sid is not None and sid != key:
                session = self.lives.get(sid)
                if session is None:
                    session = self.lives[sid] = Life(sid, shape.source, now, now, shape)
                    session.first_event = event.id
                session.is_session = True
                use = session.uses.get(shape)
                if not session.count:
                    mask |= B_SESSION_NEW
                else:
                    session_previous = session.shape
                    if session_previous.origin is not shape.origin and _elsewhere(session_previous.origin, shape.origin):
                        mask |= B_SESSION_SWITCH
                    if use is None:
                        bits = self._life_bits(session, shape)
                        device = bits & B_SESSION_DEVICE
                        mask |= device | _session_bits(bits)
                if use is None:
                    session.uses[shape] = Use(now, now, 1, 1, day_end, own, primary=False)
                else:
                    use.count += 1
                    use.last = now
                    if now >= use.day_end:
                        use.days += 1
                        use.day_end = day_end
                session.shape = shape
                session.last = now
                session.count += 1
                if session.identity is None:
                    session.identity = identity
                if session.death is not None:
                    mask |= B_AFTER_DEATH
            life = self.lives.get(key)
            if life is None:
                life = self.lives[key] = Life(key, shape.source, now, now, shape, is_session=event.credential is None)
                life.first_event = event.id
                issued = self.unused.pop(key, None)
                if issued is not None:
                    life.mint = issued
                    life.first = issued.time
                    life.first_event = issued.event
            count = life.count
            if not count:
                previous = None
                mask |= B_NEW_LIFE
                if not life.is_session:
                    if life.mint is None:
                        mask |= B_UNMINTED
                    coverage = self.coverage[shape.source]
                    coverage.lives += 1
                    coverage.joined += life.mint is not None
                gap = 0
                life.first = min(life.first, now)
                if life.identity is None:
                    life.identity = identity
                life.uses[shape] = Use(now, now, 1, 1, day_end, own)
                if life.mint is not None and life.mint.klass == "session_key" and identity.kind != "human":
                    life.main = life.uses[shape]
            else:
                previous = life.shape
                gap = now - life.last
                if gap > GAP_MS:
                    mask |= B_GAP
                if previous.origin is not shape.origin and _elsewhere(previous.origin, shape.origin):
                    mask |= B_SWITCH
                use = life.uses.get(shape)
                if use is None:
                    mask |= self._life_bits(life, shape)
                    life.uses[shape] = Use(now, now, 1, 1, day_end, own)
                    if life.main is not None:
                        life.main = life.uses[shape]
                else:
                    use.count += 1
                    use.last = now
                    if now >= use.day_end:
                        use.days += 1
                        use.day_end = day_end
            life.shape = shape
            life.last = now
            life.count = count + 1
            life.session_id = sid
            life.session = session
            if life.is_session:
                session = life
                session_previous = previous
                if not count:
                    mask |= B_SESSION_NEW
                elif mask & B_SWITCH:
                    mask |= B_SESSION_SWITCH
                mask |= _session_bits(mask)
            elif mask & B_SESSION_DEVICE and not device:
                mask &= ~B_SESSION_DEVICE
            if now > life.ends:
                mask |= B_PAST_END
            if life.death is not None:
                mask |= B_AFTER_DEATH
        if identity.death is not None:
            mask |= B_AFTER_DEATH
        if event.size:
            mask |= self._volume(event, identity)
        if shape.silent is not None and identity.kind != "human":
            self._rhythm(now, identity)
        facts.mask = mask
        facts.identity = identity
        facts.life = life
        facts.session = session
        facts.previous = previous
        facts.session_previous = session_previous
        facts.gap_ms = gap
        if event.token is not None:
            self._mint_token(event, event.token)
        detail = event.detail
        if detail is not None and shape.error is None and (shape.action.registers or detail.issued):
            self._register(event, identity, life)
        return facts

    # -- parts of the slow path ---------------------------------------------------------------------------------------

    def _identify(self, actor: Actor, now: int) -> Identity:
        found = self.identities.get(actor.id) or self.alias.get(plain(actor.id))
        if found is None:
            for name in actor.names:
                if name != actor.role and joinable(name):
                    found = self.alias.get(plain(name))
                    if found is not None:
                        break
        if found is None:
            found = self.identities[actor.id] = Identity(actor.id, actor, now, now, actor.kind)
        if found.kind == "unknown":
            found.kind = actor.kind
        self._by_actor[actor] = found
        found.names.add(plain(actor.id))
        self.alias.setdefault(plain(actor.id), found)
        for name in actor.names:
            if name == actor.role:
                continue
            found.names.add(plain(name))
            if joinable(name):
                self.alias.setdefault(plain(name), found)
        return found

    def _novel(self, identity: Identity, shape: Shape, now: int) -> int:
        """Bits of what this identity never did, and the registers that learn it."""
        mask = B_NEW_COMBINATION
        origin = shape.origin
        identity.places.setdefault(origin, now)
        if origin.ip is not None and origin.ip not in identity.ips:
            identity.ips.add(origin.ip)
            mask |= B_IDENTITY_IP
        if origin.ip is not None and origin.net not in identity.net_first:
            identity.net_first[origin.net] = now
            self.net_identities[origin.net] = self.net_identities.get(origin.net, 0) + 1
            mask |= B_IDENTITY_NET
        if origin.country is not None and origin.country not in identity.countries:
            identity.countries[origin.country] = now
            mask |= B_IDENTITY_COUNTRY
        if shape.agent.family not in identity.agents:
            identity.agents[shape.agent.family] = now
            mask |= B_IDENTITY_AGENT
        if shape.device is not None and shape.device not in identity.devices:
            identity.devices[shape.device] = now
            mask |= B_IDENTITY_DEVICE
        if shape.client is not None and shape.client not in identity.clients:
            identity.clients[shape.client] = now
            self.client_identities[shape.client] = self.client_identities.get(shape.client, 0) + 1
            mask |= B_IDENTITY_CLIENT
        if shape.resource is not None and shape.resource not in identity.resources:
            identity.resources[shape.resource] = now
            mask |= B_IDENTITY_RESOURCE
        action = shape.action
        if action.name not in identity.actions:
            identity.actions[action.name] = now
            self.action_identities[action.name] = self.action_identities.get(action.name, 0) + 1
            mask |= B_IDENTITY_ACTION
            if action.klass not in identity.klasses:
                identity.klasses[action.klass] = now
                self.klass_identities[action.klass] = self.klass_identities.get(action.klass, 0) + 1
                mask |= B_IDENTITY_CLASS
        return mask

    @staticmethod
    def _life_bits(life: Life, shape: Shape) -> int:
        """Bits of what this life never did before a shape it never had. Learns it."""
        origin, agent, action, client, device = shape.origin, shape.agent, shape.action, shape.client, shape.device
        mask = 0
        seen = life.parts
        if seen is None:
            last = life.shape
            if (
                last.origin is origin
                and last.agent is agent
                and last.client == client
                and last.device == device
                and len(life.uses) < FEW_SHAPES
            ):
                # a short life that goes on from its place with its program: only the action can be new
                for known in life.uses:
                    if known.action is action:
                        return 0
                return B_LIFE_ACTION
            seen = life.parts = set()
            for known in life.uses:
                seen.update((known.origin.ip, known.origin.net, known.agent.family, known.action, known.client, known.device))
        if origin.ip is not None:
            if origin.ip not in seen:
                mask = B_LIFE_IP
                seen.add(origin.ip)
            if origin.net not in seen:
                mask |= B_LIFE_NET
                seen.add(origin.net)
        if agent.family not in seen:
            mask |= B_LIFE_AGENT
            seen.add(agent.family)
        if action not in seen:
            mask |= B_LIFE_ACTION
            seen.add(action)
        if client not in seen:
            mask |= B_LIFE_CLIENT
            seen.add(client)
        if device is not None and device not in seen:
            # a device beside another one; the first that a session names is not a change
            if any(known.device is not None for known in life.uses):
                mask |= B_SESSION_DEVICE
            seen.add(device)
        return mask

    def _volume(self, event: Event, identity: Identity) -> int:
        day = event.time - event.time % DAY_MS
        if identity.bytes_day != day:
            identity.bytes_day = day
            identity.bytes_by_client.clear()
        client = event.shape.client or event.shape.action.service
        before = identity.bytes_by_client.get(client, 0)
        after = before + event.size
        identity.bytes_by_client[client] = after
        if after >= VOLUME_FLOOR and (before // VOLUME_FLOOR).bit_length() != (after // VOLUME_FLOOR).bit_length():
            return B_VOLUME
        return 0

    @staticmethod
    def _rhythm(now: int, identity: Identity) -> None:
        """Learn the gaps between an identity's silent sign-ins: regular ones make a scheduled workload."""
        gap = now - identity.silent_last
        if gap > 60_000:
            if identity.silent_last:
                identity.gap_n += 1
                delta = gap - identity.gap_mean
                identity.gap_mean += delta / identity.gap_n
                identity.gap_m2 += delta * (gap - identity.gap_mean)
            identity.silent_last = now

    def _observe(self, event: Event) -> None:
        """Note which features this source's records really carry, for coverage honesty."""
        shape = event.shape
        source = shape.source
        features = self.features
        features.add((source, "events"))
        if shape.origin.ip is not None:
            features.add((source, "origin.ip"))
            if shape.origin.asn is not None:
                features.add((source, "origin.asn"))
        if shape.agent.raw:
            features.add((source, "agent"))
        if shape.device is not None:
            features.add((source, "device"))
        if event.session is not None:
            features.add((source, "session"))
        if event.credential is not None:
            features.add((source, "credential"))
        if shape.client is not None:
            features.add((source, "client"))
        if shape.resource is not None:
            features.add((source, "resource"))
        if event.size:
            features.add((source, "bytes"))
        if shape.silent is not None:
            features.add((source, "silent"))
        if shape.action.kind is Kind.TOOL_CALL:
            features.add((source, "tool_call"))
        if shape.action.kind is Kind.DISCOVERY:
            features.add((source, "discovery"))
        for tag in shape.action.tags:
            features.add((source, tag.value))
        if event.token is not None:
            features.add((source, "token.mint"))
        if event.detail is not None:
            self._detail_features(source, event.detail)

    def _detail_features(self, source: str, detail: Detail) -> None:
        features = self.features
        if detail.issued:
            features.add((source, "token.mint"))
        if detail.spent is not None or detail.generation is not None:
            features.add((source, "token.refresh_chain"))
        if detail.token_issued_at is not None or detail.token_expires_at is not None:
            features.add((source, "token.times"))
        if detail.binding is not None:
            features.add((source, "binding"))
        if detail.scopes:
            features.add((source, "scopes"))
        if detail.subject is not None:
            features.add((source, "ci.subject"))
        if detail.act:
            features.add((source, "act"))
        if detail.pod is not None or detail.node is not None or detail.bound is not None:
            features.add((source, "pod"))
        if detail.objects:
            features.add((source, "objects"))
        if detail.run is not None:
            features.add((source, "run"))
        if detail.credential_type is not None:
            features.add((source, "credential.type"))
        if detail.grant == "device_code" or detail.transfer == "deviceCodeFlow":
            features.add((source, "device_code"))
        if detail.params and "allow" in detail.params:
            features.add((source, "agent.grant"))

    def _register(self, event: Event, identity: Identity, life: Life | None) -> None:
        """Enter mints, credential changes, runs, ends of identities and credentials."""
        detail = event.detail if event.detail is not None else NO_DETAIL
        shape = event.shape
        action = shape.action
        tags = action.tags
        now = event.time
        if detail.issued:
            self._mint(event, detail, identity)
        if life is not None and life.is_session and life.mint is None and action.kind in _LOGINS:
            life.mint = Mint(now, event.id, shape, session=None, grant=detail.grant or "login", klass="session")
        elif (
            event.session is not None
            and action.kind in _LOGINS
            and (opened := self.lives.get(event.session)) is not None
            and opened.mint is None
        ):
            opened.mint = Mint(now, event.id, shape, grant=detail.grant or "login", klass="session")
        if detail.run is not None and Tag.CI_RUN in tags:
            self._run(event, detail)
        if not tags:
            return
        if Tag.CREDENTIAL_ADD in tags or Tag.CREDENTIAL_REMOVE in tags:
            self._credential_change(event, detail, identity)
        if Tag.IDENTITY_DISABLE in tags:
            for target in detail.targets or ():
                death = Death(now, "disabled", event.id, identity.id, shape.source)
                self.kill_identity(target.id, death)
                for name in target.names:
                    # the same person under another id in another source
                    if joinable(name) and self.identity(name) is not None:
                        self.kill_identity(name, death)
        if Tag.IDENTITY_ENABLE in tags:
            for target in detail.targets or ():
                found = self.identity(target.id)
                if found is not None and found.death is not None and found.death.undone is None:
                    found.death.undone = now
                revived = self.lives.get(target.id)
                if revived is not None:
                    revived.death = None
        if Tag.REVOKE in tags:
            for target in detail.targets or ():
                self.kill_life(target.id, Death(now, "revoked", event.id, identity.id, shape.source))

    def _mint_token(self, event: Event, name: str) -> None:
        """The short form of `_mint`, for sources whose every event mints one token."""
        now = event.time
        shape = event.shape
        mint = Mint(now, event.id, shape, event.credential, event.session, None, "access_token")
        detail = event.detail
        if detail is not None:
            mint.grant = detail.grant
            if detail.subject is not None or detail.scopes:
                mint.detail = detail
        life = self.lives.get(name)
        if life is None:
            # most tokens of a sign-in log are never seen in use: a life begins with the first use
            self.unused.setdefault(name, mint)
            coverage = self.coverage[shape.source]
            if coverage.first_mint is None:
                coverage.first_mint = now
        elif life.mint is None:
            life.mint = mint

    def _mint(self, event: Event, detail: Detail, identity: Identity) -> None:
        now = event.time
        keep = detail if (detail.bound or detail.run or detail.subject or detail.scopes or detail.pod or detail.audience) else None
        expires = detail.token_expires_at or (now + detail.issued_ttl_s * 1000 if detail.issued_ttl_s else None)
        mint = Mint(
            now, event.id, event.shape, detail.spent or event.credential, event.session, detail.grant, detail.issued_class, expires, keep
        )
        coverage = self.coverage[event.shape.source]
        if coverage.first_mint is None:
            coverage.first_mint = now
        for name in detail.issued:
            life = self.lives.get(name)
            if life is None:
                life = self.lives[name] = Life(name, event.shape.source, now, now, event.shape)
                life.first_event = event.id
                life.mint = mint
            elif life.mint is None:
                life.mint = mint
            else:
                continue
            if expires is not None:
                life.ends = expires
        if detail.spent is not None and detail.spent not in self.lives:
            spent = self.lives[detail.spent] = Life(detail.spent, event.shape.source, now, now, event.shape)
            spent.first_event = event.id
            spent.identity = identity

    def _run(self, event: Event, detail: Detail) -> None:
        assert detail.run is not None
        run = self.runs.get(detail.run)
        if run is None:
            run = self.runs[detail.run] = Run(detail.run, detail.repo, event.time)
        run.start = min(run.start, event.time)
        run.attempt = max(run.attempt, detail.attempt or 1)
        if run.actor is None:
            run.actor = event.shape.actor.id
        if run.repo is None:
            run.repo = detail.repo
        if len(run.events) < 20:
            run.events.append(event.id)
        if detail.phase == "end":
            run.end = event.time
        elif detail.attempt is not None and detail.attempt > 1 and detail.phase == "start":
            run.end = None
        params = detail.params or {}
        for name in ("ref", "trigger", "workflow"):
            value = params.get(name)
            if isinstance(value, str) and getattr(run, name) is None:
                setattr(run, name, value)

    def _credential_change(self, event: Event, detail: Detail, identity: Identity) -> None:
        if not detail.targets:
            return
        target = detail.targets[0].id
        tags = event.shape.action.tags
        held = self.changes.setdefault(target, [])
        removed = (detail.params or {}).get("removed")
        gone = (
            [removed]
            if isinstance(removed, str)
            else [r for r in removed if isinstance(r, str)]
            if isinstance(removed, (list, tuple))
            else []
        )
        if Tag.CREDENTIAL_ADD in tags:
            held.extend(
                CredentialChange(event.time, True, key, target, identity, event) for key in detail.issued or (None,) if key or not gone
            )
        if Tag.CREDENTIAL_REMOVE in tags and not gone:
            gone = [t.id for t in detail.targets[1:]]
        for key in gone:
            held.append(CredentialChange(event.time, False, key, target, identity, event))
            self.kill_life(key, Death(event.time, "removed", event.id, identity.id, event.shape.source))
        if Tag.CREDENTIAL_REMOVE in tags and not gone:
            held.append(CredentialChange(event.time, False, None, target, identity, event))

    # -- at the end ---------------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Count uses whose mint is known, per source, and silent sign-ins by class. Call once, after the last event."""
        self.silent.clear()
        self.silent_rooted.clear()
        for identity in self.identities.values():
            scheduled = identity.scheduled()
            for shape, use in identity.uses.items():
                coverage = self.coverage[shape.source]
                coverage.last = max(coverage.last, use.last)
                if shape.silent is not None:
                    name = "scheduled_workload" if scheduled and shape.silent == "background_service" else shape.silent
                    self.silent[name] = self.silent.get(name, 0) + use.count
        for coverage in self.coverage.values():
            coverage.uses = coverage.joined_uses = 0
        for life in self.lives.values():
            if life.mint is not None:
                scheduled = life.identity is not None and life.identity.scheduled()
                for shape, use in life.uses.items():
                    if shape.silent is not None and use.primary:
                        name = "scheduled_workload" if scheduled and shape.silent == "background_service" else shape.silent
                        self.silent_rooted[name] = self.silent_rooted.get(name, 0) + use.count
            if life.is_session or not life.count:
                continue
            for shape, use in life.uses.items():
                coverage = self.coverage[shape.source]
                coverage.uses += use.count
                if life.mint is not None:
                    coverage.joined_uses += use.count
