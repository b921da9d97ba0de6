"""Secrets do not survive redaction; ids do."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aftergate.events.redact import MASK, SECRET_KEYS, redact, redact_text

JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJpbnZlbnRlZCJ9.c2lnbmF0dXJl"

TABLE = [
    ('{"client_secret":"abc\\"def","x":1}', '{"client_secret":"***","x":1}'),
    ('{"clientSecret" : "abc"}', '{"clientSecret" : "***"}'),
    ('{"Authorization":["Bearer one","two"],"b":"c"}', '{"Authorization":["***"],"b":"c"}'),
    ('{"password":"ends in backslash\\\\","b":"c"}', '{"password":"***","b":"c"}'),
    ('{"otp":123456}', '{"otp":"***"}'),
    ('{"secretAccessKey":"cut o', '{"secretAccessKey":"***"'),
    (r'{"m":"{\"access_token\":\"zz\\\"zz\",\"a\":1}"}', r'{"m":"{\"access_token\":\"***\",\"a\":1}"}'),
    ("{'password': 'x\"y', 'b': 1}", "{'password': '***', 'b': 1}"),
    ("grant_type=x&client_secret=foo&scope=read", "grant_type=x&client_secret=***&scope=read"),
    ("Authorization: Bearer abc.def-123456", "Authorization: Bearer ***"),
    ("password: hunter2 was given", "password: *** was given"),
    (f"token {JWT} refused", "token *** refused"),
    ("ghp_0123456789abcdefABCDEF0123456789abcd", "***"),
    ("xoxb-000000000000-abcdefgh", "***"),
    ("https://user:pw@host.example/x", "https://user:***@host.example/x"),
    ("-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----.", "***."),
    ("-----BEGIN PRIVATE KEY-----\\nAAAA", "***"),
]
KEPT = [
    '{"hashed_token":"abc","token_id":"x","accessKeyId":"AKIAEXAMPLE","refresh_token_id":"r"}',
    '{"type":"REFRESH_TOKEN","error":"invalid_token","secretName":"db"}',
    '{"password":"","secret":null,"token":{"id":"kept"}}',
    "a bearer token was used; basic sign-in",
]


@pytest.mark.parametrize(("text", "masked"), TABLE)
def test_secrets_are_masked(text: str, masked: str) -> None:
    """Whatever form the text has, only the mask is left, and masking twice changes nothing."""
    assert redact_text(text) == masked
    assert redact_text(masked) == masked


@pytest.mark.parametrize("text", KEPT)
def test_ids_and_words_are_kept(text: str) -> None:
    """Redaction leaves what an investigator needs."""
    assert redact_text(text) == text


secret_values = st.text(st.characters(categories=("L", "N", "P", "S", "Zs")), min_size=1).map(lambda s: f"Hu5h{s}Hu5h")


@given(key=st.sampled_from(sorted(SECRET_KEYS)), value=secret_values, depth=st.integers(0, 3), cut=st.integers(0, 5))
def test_no_secret_under_a_secret_key(key: str, value: str, depth: int, cut: int) -> None:
    """Property: at any depth of JSON inside JSON, whole or cut off, the value is gone."""
    text = json.dumps({"before": "x", key: value, "after": 1}, ensure_ascii=False)
    for _ in range(depth):
        text = json.dumps({"inner": text}, ensure_ascii=False)
    assert "Hu5h" not in redact_text(text[: len(text) - cut])


def test_decoded_values() -> None:
    """Dicts and lists are searched, also below a secret's key."""
    given_ = {"a": [{"api_key": "x", "n": 1}], "secret": {"id": "kept", "password": ["x", 5]}, "t": JWT, "pwd": None}
    assert redact(given_) == {"a": [{"api_key": MASK, "n": 1}], "secret": {"id": "kept", "password": [MASK, MASK]}, "t": MASK, "pwd": None}


@pytest.mark.parametrize(
    "text", ['"', "\\", '\\"', '\\"token', "'token':'", '{"password":"', "eyJ", "-----BEGIN PRIVATE KEY-----", "://a:", "bearer ", "a="]
)
def test_linear_in_the_text(text: str) -> None:
    """No text makes it slow: 200 KB take well below a second each."""
    before = time.process_time()
    redact_text(text * (200_000 // len(text)))
    assert time.process_time() - before < 2
