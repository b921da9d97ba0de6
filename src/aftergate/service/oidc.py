"""The issuer with which people log in, seen from here: discovery, keys, the code's exchange, and what an ID token must show.

Source: OpenID Connect Core 1.0, Discovery 1.0; RFC 6749, 7636, 9207, 9700.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

import httpx2
import msgspec
import stamina
from joserfc import jwk, jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from joserfc.jws import JWSRegistry
from msgspec import Struct

from aftergate.errors import AftergateError
from aftergate.settings import is_loopback

ALGORITHMS: Final = ("RS256", "PS256", "ES256", "ES384", "EdDSA", "Ed25519", "RS384", "RS512", "PS384", "PS512", "ES512")
SKEW_S: Final = 60
TIMEOUT_S: Final = 5
LARGEST_B: Final = 1_048_576
OPTIONAL: Final = frozenset({"userinfo_endpoint", "end_session_endpoint"})
METADATA_MS: Final = 3_600_000
KEYS_MS: Final = 600_000
AGAIN_MS: Final = 10_000  # an unknown key id asks the issuer again at most this often
DOWN_MS: Final = 3_000  # an issuer that gave no answer is asked again after this


class IssuerError(AftergateError):
    """The issuer does not answer, or answers something that must not be believed. The login fails; nobody is let in."""

    code = "issuer"
    hint = "look at the server's log and at the issuer's; people with a passkey can still log in"


class Metadata(Struct, frozen=True):
    """What discovery says, as far as it is used."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str = ""
    end_session_endpoint: str = ""
    token_endpoint_auth_methods_supported: tuple[str, ...] = ("client_secret_basic",)
    authorization_response_iss_parameter_supported: bool = False
    code_challenge_methods_supported: tuple[str, ...] = ()


class Proved(Struct, frozen=True):
    """What a login at the issuer proved. `auth_ms` is when the person authenticated there; 0 if the issuer does not say."""

    subject: str
    auth_ms: int
    acr: str
    amr: tuple[str, ...]
    claims: dict[str, Any]


class Issuer:
    """One issuer. Network only in `metadata`, `keys` and `redeem`; answers are cached, keys are fetched again when an unknown one signs."""

    def __init__(
        self, issuer: str, client_id: str, client_secret: str, clock: Callable[[], int], transport: httpx2.BaseTransport | None = None
    ) -> None:
        self.issuer = issuer
        self.client_id = client_id
        self._secret = client_secret
        self._clock = clock
        # The environment's proxies and `.netrc` stay out of it: what reaches the issuer is what the settings say.
        self._client = httpx2.Client(
            timeout=TIMEOUT_S, follow_redirects=False, transport=transport, trust_env=False, headers={"accept": "application/json"}
        )
        self._lock = threading.Lock()
        self._metadata: tuple[int, Metadata] | None = None
        self._keys: tuple[int, KeySet] | None = None
        self._down_ms = -DOWN_MS

    def metadata(self) -> Metadata:
        """Discovery, section 4.

        Raises: IssuerError.
        """
        with self._lock:
            if self._metadata is not None and self._clock() - self._metadata[0] < METADATA_MS:
                return self._metadata[1]
            url = self.issuer.rstrip("/") + "/.well-known/openid-configuration"
            if 0 <= self._clock() - self._down_ms < DOWN_MS:
                raise IssuerError("the issuer does not answer", where=url)
            try:
                made = msgspec.convert(self._json("GET", url), Metadata)
            except IssuerError:
                # Anybody may ask for a login, and each try waits for seconds: all that come meanwhile are told at once.
                self._down_ms = self._clock()
                raise
            except msgspec.ValidationError as e:
                raise IssuerError(f"the issuer's metadata cannot be used: {e}", where=url) from None
            if made.issuer != self.issuer:
                raise IssuerError("the metadata is of another issuer", where=url, hint=f"`oidc_issuer` must be exactly `{made.issuer}`")
            for name in ("authorization_endpoint", "token_endpoint", "jwks_uri", "userinfo_endpoint", "end_session_endpoint"):
                self._allowed(getattr(made, name), name)
            if made.code_challenge_methods_supported and "S256" not in made.code_challenge_methods_supported:
                raise IssuerError("the issuer does not offer PKCE with S256", where=url, hint="turn it on for this client")
            self._metadata = (self._clock(), made)
            return made

    def keys(self, kid: str = "") -> KeySet:
        """The issuer's keys; fetched again when they are old, or do not hold `kid`.

        Raises: IssuerError.
        """
        url = self.metadata().jwks_uri
        with self._lock:
            now = self._clock()
            if self._keys is not None:
                fetched, held = self._keys
                known = not kid or any(key.kid == kid for key in held)
                if now - fetched < (KEYS_MS if known else AGAIN_MS):
                    return held
            made = key_set(self._json("GET", url))
            self._keys = (now, made)
            return made

    def authorize(
        self, *, redirect_uri: str, state: str, nonce: str, verifier: str, max_age_s: int | None, acr_values: str, prompt: str
    ) -> str:
        """Where to send the browser (OpenID Connect Core, section 3.1.2.1; RFC 7636, section 4.3).

        Raises: IssuerError.
        """
        asked = {
            "response_type": "code",
            "client_id": self.client_id,
            "redirect_uri": redirect_uri,
            "scope": "openid profile email",
            "state": state,
            "nonce": nonce,
            "code_challenge": challenge_of(verifier),
            "code_challenge_method": "S256",
        }
        if max_age_s is not None:
            asked["max_age"] = str(max_age_s)
        if acr_values:
            asked["acr_values"] = acr_values
        if prompt:
            asked["prompt"] = prompt
        endpoint = self.metadata().authorization_endpoint
        return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(asked, quote_via=quote)}"

    def redeem(
        self, code: str, *, redirect_uri: str, verifier: str, nonce: str, max_age_s: int | None, acr_values: str, wanted: set[str]
    ) -> Proved:
        """Exchange a code, and check what comes back. `wanted` names claims to ask the user-info endpoint for when the ID token lacks them.

        Raises: IssuerError.
        """
        metadata = self.metadata()
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": redirect_uri, "code_verifier": verifier}
        headers: dict[str, str] = {}
        if not self._secret:
            form["client_id"] = self.client_id
        elif "client_secret_basic" in metadata.token_endpoint_auth_methods_supported:
            pair = f"{quote(self.client_id, safe='')}:{quote(self._secret, safe='')}"  # RFC 6749, section 2.3.1
            headers["authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        else:
            form |= {"client_id": self.client_id, "client_secret": self._secret}
        # Not repeated on failure: a code is good once, and a second use would revoke what the first one got.
        answer = self._json("POST", metadata.token_endpoint, form=form, headers=headers)
        token, access = answer.get("id_token"), answer.get("access_token")
        if not isinstance(token, str) or not isinstance(access, str):
            raise IssuerError("the issuer answered the code without an ID token", where=metadata.token_endpoint)
        claims = self.verify(token, nonce=nonce, access_token=access)
        proved = proof_of(claims, self._clock(), max_age_s=max_age_s, acr_values=acr_values)
        if metadata.userinfo_endpoint and not wanted.issubset(claims):
            more = self._json("GET", metadata.userinfo_endpoint, headers={"authorization": f"Bearer {access}"})
            if more.get("sub") != proved.subject:
                raise IssuerError("user info is about somebody else", where=metadata.userinfo_endpoint)  # section 5.3.2
            proved = msgspec.structs.replace(proved, claims={**more, **claims})
        return proved

    def verify(self, token: str, *, nonce: str, access_token: str) -> dict[str, Any]:
        """The claims of an ID token, once it holds (OpenID Connect Core, section 3.1.3.7).

        Raises: IssuerError.
        """
        keys = self.keys(_kid(token))
        try:
            decoded = jwt.decode(token, keys, algorithms=list(ALGORITHMS), registry=_Registry(algorithms=list(ALGORITHMS)))
        except (JoseError, ValueError, TypeError, KeyError, RecursionError) as e:
            raise IssuerError(f"the ID token does not verify: {type(e).__name__}") from None
        return check_claims(
            decoded.header,
            decoded.claims,
            issuer=self.issuer,
            client_id=self.client_id,
            nonce=nonce,
            access_token=access_token,
            now_ms=self._clock(),
        )

    def close(self) -> None:
        self._client.close()

    def _json(
        self, method: str, url: str, *, form: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        attempts = 3 if method == "GET" else 1
        try:
            for attempt in stamina.retry_context(
                on=httpx2.TransportError, attempts=attempts, timeout=2 * TIMEOUT_S, wait_initial=0.1, wait_max=1
            ):
                with attempt:
                    return self._once(method, url, form, headers)
        except httpx2.HTTPError as e:
            raise IssuerError(f"the issuer does not answer: {type(e).__name__}", where=url) from None
        raise AssertionError("unreachable")

    def _once(self, method: str, url: str, form: Mapping[str, str] | None, headers: Mapping[str, str] | None) -> dict[str, Any]:
        with self._client.stream(method, url, data=form, headers=headers) as response:
            body = b""
            for part in response.iter_bytes():
                body += part
                if len(body) > LARGEST_B:
                    raise IssuerError("the issuer's answer is too large", where=url)
            if response.status_code != 200:
                raise IssuerError(f"the issuer answered {response.status_code}{_error_of(body)}", where=url)
        try:
            made = msgspec.json.decode(body)
        except msgspec.DecodeError:
            raise IssuerError("the issuer's answer is not JSON", where=url) from None
        if not isinstance(made, dict):
            raise IssuerError("the issuer's answer is not a JSON object", where=url)
        return made

    def _allowed(self, url: str, name: str) -> None:
        """An endpoint is https; plain only on this machine, for an issuer on this machine: discovery must not send us to a service inside."""
        if not url and name in OPTIONAL:
            return
        parts = urlsplit(url)
        local = parts.scheme == "http" and is_loopback(parts.hostname or "") and is_loopback(urlsplit(self.issuer).hostname or "")
        if not parts.hostname or (parts.scheme != "https" and not local) or parts.username is not None or parts.fragment:
            raise IssuerError(f"the issuer's `{name}` is not an https address", where=self.issuer)


class _Registry(JWSRegistry):
    max_header_length = 4096

    def get_alg(self, name: str) -> Any:
        # Without the library's warning about `EdDSA`, which issuers still write (RFC 9864 renames it).
        if name not in ALGORITHMS:
            raise JoseError(f"`{name}` is not accepted")
        return self.algorithms[name]


def check_claims(
    header: Mapping[str, Any], claims: Any, *, issuer: str, client_id: str, nonce: str, access_token: str, now_ms: int
) -> dict[str, Any]:
    """An ID token's header and claims, once its signature holds: it is an ID token, of this issuer, for us, now, and answers our request.

    Raises: IssuerError.
    """

    def refuse(reason: str) -> IssuerError:
        return IssuerError(f"the ID token {reason}", where=issuer)

    if not isinstance(claims, dict):
        raise refuse("holds no claims")
    if str(header.get("typ", "JWT")).lower() not in {"jwt", "application/jwt"}:
        raise refuse("is a token of another type")  # an access or logout token must not pass (RFC 8725, section 3.11)
    if claims.get("iss") != issuer:
        raise refuse("is of another issuer")
    audience = claims.get("aud")
    named = [audience] if isinstance(audience, str) else audience
    if not isinstance(named, list) or client_id not in named:
        raise refuse("is for another client")
    if (len(named) > 1 or "azp" in claims) and claims.get("azp") != client_id:
        raise refuse("was issued to another client")
    now = now_ms // 1000
    for name in ("exp", "iat"):
        if not _number(claims.get(name)):
            raise refuse(f"has no `{name}`")
    if claims["exp"] + SKEW_S <= now:
        raise refuse("has expired")
    if claims["iat"] - SKEW_S > now or ("nbf" in claims and (not _number(claims["nbf"]) or claims["nbf"] - SKEW_S > now)):
        raise refuse("is from the future: compare the clocks")
    given = claims.get("nonce")
    if not isinstance(given, str) or not hmac.compare_digest(given.encode(), nonce.encode()):
        raise refuse("answers another request")
    if not isinstance(claims.get("sub"), str) or not claims["sub"] or len(claims["sub"]) > 255 or "\0" in claims["sub"]:
        raise refuse("names nobody")
    if "at_hash" in claims and not _at_hash_holds(claims["at_hash"], str(header.get("alg")), access_token):
        raise refuse("does not belong to the access token")
    return claims


def proof_of(claims: dict[str, Any], now_ms: int, *, max_age_s: int | None, acr_values: str) -> Proved:
    """What checked claims prove, if that is what was asked for. Freshness is `auth_time`, never `iat` (RFC 9470).

    Raises: IssuerError.
    """
    auth_time = claims.get("auth_time")
    if auth_time is not None and (not _number(auth_time) or auth_time - SKEW_S > now_ms / 1000):
        raise IssuerError("the ID token's `auth_time` is no past time")
    if max_age_s is not None:
        if auth_time is None:
            raise IssuerError("the ID token does not say when the person authenticated, though `max_age` asked for it")
        if now_ms / 1000 - auth_time > max_age_s + SKEW_S:
            raise IssuerError("the person authenticated too long ago", hint="log in again at the issuer")
    acr = claims.get("acr") if isinstance(claims.get("acr"), str) else ""
    if acr_values and acr not in acr_values.split():
        raise IssuerError("the issuer did not authenticate the person as was asked", hint="it must offer one of: " + acr_values)
    amr = claims.get("amr")
    methods = tuple(str(each)[:64] for each in amr[:16]) if isinstance(amr, list) else ()
    return Proved(claims["sub"], int(auth_time * 1000) if auth_time is not None else 0, str(acr)[:256], methods, claims)


def key_set(held: Mapping[str, Any]) -> KeySet:
    """The public signing keys of a JWK set; keys of kinds that we do not know are passed over (RFC 7517, section 5).

    Raises: IssuerError, if none is left.
    """
    made: list[Any] = []
    keys = held.get("keys")
    for each in keys if isinstance(keys, list) else []:
        if not isinstance(each, dict) or each.get("use", "sig") != "sig" or each.get("kty") not in {"RSA", "EC", "OKP"} or "d" in each:
            continue
        try:
            made.append(jwk.import_key(each))
        except (JoseError, ValueError, TypeError, KeyError):
            continue
    if not made:
        raise IssuerError("the issuer's key set holds no key that can be used")
    return KeySet(made)


def challenge_of(verifier: str) -> str:
    """RFC 7636, section 4.2."""
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode("ascii")).digest()).rstrip(b"=").decode()


def _at_hash_holds(given: Any, algorithm: str, access_token: str) -> bool:
    digest = {"256": hashlib.sha256, "384": hashlib.sha384, "512": hashlib.sha512}.get(algorithm[-3:], hashlib.sha512)(
        access_token.encode()
    ).digest()
    half = base64.urlsafe_b64encode(digest[: len(digest) // 2]).rstrip(b"=").decode()
    return isinstance(given, str) and hmac.compare_digest(given.encode(), half.encode())


def _kid(token: str) -> str:
    try:
        head = token.split(".", 1)[0]
        header = msgspec.json.decode(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))
        return str(header.get("kid", "")) if isinstance(header, dict) else ""
    except (ValueError, msgspec.DecodeError):
        return ""


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _error_of(body: bytes) -> str:
    """The OAuth error code of an answer; never its description, which an issuer may fill with what was sent."""
    try:
        held = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return ""
    code = held.get("error") if isinstance(held, dict) else None
    return f" ({code})" if isinstance(code, str) and code.replace("_", "").isalpha() and len(code) < 60 else ""
