"""What an operation is, across vendors: how much its first time tells, and which kind of thing it asks for."""

from __future__ import annotations

from functools import lru_cache

from aftergate.vocabulary import Action, Kind, Tag
from aftergate.vocabulary.patterns import regex

_GRAVE = frozenset(
    {Tag.PRIVILEGE_GRANT, Tag.CREDENTIAL_ADD, Tag.TRUST_CHANGE, Tag.FACTOR_RESET, Tag.FACTOR_ADD, Tag.FACTOR_REMOVE, Tag.PASSWORD_CHANGE}
    | {
        Tag.DEFENCE_WEAKEN,
        Tag.IMPERSONATE,
        Tag.IDENTITY_CREATE,
        Tag.IDENTITY_DISABLE,
        Tag.MAIL_RULE,
        Tag.SHARE_CHANGE,
        Tag.AI_ENABLE,
        Tag.OWNER_ADD,
    }
)
_SERIOUS = frozenset(
    {Tag.SECRET_READ, Tag.REMOTE_EXEC, Tag.MAIL_READ, Tag.AI_INVOKE, Tag.DEFENCE_CHANGE, Tag.IDENTITY_ENABLE, Tag.REVOKE, Tag.APP_CREATE}
)
_STORES = regex(
    r"s3|dynamodb|rds|sql|redshift|athena|glue|bigquery|storage|spanner|firestore|secret|kms|iam|organizations|sso|identitystore|role|polic|users?\Z|groups?\Z|"
    r"directory|serviceprincipals|applications|cloudresourcemanager|snapshot|backup|vault"
)
# where names, certificates and traffic point: who changes them stands in for the organisation
_NAMES = regex(r"route53|(?:^|[^a-z])dns|acm(?:-pca)?\Z|certificate|domains?\Z|cloudfront|frontdoor|k8s-ingresses|trafficmanager|privateca")
_VERB = regex(
    r"^(?:BatchGet|List|Describe|Get|Search|Lookup|Simulate|Check|Discover|Query|Scan|Head|Test|Count|Fetch|AggregatedList|Analyze|View)(?=[A-Z0-9]|$)"
)
_SMALL_VERBS = frozenset({"list", "get", "aggregatedlist", "search", "query", "watch", "describe", "batchget"})


@lru_cache(maxsize=20_000)
def weight_of(action: Action) -> float:
    """How much a first time of an action's class tells: 3 changes who may do what, 2 secrets, data and commands, 1 looking at them, 0 daily work."""
    tags, kind = action.tags, action.kind
    service = action.service.lower()
    if tags & _GRAVE:
        return 3.0
    if action.source.startswith("kubernetes.") and (Tag.REMOTE_EXEC in tags or action.name.startswith("secrets:list")):
        return 3.0
    if tags & _SERIOUS or kind in (Kind.DATA_EXPORT, Kind.SECRET_READ, Kind.IDENTITY_LIFECYCLE, Kind.FACTOR_CHANGE, Kind.ROLE_CHANGE):
        return 2.0
    if kind in (
        Kind.SIGN_IN,
        Kind.SILENT_SIGN_IN,
        Kind.TOKEN_ISSUE,
        Kind.TOKEN_REFRESH,
        Kind.TOKEN_EXCHANGE,
        Kind.SESSION_END,
        Kind.TOKEN_REVOKE,
    ):
        return 0.0
    if kind is Kind.DATA_READ:
        return 2.0 if _STORES.search(service) else 1.0
    if action.verb == "admin":
        return 2.0
    if action.verb in ("write", "delete") and _NAMES.search(service):
        return 1.5
    if action.verb in ("write", "delete") and _STORES.search(service):
        return 1.0
    if action.name == "sts:GetCallerIdentity":
        return 0.25
    if kind is Kind.DISCOVERY or action.verb in ("discover", "read"):
        return 1.0 if _STORES.search(service) else 0.25
    return 0.25 if action.verb in ("write", "delete", "execute") else 0.0


@lru_cache(maxsize=20_000)
def category_of(action: Action) -> str:
    """What kind of thing an operation asks for: `iam Role`, `graph-users`, `compute instances`, `k8s-secrets`."""
    service, name = action.service, action.name
    if action.source.startswith(("graph.", "kubernetes.")):
        return service
    if action.source.startswith("aws."):
        return f"{service} {_VERB.sub('', name.partition(':')[2]).removesuffix('s') or name}"
    if action.source.startswith("gcp."):
        parts = name.partition(":")[0].split(".")
        last = parts[-1]
        noun = parts[-2] if last.lower() in _SMALL_VERBS and len(parts) > 1 else _VERB.sub("", last)
        return f"{service} {noun or last}"
    return name
