"""Each MCP message becomes the question that COAZ-MCP says, or is refused."""

from __future__ import annotations

import time
from typing import Any

import pytest

from aftergate.authz.tasks import mcp
from aftergate.authz.tasks.cel import ABSENT, MappingError, evaluate

TOKEN = {
    "sub": "alice@example.com",
    "client_id": "http://agent.example/app",
    "aud": "https://mcp.example.com",
    "roles": ["treasury"],
    "exp": 1,
}


def call(method: str, params: Any = None, **more: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 2, "method": method, **({"params": params} if params is not None else {}), **more}


def shown(request: Any) -> tuple[str, str, str, str, str]:
    return (request.subject.type, request.subject.id, request.action.name, request.resource.type, request.resource.id)


@pytest.mark.parametrize(
    ("method", "params", "resource", "context"),
    [
        ("initialize", {"protocolVersion": "2026-07-28"}, ("mcp_server", "https://mcp.example.com"), {"protocol_version": "2026-07-28"}),
        ("tools/list", None, ("mcp_server", "https://mcp.example.com"), {}),
        ("tools/call", {"name": "get_customer", "arguments": {"id": 1}}, ("tool", "get_customer"), {}),
        ("resources/list", {}, ("mcp_server", "https://mcp.example.com"), {}),
        ("resources/read", {"uri": "file:///a"}, ("resource", "file:///a"), {}),
        ("resources/subscribe", {"uri": "file:///a"}, ("resource", "file:///a"), {}),
        ("resources/unsubscribe", {"uri": "file:///a"}, ("resource", "file:///a"), {}),
        ("prompts/list", {}, ("mcp_server", "https://mcp.example.com"), {}),
        ("prompts/get", {"name": "p"}, ("prompt", "p"), {}),
        ("completion/complete", {"ref": {"type": "ref/prompt", "name": "p"}}, ("prompt", "p"), {}),
        ("completion/complete", {"ref": {"type": "ref/resource", "uri": "u"}}, ("resource", "u"), {}),
        ("logging/setLevel", {"level": "debug"}, ("mcp_server", "https://mcp.example.com"), {"level": "debug"}),
        ("tasks/get", {"taskId": "t1"}, ("task", "t1"), {}),
        ("tasks/result", {"taskId": "t1"}, ("task", "t1"), {}),
        ("tasks/cancel", {"taskId": "t1"}, ("task", "t1"), {}),
        ("tasks/list", {}, ("mcp_server", "https://mcp.example.com"), {}),
    ],
)
def test_every_method_of_the_table_has_its_default(method: str, params: Any, resource: tuple[str, str], context: dict[str, Any]) -> None:
    found = mcp.map_message(call(method, params), TOKEN)
    assert isinstance(found, mcp.Mapped)
    (request,) = found.requests
    assert shown(request) == ("identity", "alice@example.com", method, *resource)
    assert request.context == {"agent": "http://agent.example/app", **context}


def test_ping_and_notifications_pass_without_a_decision() -> None:
    assert isinstance(mcp.map_message(call("ping"), {}), mcp.Passes)
    assert isinstance(mcp.map_message({"jsonrpc": "2.0", "method": "notifications/initialized"}, {}), mcp.Passes)


@pytest.mark.parametrize(
    "method", ["tools/uninstall", "sampling/createMessage", "elicitation/create", "roots/list", "server/discover", "PING", "tools/Call", ""]
)
def test_a_method_that_nobody_mapped_is_denied(method: str) -> None:
    found = mcp.map_message(call(method), TOKEN)
    assert isinstance(found, mcp.Refused)
    assert found.code == mcp.DENIED


@pytest.mark.parametrize(
    ("message", "token", "code"),
    [
        ("x", TOKEN, mcp.INVALID_REQUEST),
        ({"method": "ping", "id": 1}, TOKEN, mcp.INVALID_REQUEST),
        ({"jsonrpc": "2.0", "id": 1}, TOKEN, mcp.INVALID_REQUEST),
        ({"jsonrpc": "2.0", "method": "tools/call", "params": {"name": "x"}}, TOKEN, mcp.INVALID_REQUEST),
        (call("notifications/x"), TOKEN, mcp.INVALID_REQUEST),
        (call("tools/call", [1]), TOKEN, mcp.INVALID_PARAMS),
        (call("tools/call", {}), TOKEN, mcp.INVALID_PARAMS),
        (call("tools/call", {"name": 5}), TOKEN, mcp.INVALID_PARAMS),
        (call("tools/call", {"name": "x"}), {"client_id": "a"}, mcp.INVALID_PARAMS),
        (call("resources/read", {}), TOKEN, mcp.INVALID_PARAMS),
        (call("completion/complete", {}), TOKEN, mcp.INVALID_PARAMS),
        (call("initialize", {}), TOKEN, mcp.INVALID_PARAMS),
        (call("tools/list"), {"sub": "a"}, mcp.INVALID_PARAMS),
        (call("tools/list"), {"sub": "a", "aud": ["x", "y"]}, mcp.INVALID_PARAMS),
    ],
)
def test_what_cannot_be_mapped_is_refused(message: Any, token: dict[str, Any], code: int) -> None:
    found = mcp.map_message(message, token)
    assert isinstance(found, mcp.Refused)
    assert found.code == code


def test_a_server_that_knows_its_name_picks_it_from_several_audiences() -> None:
    token = {**TOKEN, "aud": ["https://mcp.example.com", "https://other.example"]}
    found = mcp.map_message(call("tools/list"), token, server="https://other.example")
    assert isinstance(found, mcp.Mapped)
    assert found.requests[0].resource.id == "https://other.example"
    assert isinstance(mcp.map_message(call("tools/list"), token, server="https://third.example"), mcp.Refused)


def declared(mapping: Any, arguments: Any, token: dict[str, Any] | None = None) -> Any:
    return mcp.map_message(
        call("tools/call", {"name": "tool", "arguments": arguments}), token or TOKEN, declared=mapping, evaluate=evaluate
    )


CUSTOMER = {
    "evaluation": {
        "subject": {"type": "identity", "id": "$token.sub"},
        "action": {"name": "get_customer"},
        "resource": {"type": "customer", "id": "$params.arguments.id"},
        "context": {"agent": "$token.?client_id", "case": "$params.arguments.?case", "price": "$$50"},
    }
}


def test_a_declared_mapping_overrides_the_default_for_its_tool() -> None:
    found = declared(CUSTOMER, {"id": "cust-12345", "case": "case-67890"})
    (request,) = found.requests
    assert shown(request) == ("identity", "alice@example.com", "get_customer", "customer", "cust-12345")
    assert request.context == {"agent": "http://agent.example/app", "case": "case-67890", "price": "$50"}
    assert found.declared
    assert found.anchored
    assert "case" not in declared(CUSTOMER, {"id": "cust-12345"}).requests[0].context


def test_several_evaluations_and_conditions() -> None:
    copy = {
        "evaluations": {
            "subject": {"id": "$token.sub"},
            "evaluations": [
                {"action": {"name": "read"}, "resource": {"type": "object", "id": "$params.arguments.source"}},
                {"action": {"name": "write"}, "resource": {"type": "object", "id": "$params.arguments.target"}},
            ],
        }
    }
    found = declared(copy, {"source": "/a", "target": "/b"})
    assert [shown(request)[2:] for request in found.requests] == [("read", "object", "/a"), ("write", "object", "/b")]
    funds = {
        "evaluation": {
            "subject": {"type": "$token.roles.exists(r, r == 'treasury') ? 'treasury_user' : 'standard_user'"},
            "action": {"name": "$params.arguments.currency == 'USD' ? 'domestic' : 'international'"},
            "resource": {
                "type": "account",
                "id": "$params.arguments.from",
                "properties": {"sensitivity": "$params.arguments.amount > 10000 ? 'high' : 'standard'"},
            },
        }
    }
    (request,) = declared(funds, {"currency": "EUR", "from": "acc", "amount": 20000}).requests
    assert shown(request) == ("treasury_user", "alice@example.com", "international", "account", "acc")
    assert request.resource.properties == {"sensitivity": "high"}


def test_a_subject_from_elsewhere_is_marked_as_not_anchored() -> None:
    mapping = {"evaluation": {**CUSTOMER["evaluation"], "subject": {"id": "$params.arguments.user"}}}
    found = declared(mapping, {"id": "c", "user": "bob"})
    assert found.requests[0].subject.id == "bob"
    assert not found.anchored


@pytest.mark.parametrize(
    "mapping",
    [
        {},
        [],
        {"evaluation": {}, "evaluations": {}},
        {"search": {}},
        {"evaluation": []},
        {"evaluation": {"evaluations": []}},
        {"evaluations": {"evaluations": []}},
        {"evaluations": {"evaluations": [{"subject": {"id": "x"}, "action": {"name": "r"}, "resource": {"type": "t", "id": "i"}}]}},
        {"evaluations": {"evaluations": [{"action": {"name": "r"}}]}},
        {"evaluation": {"action": {"name": "r"}}},
        {"evaluation": {"action": {"name": "r"}, "resource": {"type": "t", "id": "$params.arguments.nope"}}},
        {"evaluation": {"action": {"name": "r"}, "resource": {"type": "t", "id": "$params.arguments.?nope"}}},
        {"evaluation": {"action": {"name": "r"}, "resource": {"type": "t", "id": "$null"}}},
        {"evaluation": {"action": {"name": "r"}, "resource": {"type": "t", "id": "$1/0"}}},
        {"evaluation": {"action": {"name": "r"}, "resource": {"type": "t", "id": "$("}}},
        {"evaluation": {"action": {"name": "r"}, "resource": {"type": "t", "id": "$" + "1+" * 600 + "1"}}},
        {"evaluation": {"action": {"name": "r"}, "resource": {"type": "t", "id": "$os.environ"}}},
        {"evaluation": {"subject": "x", "action": {"name": "r"}, "resource": {"type": "t", "id": "i"}}},
    ],
)
def test_a_mapping_error_refuses(mapping: Any) -> None:
    found = declared(mapping, {})
    assert isinstance(found, mcp.Refused)
    assert found.code == mcp.INVALID_PARAMS


def test_a_hostile_expression_costs_nothing() -> None:
    bomb = "[1,2,3,4,5,6,7,8,9,10]"
    for letter in "abcdefgh":
        bomb = f"[1,2,3,4,5,6,7,8,9,10].map({letter}, {bomb})"
    begun = time.monotonic()
    for expression in (bomb, "(" * 400 + "1" + ")" * 400, "[" * 400 + "]" * 400, "'a'.matches('(a*)*$')"):
        try:
            evaluate(expression, {}, {})
        except MappingError:
            continue
    assert time.monotonic() - begun < 2


def test_without_an_evaluator_expressions_are_refused_and_literals_are_not() -> None:
    literal = {"evaluation": {"action": {"name": "read"}, "resource": {"type": "t", "id": "i"}}}
    message = call("tools/call", {"name": "tool"})
    assert isinstance(mcp.map_message(message, TOKEN, declared=literal), mcp.Mapped)
    assert isinstance(mcp.map_message(message, TOKEN, declared=CUSTOMER), mcp.Refused)


def test_optional_selection_is_absent_not_null() -> None:
    assert evaluate("token.?nope", {}, {}) is ABSENT
    assert evaluate("token.?a", {}, {"a": None}) is None


def test_the_class_of_arguments_tells_kinds_and_no_values() -> None:
    assert (
        mcp.class_of_arguments({"to": "secret", "amount": 5, "x": [1], "y": None, "z": True})
        == "amount:number,to:string,x:array,y:null,z:boolean"
    )
    assert mcp.class_of_arguments(None) == "none"
    assert len(mcp.class_of_arguments({f"n{i:03}": i for i in range(100)})) == 200
