"""Secrets out of text: values under keys that carry secrets, and strings that look like tokens. Pure and linear in the text."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Final

MASK: Final = "***"

# Keys in lower case without `_`, `-`, `.` and blanks. Ids of secrets (`accessKeyId`, `token_id`, `hashed_token`) are not secrets.
SECRET_KEYS: Final = frozenset(
    """
    authorization proxyauthorization bearer cookie setcookie sessioncookie
    secret clientsecret appsecret sharedsecret secretkey secretaccesskey awssecretaccesskey accesskeysecret tokensecret secrettext
    secretstring secretbinary secretvalue webhooksecret
    password passwd pwd passphrase newpassword oldpassword currentpassword userpassword adminpassword masteruserpassword
    passworddata temporarypassword
    token authtoken apitoken accesstoken refreshtoken idtoken sessiontoken awssessiontoken securitytoken xamzsecuritytoken bearertoken
    webidentitytoken subjecttoken actortoken logintoken xvaulttoken xauthtoken csrftoken registrationtoken requesttoken sastoken
    apikey xapikey accountkey sharedaccesskey storagekey connectionstring
    privatekey privatekeydata clientkeydata keymaterial
    assertion clientassertion samlassertion samlresponse jwt idtokenhint codeverifier authorizationcode devicecode
    otp totp passcode onetimepassword recoverycode verificationcode xamzsignature
    """.split()
)

_NAMES: Final = ("name", "Name", "key", "displayName")
_VALUES: Final = frozenset({"value", "oldvalue", "newvalue", "stringvalue", "old", "new"})
# Environment variables, as programs name them.
_VARIABLE: Final = re.compile(
    r"[A-Z][A-Z0-9_]*_(?:PASSWORD|PASSWD|PWD|SECRET|SECRET_KEY|SECRET_ACCESS_KEY|TOKEN|API_KEY|PRIVATE_KEY|CREDENTIALS)"
)
_STRIP: Final = str.maketrans("", "", "_-. ")

# A quoted key up to its value. In JSON text that is itself a string the quotes carry backslashes, a fixed number at each depth.
_KEY: Final = re.compile(r"""(?<!\\)(?P<quote>\\{0,63}+["'])(?P<key>[A-Za-z][A-Za-z_. -]{1,40}+)(?P=quote)\s*+:\s*+(?P<list>\[\s*+)?""")
# A secret's name beside its value, as in `{"name": "Password", "value": "…"}` or `{"displayName": …, "oldValue": null, "newValue": "…"}`.
_NAMED: Final = re.compile(
    r"""(?<!\\)(?P<quote>\\{0,63}+["'])(?:name|key|displayname)(?P=quote)\s*+:\s*+(?P=quote)(?P<key>[A-Za-z][A-Za-z_. -]{1,40}+)(?P=quote)""",
    re.IGNORECASE,
)
_BESIDE: Final = re.compile(
    r"""\s*+,\s*+(?P<quote>\\{0,63}+["'])(?:value|oldvalue|newvalue|stringvalue|old|new)(?P=quote)\s*+:\s*+(?P<none>null)?""", re.IGNORECASE
)
_NUMBER: Final = re.compile(r"-?[0-9][0-9.eE+-]*+")
_COMMA: Final = re.compile(r"\s*+,\s*+")
_FORM: Final = re.compile(r"""(?P<key>\b[A-Za-z][A-Za-z_-]{2,40}+)(?P<colon>=|:[ ]++)(?P<value>[^\s&"'\\;,<>{}\[\]]++)""")
_TOKENS: Final = re.compile(
    r"""
      eyJ[A-Za-z0-9_-]{10,}+(?:\.[A-Za-z0-9_-]*+)*+               # JWT, JWE, and base64 of a JSON object
    | \b(?:gh[a-z]_|github_pat_|glpat-|xox[a-z]-|xapp-|ya29\.|1//0|AIza|GOCSPX-|sk-|sk_live_|hv[sbr]\.|dapi|dop_v1_)[A-Za-z0-9_.-]{12,}+
    | \b(?:IQoJb3JpZ2lu|FwoGZXIvYXdz|FQoGZXIvYXdz|AQoDYXdz)[A-Za-z0-9+/=%]{8,}+    # AWS session token
    | \b[A-Za-z0-9~._-]{3}8Q~[A-Za-z0-9~._-]{30,}+               # Entra client secret
    | -----BEGIN[ ][A-Z ]*PRIVATE[ ]KEY-----.*?(?:-----END[ ][A-Z ]*PRIVATE[ ]KEY-----|\Z)
    """,
    re.VERBOSE | re.DOTALL,
)
_JWT: Final = re.compile(r"eyJ[A-Za-z0-9_-]{10,}+(?:\.[A-Za-z0-9_-]*+)+")
# What every mask of `redact_id` needs.
_HINT: Final = re.compile(r"""eyJ|=|:[ ]|["'][ ]*+:|://[^/]*+@|\b(?:bearer|basic|ssws|dpop|negotiate)\s""", re.IGNORECASE)
_SCHEME: Final = re.compile(
    r"\b(?P<scheme>bearer|basic|ssws|dpop|negotiate)(?P<gap>\s++)(?=[^\s\"'\\,]*[0-9=._+/~])[A-Za-z0-9._~+/=-]{8,}+", re.IGNORECASE
)
_USERINFO: Final = re.compile(r"(?P<before>://[^\s/:@\"']{1,200}+:)[^\s/@\"']{1,500}+(?=@)")


@lru_cache(maxsize=16_384)
def secret_key(key: str) -> bool:
    """True for names whose values are secrets, however they are spelled (`client_secret`, `clientSecret`, `Client-Secret`, `DB_PASSWORD`)."""
    return key.translate(_STRIP).lower() in SECRET_KEYS or bool(_VARIABLE.fullmatch(key))


def redact_text(text: str) -> str:
    """The text with every secret replaced by `***`; JSON, form data, headers or plain words, whole or cut off."""
    text = _named(_keyed(text))
    text = _FORM.sub(_form, text)
    text = _SCHEME.sub(rf"\g<scheme>\g<gap>{MASK}", text)
    text = _TOKENS.sub(MASK, text)
    return _USERINFO.sub(rf"\g<before>{MASK}", text)


def redact_id(text: str) -> str:
    """A name or id with what can only be a secret masked: bearer tokens, `key=value` under a secret's key, passwords in addresses.

    Ids are compared and looked up, so strings that merely begin like a vendor's token stay. Fast for the many that hold nothing of the kind.
    """
    if not _HINT.search(text):
        return text
    text = _FORM.sub(_form, _keyed(text))
    text = _SCHEME.sub(rf"\g<scheme>\g<gap>{MASK}", text)
    text = _JWT.sub(MASK, text)
    return _USERINFO.sub(rf"\g<before>{MASK}", text)


def redact(value: Any) -> Any:
    """A decoded JSON value with its secrets masked, in a copy.

    Under a secret's key every string and number is masked, also inside lists; an object there is searched like any other.
    Raises: RecursionError, if it is nested deeper than the interpreter allows.
    """
    if isinstance(value, str):
        return redact_text(value)
    if isinstance(value, dict):
        named = any(isinstance(value.get(key), str) and secret_key(value[key]) for key in _NAMES)
        return {
            key: _hide(item) if isinstance(key, str) and (secret_key(key) or (named and key.lower() in _VALUES)) else redact(item)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [redact(item) for item in value]
    return value


def _hide(value: Any) -> Any:
    if value is None or value == "" or isinstance(value, bool):
        return value
    if isinstance(value, list | tuple):
        return [_hide(item) for item in value]
    return redact(value) if isinstance(value, dict) else MASK


def _keyed(text: str) -> str:
    """Mask what stands under secret keys. A key that is none of them is stepped over alone, so its value is searched too."""
    parts: list[str] = []
    done = at = 0
    while key := _KEY.search(text, at):
        at = key.end()
        if not secret_key(key["key"]):
            continue
        quote = key["quote"]
        end = _value_end(text, at, quote)
        if end == at:
            continue
        parts += (text[done:at], quote, MASK, quote)
        while key["list"] and (comma := _COMMA.match(text, end)) and (after := _value_end(text, comma.end(), quote)) > comma.end():
            end = after
        done = at = end
    return "".join((*parts, text[done:])) if parts else text


def _named(text: str) -> str:
    """Mask the values that stand beside a secret's name."""
    parts: list[str] = []
    done = 0
    for name in _NAMED.finditer(text):
        if name.end() <= done or not secret_key(name["key"]):
            continue
        at = name.end()
        while (beside := _BESIDE.match(text, at)) and beside["quote"] == name["quote"]:
            at = beside.end()
            if beside["none"]:
                continue
            end = _value_end(text, at, name["quote"])
            if end == at:
                break
            parts += (text[done:at], name["quote"], MASK, name["quote"])
            done = at = end
    return "".join((*parts, text[done:])) if parts else text


def _value_end(text: str, at: int, quote: str) -> int:
    """Where the string or number that begins at `at` ends; `at`, if there is none or it is empty."""
    if not text.startswith(quote, at):
        number = _NUMBER.match(text, at)
        return number.end() if number else at
    if text.startswith(quote, at + len(quote)):
        return at
    match = _value(quote).match(text, at)
    return match.end() if match else at


@lru_cache(maxsize=64)
def _value(quote: str) -> re.Pattern[str]:
    """A string between such quotes, whole or cut off at the end of the text. A quote with more backslashes belongs to the value."""
    if quote == '"':
        return re.compile(r'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)', re.DOTALL)
    mark = re.escape(quote)
    return re.compile(rf"""{mark}(?:[^\\"']++|(?!{mark})\\*+.)*+(?:{mark}|\\*\Z)""", re.DOTALL)


def _form(match: re.Match[str]) -> str:
    # `Authorization: Bearer …` is left to the scheme's own pattern, which keeps the scheme's name.
    if not secret_key(match["key"]) or match["value"].lower() in ("bearer", "basic", "ssws", "dpop", "negotiate"):
        return match[0]
    return f"{match['key']}{match['colon']}{MASK}"
