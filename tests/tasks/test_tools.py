"""An agent's tool calls: its task's list first, the policies next, a record of each, and trust that falls with every try outside."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from workshop import ALICE, MCP, Holder, Shop, claims_of

from aftergate.authz.tasks import details as d
from aftergate.authz.tasks import mcp
from aftergate.authz.tasks.answers import Refusal
from aftergate.authz.tasks.grants import Binding
from aftergate.authz.tasks.machine import State, Task
from aftergate.service.tasks import Asking, tools
from aftergate.service.tasks.exchange import Issued, Refused

RIGHTS = [{"type": d.TASK, "actions": ["danger", "search", "refund"], "resource_type": "tool", "locations": [MCP, "https://crm.example"]}]


def call(name: str, arguments: Any = None, method: str = "tools/call") -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 7, "method": method, "params": {"name": name, "arguments": arguments or {}}}


class Agent:
    """An agent in a task for alice, and the gateway that it calls through."""

    def __init__(self, shop: Shop, raw: Any = None, **more: Any) -> None:
        self.shop = shop
        self.task: Task = shop.task(raw or RIGHTS, on_behalf_of=ALICE, **more)
        made = shop.exchange(shop.user_token(), task_id=self.task.id, audience=MCP)
        assert isinstance(made, Issued), made
        self.token = made.token

    def bearer(self, token: str = "") -> tools.Bearer | Refusal:
        return tools.bearer_of(self.shop.tasks, self.shop.asking(proof=""), token or self.token, None, self.shop.now)

    def says(self, message: Any, *, server: str = MCP, **more: Any) -> tools.Verdict:
        bearer = self.bearer()
        assert isinstance(bearer, tools.Bearer), bearer
        return tools.judge(
            self.shop.tasks,
            self.shop.asking(proof=""),
            bearer,
            message,
            self.shop.presented(proof=""),
            self.shop.now,
            server=server,
            **more,
        )


def test_a_tool_of_the_task_is_permitted_and_written_down(shop: Shop) -> None:
    agent = Agent(shop)
    verdict = agent.says(call("search", {"query": "secret words", "limit": 5}))
    assert verdict.allowed
    assert verdict.error is None
    (told,) = shop.records("tool.allowed")
    assert told["task"] == agent.task.id
    assert told["detail"]["tool"] == "search"
    assert told["detail"]["args_class"] == "limit:number,query:string"
    assert len(told["detail"]["args_hash"]) == 64
    assert "secret words" not in str(shop.records())
    again = agent.says(call("search", {"limit": 5, "query": "secret words"}))
    assert again.allowed
    assert shop.records("tool.allowed")[1]["detail"]["args_hash"] == told["detail"]["args_hash"]


def test_a_tool_outside_the_task_is_denied_and_lowers_trust(shop: Shop) -> None:
    agent = Agent(shop)
    trust = [shop.core.trust.of(["ci"], [agent.task.id]).lowest]
    for number in range(1, 5):
        verdict = agent.says(call("delete_everything", {"really": True}))
        assert not verdict.allowed
        assert verdict.context["reason"] == "outside_task"
        assert verdict.error is not None
        assert verdict.error["error"]["code"] == mcp.DENIED
        assert verdict.error["id"] == 7
        trust.append(shop.core.trust.of(["ci"], [agent.task.id]).lowest)
        told = shop.records("tool.denied")[-1]
        assert told["detail"]["number"] == number
        assert told["detail"]["args_class"] == "really:boolean"
    assert trust == sorted(trust, reverse=True)
    assert len(set(trust)) == 5
    assert "agent-tool-out-of-scope" in shop.core.trust.of(["ci"]).findings
    assert {r["action"] for r in shop.records("decision")} <= {"task.start", "token.exchange"}  # no policy was asked about the tool


def test_an_agent_that_goes_on_loses_its_task(shop: Shop) -> None:
    agent = Agent(shop, floor=45)
    for _ in range(3):
        agent.says(call("delete_everything"))
    assert shop.state(agent.task) is State.KILLED
    assert isinstance(agent.bearer(), Refusal)
    assert not shop.active(agent.token)


def test_the_policies_have_the_last_word_within_the_task(shop: Shop) -> None:
    verdict = Agent(shop).says(call("danger"))
    assert not verdict.allowed
    assert verdict.context["policies"] == ["no-danger"]
    assert shop.records("tool.denied") == []


def test_another_server_or_another_method_is_outside(shop: Shop) -> None:
    agent = Agent(shop)
    assert not agent.says(call("search"), server="https://other.example").allowed  # the token is not for it
    assert not agent.says(call("search", method="prompts/get")).allowed
    assert not agent.says(call("x", method="tools/uninstall")).allowed
    assert not agent.says({"jsonrpc": "2.0", "id": 1, "method": "resources/read", "params": {"uri": "file:///etc"}}).allowed
    assert agent.says({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}).allowed
    assert agent.says({"jsonrpc": "2.0", "id": 1, "method": "ping"}).allowed
    assert agent.says({"jsonrpc": "2.0", "method": "notifications/cancelled"}).allowed


def test_tools_may_be_named_by_identifier_as_well(shop: Shop) -> None:
    raw = [{"type": d.TASK, "actions": ["tools/call"], "resource_type": "tool", "identifiers": ["search"], "locations": [MCP]}]
    agent = Agent(shop, raw)
    assert agent.says(call("search")).allowed
    assert not agent.says(call("refund")).allowed


def test_a_declared_mapping_asks_its_own_question_but_cannot_leave_the_task(shop: Shop) -> None:
    agent = Agent(shop)
    mapping = {
        "evaluation": {
            "action": {"name": "get_customer"},
            "resource": {"type": "customer", "id": "$params.arguments.id"},
            "context": {"task_id": "task-of-somebody-else", "approval": {"id": "x"}, "session_id": "clean"},
        }
    }
    # A mapping may ask what the task's details do not name; the tool itself must be in the list. Facts are set here, not by the tool.
    verdict = agent.says(call("search", {"id": "c-1"}), declared=mapping)
    assert verdict.context["reason"] == "no_permit"
    wide = Agent(shop, [*RIGHTS, {"type": d.TASK, "actions": ["get_customer"], "resource_type": "customer", "locations": [MCP]}])
    assert wide.says(call("search", {"id": "c-1"}), declared=mapping).allowed
    assert not wide.says(call("wipe", {"id": "c-1"}), declared=mapping).allowed
    broken = wide.says(call("search", {}), declared=mapping)
    assert not broken.allowed
    assert broken.error is not None
    assert broken.error["error"]["code"] == mcp.INVALID_PARAMS


def test_claims_are_believed_from_decision_points_only(shop: Shop) -> None:
    claims = {"sub": "alice", "client_id": "ci", "aud": MCP}
    assert isinstance(tools.bearer_of(shop.tasks, shop.asking(), "", claims, shop.now), tools.Bearer)
    assert isinstance(tools.bearer_of(shop.tasks, shop.asking(shop.plain), "", claims, shop.now), Refusal)
    assert isinstance(tools.bearer_of(shop.tasks, shop.asking(), "", None, shop.now), Refusal)
    assert isinstance(tools.bearer_of(shop.tasks, shop.asking(), "", {**claims, "task": "task-gone"}, shop.now), Refusal)
    agent = Agent(shop)
    found = tools.bearer_of(shop.tasks, shop.asking(), "", {**claims, "task": agent.task.id}, shop.now)
    assert isinstance(found, tools.Bearer)
    assert found.task is not None


def test_a_token_of_an_issuer_has_no_task_and_no_tools(shop: Shop) -> None:
    found = tools.bearer_of(shop.tasks, shop.asking(), shop.user_token(aud=[shop.core.url, MCP]), None, shop.now)
    assert isinstance(found, tools.Bearer)
    verdict = tools.judge(shop.tasks, shop.asking(), found, call("search"), shop.presented(proof=""), shop.now, server=MCP)
    assert not verdict.allowed
    for token in ("x", shop.user_token(iss="https://evil.example"), shop.user_token(exp=1), shop.user_token(typ="JWT")):
        assert isinstance(tools.bearer_of(shop.tasks, shop.asking(), token, None, shop.now), Refusal)


def test_a_permitted_call_goes_on_with_a_token_of_its_own(shop: Shop) -> None:
    agent = Agent(shop)
    gateway, key = shop.proved(shop.assertion("gateway")), Holder()
    assert isinstance(gateway, Asking)
    gateway = msgspec.structs.replace(gateway, binding=Binding(jkt=key.jkt))
    bearer = agent.bearer()
    assert isinstance(bearer, tools.Bearer)

    def onward(asking: Asking, message: dict[str, Any], target: str = "https://crm.example") -> Issued | Refused:
        return tools.downstream(shop.tasks, asking, bearer, message, target, MCP, 60, shop.presented(proof=""), shop.now)

    made = onward(gateway, call("search"))
    assert isinstance(made, Issued), made
    claims = claims_of(made.token)
    assert claims["aud"] == "https://crm.example"
    assert claims["scope"] == "search"
    assert claims["authorization_details"] == [{**RIGHTS[0], "actions": ["search"], "locations": sorted(RIGHTS[0]["locations"])}]  # type: ignore[call-overload]
    assert claims["act"] == {"sub": "gateway", "act": {"sub": "ci"}}
    assert claims["cnf"] == {"jkt": key.jkt}
    assert claims["exp"] - claims["iat"] <= 60
    assert made.token != agent.token
    assert isinstance(onward(gateway, call("search"), "https://elsewhere.example"), Refused)
    assert isinstance(onward(gateway, call("wipe")), Refused)
    assert isinstance(onward(gateway, call("search", method="prompts/get")), Refused)
    assert isinstance(onward(shop.asking(shop.plain), call("search")), Refused)  # no audience of the agent's token
    shop.tasks.finish(shop.asking(), agent.task.id, State.COMPLETED, "", shop.now)
    assert not shop.active(made.token)


def test_arguments_that_cannot_be_made_canonical_are_hashed_all_the_same(shop: Shop) -> None:
    agent = Agent(shop)
    agent.says(call("search", {"big": 2**60}))
    assert json.dumps(shop.records("tool.allowed")[0]["detail"]).count("args_hash") == 1
