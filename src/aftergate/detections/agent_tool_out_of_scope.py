"""An agent calls what its grant or its declared task does not cover, or is refused and tries on."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import Any

from msgspec import Struct, field

from aftergate.detections.api import Meta, Rule, on, subject_of
from aftergate.detections.reasoning import span, when
from aftergate.lineage.state import DAY_MS, HOUR_MS, MINUTE_MS
from aftergate.lineage.tracking import Facts
from aftergate.vocabulary import Event, Kind, Severity
from aftergate.vocabulary.patterns import regex

_SLACK_MS = 10 * MINUTE_MS  # clocks differ, and a last call may be under way when a task ends
_HABIT_CALLS = 30
_HABIT_DAYS = 2
_RETRIES = 3
_TRIES_KEPT = 100
# search_tickets_v2, search_tickets-2.1, v1.search_tickets, searchTicketsV2: the same tool in another version
_VERSION = regex(
    r"(?:^v\d+(?:\.\d+)*[._-])|(?:[._-]?v\d+(?:[._]\d+)*\Z)|(?:[._-]\d+(?:\.\d+)*\Z)|(?:[._-](?:old|new|legacy|beta|latest)\Z)",
    re.IGNORECASE,
)


def _stem(tool: str) -> str:
    return re.sub(r"[^a-z0-9]", "", _VERSION.sub("", tool).lower()) or tool.lower()


class _Agent(Struct):
    """One agent: what it may do, and what it has done."""

    grants: dict[str, list[list[dict[str, Any]]]] = field(default_factory=dict)  # task or "": allow lists that hold together
    until: dict[str, int] = field(default_factory=dict)  # task or "": end of the grant
    habit: dict[tuple[str, str], int] = field(default_factory=dict)  # (server, tool) -> first allowed call
    first: int = 0
    calls: int = 0


class _Task(Struct):
    allow: list[dict[str, Any]] | None
    begins: int | None
    ends: int | None
    grace_ms: int


class _Run(Struct):
    """What an agent tried outside its scope in one run."""

    task: str | None = None
    refused: list[tuple[str, str, str, str]] = field(default_factory=list)  # server, tool, class of arguments, event
    news: list[tuple[str, str, str]] = field(default_factory=list)  # new server, tool, event


class Detection(Rule):
    meta = Meta(
        slug="agent-tool-out-of-scope",
        title="Agent outside its grant",
        severity="high",
        about=(
            "An agent called a tool, a server or a class of arguments that neither its grant nor its declared task names, or was refused such a "
            "call and kept trying under other names. Agents do so when text they read gives them orders, or when somebody else holds their token."
        ),
        attack=("AML.T0053", "T1078.004"),
        nhi=("NHI5",),
        needs=(("tool_call", "session"),),
        traps=(
            "A tool that a reviewed registry change renamed or added counts as the old one.",
            "Another version of a tool that the agent may use, or has used, on the same server.",
            "One refusal, or a refusal of a tool that the grant names: policy and quota do that.",
            "Work within a task's cleanup time.",
        ),
        blind=("Without grant or task records only habit tells, so an allowed new tool stays a low finding unless several come at once.",),
        recommended=(
            "Stop this run and revoke its token",
            "Read the run's inputs for instructions that came from outside",
            "Narrow the gateway's policy to the grant, then review the agent's earlier runs",
        ),
    )
    # Gateway calls are few beside other logs; each costs one or two look-ups once its verdict is known.
    subscriptions = (on(sources=("agent.",), kinds=(Kind.TOOL_CALL, Kind.POLICY_CHANGE, Kind.OTHER)),)

    def start(self) -> None:
        self.agents: dict[str, _Agent] = {}
        self.tasks: dict[str, _Task] = {}
        self.runs: dict[str, _Run] = {}
        self.renamed: dict[tuple[str, str], tuple[str, bool]] = {}  # (server, new tool) -> old tool, reviewed
        self.verdicts: dict[tuple[str, str, str | None, str | None], str] = {}

    def step(self, event: Event, facts: Facts) -> None:
        if event.kind is Kind.TOOL_CALL:
            self._call(event, facts)
            return
        params = event.d.params or {}
        name = event.action.name
        agent_id = params.get("agent_id")
        if name == "agent:registry":
            self._registry(params)
        elif name == "agent:task" and event.d.task:
            grace = params.get("cleanup_grace_s")
            self.tasks[event.d.task] = _Task(
                params.get("allow"), params.get("not_before"), params.get("not_after"), int(grace) * 1000 if isinstance(grace, int) else 0
            )
            self.verdicts.clear()
        elif name == "agent:grant" and isinstance(agent_id, str):
            self._grant(event, params, self._agent(agent_id, event.time))
        elif name == "agent:run" and event.session and event.d.task:
            self.runs.setdefault(event.session, _Run()).task = event.d.task

    def _agent(self, name: str, now: int) -> _Agent:
        held = self.agents.get(name)
        if held is None:
            held = self.agents[name] = _Agent(first=now)
        return held

    def _grant(self, event: Event, params: dict[str, Any], agent: _Agent) -> None:
        """A grant for servers that an earlier one names replaces that one; a grant for other servers stands beside it."""
        allow = params.get("allow")
        if allow is None and event.d.status != "revoked":
            return
        key = event.d.task or ""
        servers = {entry.get("server") for entry in allow or ()}
        others = [held for held in agent.grants.get(key, ()) if servers and not servers & {entry.get("server") for entry in held}]
        agent.grants[key] = [*others, [] if event.d.status == "revoked" or allow is None else allow]
        end = params.get("not_after")
        agent.until.pop(key, None)
        if isinstance(end, int):
            agent.until[key] = end
        self.verdicts.clear()

    def _registry(self, params: dict[str, Any]) -> None:
        new = params.get("tool_to") or params.get("tool")
        old = params.get("tool_from") or params.get("tool")
        server = str(params.get("object") or params.get("server") or "").removeprefix("server:")
        if isinstance(new, str) and isinstance(old, str):
            self.renamed[server, new] = (old, bool(params.get("review")) and params.get("signed") is not False)
            self.verdicts.clear()

    def _call(self, event: Event, facts: Facts) -> None:
        params = event.d.params or {}
        server, tool, klass = params.get("server", ""), params.get("tool", ""), params.get("args_class")
        agent = self._agent(event.actor.id, event.time)
        run_id = event.session or f"{event.actor.id}|{event.time // HOUR_MS}"
        run = self.runs.get(run_id)
        task = event.d.task or (run.task if run is not None else None)
        key = (event.actor.id, event.action.name, klass, task)
        verdict = self.verdicts.get(key)
        if verdict is None:
            verdict = self.verdicts[key] = self._judge(agent, server, tool, klass, task)
        late = self._outside_time(agent, task, event.time)
        if verdict != "ok" or late:
            if run is None:
                run = self.runs[run_id] = _Run(task)
            self._outside(event, facts, agent, run, verdict, late, (server, tool, klass or ""), run_id)
        if event.ok:
            agent.calls += 1
            agent.habit.setdefault((server, tool), event.time)

    def _judge(self, agent: _Agent, server: str, tool: str, klass: str | None, task: str | None) -> str:
        """`ok`, `habit` (nothing is declared: the past decides), `task`, `grant`, or `version` and `unreviewed` for changed names."""
        declared = self.tasks.get(task) if task else None
        worst = "habit"
        for name, allowed in (("task", declared.allow if declared else None), ("grant", self._granted(agent, task))):
            if allowed is None:
                continue
            found = _covers(allowed, server, tool, klass)
            if not found:
                old, reviewed = self.renamed.get((server, tool), (None, False))
                if old is not None and (
                    _covers(allowed, server, old, klass) or (old == tool and any(e.get("server") == server for e in allowed))
                ):
                    found = reviewed
                    if not reviewed:
                        return "unreviewed"
                elif _covers(allowed, server, tool, klass, stem=True):
                    return "version"
            if not found:
                return name
            worst = "ok"
        return worst

    @staticmethod
    def _granted(agent: _Agent, task: str | None) -> list[dict[str, Any]] | None:
        held = [*agent.grants.get("", ()), *(agent.grants.get(task, ()) if task else ())]
        return [entry for allow in held for entry in allow] if held else None

    def _outside_time(self, agent: _Agent, task: str | None, now: int) -> int:
        """By how much a call lies outside the time of its task or grant; 0 inside."""
        late = 0
        declared = self.tasks.get(task) if task else None
        if declared is not None:
            if declared.ends is not None:
                late = max(late, now - declared.ends - declared.grace_ms - _SLACK_MS)
            if declared.begins is not None:
                late = max(late, declared.begins - _SLACK_MS - now)
        end = agent.until.get("")
        return max(late, now - end - _SLACK_MS) if end is not None else late

    def _outside(
        self, event: Event, facts: Facts, agent: _Agent, run: _Run, verdict: str, late: int, what: tuple[str, str, str], run_id: str
    ) -> None:
        server, tool, klass = what
        severity: Severity = "high"
        traps: tuple[str, ...] = ()
        label = f"{server}.{tool}" + (f" with {klass}" if klass else "")
        known = verdict == "habit" and (
            (server, tool) in agent.habit
            or any(s == server and _stem(t) == _stem(tool) for s, t in agent.habit)
            or (server, tool) in self.renamed
        )
        if verdict in ("ok", "habit") and late:
            severity = "high" if late > HOUR_MS else "medium"
            why = f"{span(late + _SLACK_MS)} outside the declared time of its task or grant"
            if not event.ok:
                return
        elif known:
            return
        elif not event.ok:
            if len(run.refused) < _TRIES_KEPT:
                run.refused.append((server, tool, klass, event.id))
            if verdict == "version" or len(run.refused) < 2:
                severity, traps = "low", ("refused once, or under the name of another version",)
            elif len(run.refused) < _RETRIES or (verdict == "habit" and not self._settled(agent, event.time)):
                severity = "medium" if len(run.refused) >= _RETRIES else "low"
            why = f"refused {len(run.refused)} time{'s' if len(run.refused) > 1 else ''} in this run, last for {label}"
        elif verdict in ("task", "grant"):
            why = f"the gateway let it call {label}, which its {'declared task' if verdict == 'task' else 'grant'} does not name"
        elif verdict == "unreviewed":
            severity, why = "medium", f"it called {label}, a name that came with a registry change nobody reviewed or signed"
        elif verdict == "version":
            severity, traps = "low", ("another version of a tool it may use",)
            why = f"it called {label}, another version of a tool it may use"
        else:
            if not run.refused and not self._settled(agent, event.time):
                return
            if all(s != server for s, _ in agent.habit) or run.refused:
                run.news.append((server, tool, event.id))
            if run.refused and any(_same_aim(what, refused) for refused in run.refused):
                why = f"refused {len(run.refused)} times, then let through at {label}, which it never used before"
            elif len({(s, t) for s, t, _ in run.news}) >= 2:
                severity, why = "medium", f"{len(run.news)} calls to tools on servers it never used before, last {label}"
            else:
                severity, traps, why = "low", ("an allowed new tool; no grant is logged",), f"first use of {label}"
        refused = f" It was refused {len(run.refused)} times before that." if event.ok and run.refused and verdict != "habit" else ""
        declared = f" of task {run.task}" if run.task and verdict == "task" else ""
        self.report(
            f"{event.actor.id}|{run_id}",
            event,
            severity=severity,
            narrative=(
                f"Agent {event.actor.id}, run {event.session or 'without a number'}{declared}, at {when(event.time)} for "
                f"{(event.d.params or {}).get('principal', 'an unnamed principal')}: {why}.{refused}"
            ),
            subject=subject_of(facts.identity, event),
            evidence=[*(e for *_, e in run.refused), *(e for *_, e in run.news)],
            traps=traps,
        )

    @staticmethod
    def _settled(agent: _Agent, now: int) -> bool:
        return agent.calls >= _HABIT_CALLS and now - agent.first >= _HABIT_DAYS * DAY_MS


def _covers(allowed: list[dict[str, Any]], server: str, tool: str, klass: str | None, *, stem: bool = False) -> bool:
    """True when an entry names server, tool and class of arguments; entries may use `*`, and one without tools means all of the server."""
    for entry in allowed:
        if not fnmatchcase(server, entry.get("server") or "*"):
            continue
        tools = entry.get("tools") or ("*",)
        if not any(fnmatchcase(tool, name) or (stem and _stem(tool) == _stem(name)) for name in tools):
            continue
        classes = entry.get("args_class")
        # no arguments, or none that the gateway's rules name, cannot lie outside a list of classes
        if classes is None or klass in (None, "", "none") or any(fnmatchcase(str(klass), name) for name in classes):
            return True
    return False


def _same_aim(what: tuple[str, str, str], refused: tuple[str, str, str, str]) -> bool:
    """True when a call asks for what was refused before: the same tool elsewhere, or the same server or arguments by another tool."""
    return _stem(what[1]) == _stem(refused[1]) or what[0] == refused[0] or bool(what[2] and what[2] == refused[2])
