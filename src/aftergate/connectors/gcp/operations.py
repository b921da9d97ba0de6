"""What Google Cloud methods can do: service and method to kind, family and tags. A method that the table lacks goes by its words."""

from __future__ import annotations

import re

from aftergate.connectors.kubernetes.normalise import classify as kubernetes_operation
from aftergate.vocabulary import Kind, Tag
from aftergate.vocabulary.patterns import regex

Operation = tuple[Kind, str, str, tuple[Tag, ...]]

_SHARED = ("storage", "bigquery", "artifactregistry", "secretmanager", "cloudkms", "run", "cloudfunctions", "pubsub", "spanner", "dataplex")
_WORDS = regex(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])")
_READ_WORDS = {
    "list": "discover",
    "aggregatedlist": "discover",
    "search": "discover",
    "lookup": "discover",
    "query": "discover",
    "describe": "discover",
    "analyze": "discover",
    "test": "discover",
    "check": "discover",
    "count": "discover",
    "fetch": "read",
    "get": "read",
    "read": "read",
    "batchget": "read",
    "watch": "discover",
    "download": "read",
}
_DELETE_WORDS = ("delete", "destroy", "remove", "undeploy", "purge")

_METHODS: dict[str, tuple[Kind, str, tuple[Tag, ...]]] = {  # last word of the method, lower-case
    "generateaccesstoken": (Kind.TOKEN_ISSUE, "auth", (Tag.IMPERSONATE,)),
    "generateidtoken": (Kind.TOKEN_ISSUE, "auth", (Tag.IMPERSONATE,)),
    "signjwt": (Kind.TOKEN_ISSUE, "auth", (Tag.IMPERSONATE,)),
    "signblob": (Kind.TOKEN_ISSUE, "auth", (Tag.IMPERSONATE,)),
    "exchangetoken": (Kind.TOKEN_EXCHANGE, "auth", ()),
    "createserviceaccountkey": (Kind.CREDENTIAL_CREATE, "admin", (Tag.CREDENTIAL_ADD,)),
    "uploadserviceaccountkey": (Kind.CREDENTIAL_CREATE, "admin", (Tag.CREDENTIAL_ADD,)),
    "enableserviceaccountkey": (Kind.CREDENTIAL_CREATE, "admin", (Tag.CREDENTIAL_ADD,)),
    "deleteserviceaccountkey": (Kind.CREDENTIAL_DELETE, "admin", (Tag.CREDENTIAL_REMOVE,)),
    "disableserviceaccountkey": (Kind.CREDENTIAL_DELETE, "admin", (Tag.CREDENTIAL_REMOVE,)),
    "createserviceaccount": (Kind.IDENTITY_LIFECYCLE, "admin", (Tag.IDENTITY_CREATE,)),
    "deleteserviceaccount": (Kind.IDENTITY_LIFECYCLE, "admin", (Tag.IDENTITY_DISABLE,)),
    "disableserviceaccount": (Kind.IDENTITY_LIFECYCLE, "admin", (Tag.IDENTITY_DISABLE,)),
    "enableserviceaccount": (Kind.IDENTITY_LIFECYCLE, "admin", (Tag.IDENTITY_ENABLE,)),
    "undeleteserviceaccount": (Kind.IDENTITY_LIFECYCLE, "admin", (Tag.IDENTITY_ENABLE,)),
    "createrole": (Kind.POLICY_CHANGE, "admin", (Tag.PRIVILEGE_GRANT,)),
    "updaterole": (Kind.POLICY_CHANGE, "admin", (Tag.PRIVILEGE_GRANT,)),
    "undeleterole": (Kind.POLICY_CHANGE, "admin", (Tag.PRIVILEGE_GRANT,)),
    "deleterole": (Kind.POLICY_CHANGE, "admin", (Tag.PRIVILEGE_REVOKE,)),
    "insertprojectownershipinvite": (Kind.ROLE_CHANGE, "admin", (Tag.PRIVILEGE_GRANT, Tag.SHARE_CHANGE)),
    "creategrant": (Kind.ROLE_CHANGE, "admin", (Tag.PRIVILEGE_ACTIVATE,)),
    "accesssecretversion": (Kind.SECRET_READ, "read", (Tag.SECRET_READ,)),
    "setmetadata": (Kind.CONFIG_CHANGE, "admin", (Tag.REMOTE_EXEC,)),
    "setcommoninstancemetadata": (Kind.CONFIG_CHANGE, "admin", (Tag.REMOTE_EXEC,)),
    "importsshpublickey": (Kind.CREDENTIAL_CREATE, "admin", (Tag.CREDENTIAL_ADD, Tag.REMOTE_EXEC)),
    "createsshpublickey": (Kind.CREDENTIAL_CREATE, "admin", (Tag.CREDENTIAL_ADD, Tag.REMOTE_EXEC)),
    "startsession": (Kind.OTHER, "execute", (Tag.REMOTE_EXEC,)),
    "deletelog": (Kind.POLICY_CHANGE, "admin", (Tag.DEFENCE_CHANGE, Tag.DEFENCE_WEAKEN)),
    "createsink": (Kind.POLICY_CHANGE, "admin", (Tag.DEFENCE_CHANGE,)),
    "updatesink": (Kind.POLICY_CHANGE, "admin", (Tag.DEFENCE_CHANGE,)),
    "deletesink": (Kind.POLICY_CHANGE, "admin", (Tag.DEFENCE_CHANGE, Tag.DEFENCE_WEAKEN)),
    "createexclusion": (Kind.POLICY_CHANGE, "admin", (Tag.DEFENCE_CHANGE, Tag.DEFENCE_WEAKEN)),
    "updateexclusion": (Kind.POLICY_CHANGE, "admin", (Tag.DEFENCE_CHANGE, Tag.DEFENCE_WEAKEN)),
    "deleteexclusion": (Kind.POLICY_CHANGE, "admin", (Tag.DEFENCE_CHANGE,)),
    "deletealertpolicy": (Kind.POLICY_CHANGE, "admin", (Tag.DEFENCE_CHANGE, Tag.DEFENCE_WEAKEN)),
    "deletenotificationchannel": (Kind.POLICY_CHANGE, "admin", (Tag.DEFENCE_CHANGE, Tag.DEFENCE_WEAKEN)),
    "setorgpolicy": (Kind.POLICY_CHANGE, "admin", (Tag.DEFENCE_CHANGE,)),
    "clearorgpolicy": (Kind.POLICY_CHANGE, "admin", (Tag.DEFENCE_CHANGE, Tag.DEFENCE_WEAKEN)),
    "getiampolicy": (Kind.DISCOVERY, "discover", ()),
    "testiampermissions": (Kind.DISCOVERY, "discover", ()),
    "testablepermissions": (Kind.DISCOVERY, "discover", ()),
    "predict": (Kind.OTHER, "execute", (Tag.AI_INVOKE,)),
    "rawpredict": (Kind.OTHER, "execute", (Tag.AI_INVOKE,)),
    "streamrawpredict": (Kind.OTHER, "execute", (Tag.AI_INVOKE,)),
    "serverstreamingpredict": (Kind.OTHER, "execute", (Tag.AI_INVOKE,)),
    "generatecontent": (Kind.OTHER, "execute", (Tag.AI_INVOKE,)),
    "streamgeneratecontent": (Kind.OTHER, "execute", (Tag.AI_INVOKE,)),
    "chatcompletions": (Kind.OTHER, "execute", (Tag.AI_INVOKE,)),
    "loginsuccess": (Kind.SIGN_IN, "auth", ()),
    "loginfailure": (Kind.SIGN_IN, "auth", ()),
    "loginchallenge": (Kind.OTHER, "auth", ()),
    "suspiciouslogin": (Kind.OTHER, "auth", ()),
    "logout": (Kind.SESSION_END, "auth", ()),
    "2svenroll": (Kind.FACTOR_CHANGE, "auth", (Tag.FACTOR_ADD,)),
    "2svdisable": (Kind.FACTOR_CHANGE, "auth", (Tag.FACTOR_REMOVE, Tag.DEFENCE_WEAKEN)),
    "passwordedit": (Kind.FACTOR_CHANGE, "auth", (Tag.PASSWORD_CHANGE,)),
    "addgroupmember": (Kind.ROLE_CHANGE, "admin", (Tag.PRIVILEGE_GRANT,)),
    "removegroupmember": (Kind.ROLE_CHANGE, "admin", (Tag.PRIVILEGE_REVOKE,)),
    "assignrole": (Kind.ROLE_CHANGE, "admin", (Tag.PRIVILEGE_GRANT,)),
    "unassignrole": (Kind.ROLE_CHANGE, "admin", (Tag.PRIVILEGE_REVOKE,)),
    "grantadminprivilege": (Kind.ROLE_CHANGE, "admin", (Tag.PRIVILEGE_GRANT,)),
    "createuser": (Kind.IDENTITY_LIFECYCLE, "admin", (Tag.IDENTITY_CREATE,)),
    "deleteuser": (Kind.IDENTITY_LIFECYCLE, "admin", (Tag.IDENTITY_DISABLE,)),
    "suspenduser": (Kind.IDENTITY_LIFECYCLE, "admin", (Tag.IDENTITY_DISABLE,)),
    "unsuspenduser": (Kind.IDENTITY_LIFECYCLE, "admin", (Tag.IDENTITY_ENABLE,)),
    "changepassword": (Kind.FACTOR_CHANGE, "admin", (Tag.PASSWORD_CHANGE,)),
    "authorizeapiclientaccess": (Kind.CONSENT, "admin", (Tag.CONSENT, Tag.PRIVILEGE_GRANT)),
}


def service_of(service_name: str | None, method: str) -> str:
    """Short service name: `storage` of storage.googleapis.com; else what the method begins with."""
    host = (service_name or "").partition(".")[0]
    if host.endswith("-ssh-serialport"):
        return "ssh-serialport"
    if service_name in ("k8s.io", "cluster.k8s.io") or method.startswith("io.k8s."):
        return "k8s"
    if host:
        return host
    parts = method.split(".")
    if parts[0] == "google" and len(parts) > 2:
        return parts[2] if parts[1] in ("cloud", "devtools") else parts[1]
    return next((part for part in parts[:-1] if not re.match(r"^(v[0-9]|alpha|beta)", part)), "unknown")


def operation(service: str, method: str) -> Operation:
    """Kind, service, verb family and tags of a method; `:remove`, `:audit-config`, `:ai`, `:export` behind it tell what the record showed."""
    base, _, variant = method.partition(":")
    if service == "k8s" and base.startswith("io.k8s."):
        parts = base.split(".")
        # io.k8s.GROUP....VERSION.RESOURCE[.SUBRESOURCE].VERB
        start = next((n for n, part in enumerate(parts) if re.match(r"^v[0-9]+((alpha|beta)[0-9]+)?$", part)), 3)
        named = parts[start + 1 : -1]
        return kubernetes_operation(named[0] if named else "", named[1] if len(named) > 1 else "", parts[-1])
    last = re.split(r"[./]", base)[-1]
    lower = last.lower()
    if lower in ("setiampolicy", "setiampermissions"):
        if variant == "audit-config":
            return Kind.POLICY_CHANGE, service, "admin", (Tag.DEFENCE_CHANGE, Tag.DEFENCE_WEAKEN)
        if variant == "remove":
            return Kind.ROLE_CHANGE, service, "admin", (Tag.PRIVILEGE_REVOKE,)
        shared = service in _SHARED or (service == "compute" and any(word in base.lower() for word in ("image", "snapshot", "disk")))
        return Kind.ROLE_CHANGE, service, "admin", (Tag.PRIVILEGE_GRANT, Tag.SHARE_CHANGE) if shared else (Tag.PRIVILEGE_GRANT,)
    if "workloadidentitypool" in base.lower() or "workforcepool" in base.lower() or "inboundsso" in lower or "oidcprovider" in lower:
        if lower.startswith(("get", "list")):
            return Kind.DISCOVERY, service, "discover", ()
        return Kind.TRUST_CHANGE, service, "admin", (Tag.TRUST_CHANGE,)
    if lower in _METHODS and service != "ssh-serialport":
        kind, family, tags = _METHODS[lower]
        return kind, service, family, tags
    words = [word.lower() for word in _WORDS.findall(last)] or [lower]
    first = words[0] if words[0] not in ("docker", "batch", "internal") else words[1] if len(words) > 1 else words[0]
    read = _READ_WORDS.get(first)
    deletes = first in _DELETE_WORDS
    if service == "ssh-serialport" or (service == "iap" and lower == "authorizeuser" and variant == "tunnel"):
        return Kind.OTHER, service, "execute", (Tag.REMOTE_EXEC,)
    if service == "oslogin":
        return (
            (Kind.OTHER, service, "auth", ())
            if first == "check"
            else (Kind.DISCOVERY if read else Kind.CONFIG_CHANGE, service, read or "admin", ())
        )
    if service == "apikeys" and not read:
        return (
            (Kind.CREDENTIAL_DELETE, service, "admin", (Tag.CREDENTIAL_REMOVE,))
            if deletes
            else (Kind.CREDENTIAL_CREATE, service, "admin", (Tag.CREDENTIAL_ADD,) if first in ("create", "undelete") else ())
        )
    if ".hmackeys." in base.lower() and not read:
        return (
            (Kind.CREDENTIAL_DELETE, service, "admin", (Tag.CREDENTIAL_REMOVE,))
            if deletes
            else (Kind.CREDENTIAL_CREATE, service, "admin", (Tag.CREDENTIAL_ADD,))
        )
    if service == "logging" and ("ConfigService" in base) and not read:
        return Kind.POLICY_CHANGE, service, "admin", (Tag.DEFENCE_CHANGE, Tag.DEFENCE_WEAKEN) if deletes else (Tag.DEFENCE_CHANGE,)
    if (
        service
        in ("orgpolicy", "accesscontextmanager", "securitycenter", "securitycentermanagement", "essentialcontacts", "binaryauthorization")
        and not read
    ):
        return Kind.POLICY_CHANGE, service, "admin", (Tag.DEFENCE_CHANGE, Tag.DEFENCE_WEAKEN) if deletes else (Tag.DEFENCE_CHANGE,)
    if service == "serviceusage" and "ai" in variant:
        return Kind.CONFIG_CHANGE, service, "admin", (Tag.AI_ENABLE,)
    if service in ("aiplatform", "generativelanguage") and read and ("model" in lower or "publisher" in lower or "endpoint" in lower):
        return Kind.DISCOVERY, service, "discover", (Tag.AI_DISCOVER,)
    if variant == "export" or first == "export" or lower.startswith("bulkexport"):
        return Kind.DATA_EXPORT, service, "read", ()
    if service == "bigquery":
        if lower in ("insertjob", "query", "getqueryresults", "listtabledata", "list") and (lower != "list" or "tabledata" in base.lower()):
            return Kind.DATA_READ, service, "read", ()
        if "export" in lower or "readrows" in lower:
            return Kind.DATA_READ, service, "read", ()
    if service == "storage" and ".objects." in f".{base}":
        if first == "list":
            return Kind.DISCOVERY, service, "discover", ()
        return (Kind.DATA_READ, service, "read", ()) if read else (Kind.OTHER, service, "delete" if deletes else "write", ())
    if service in ("spanner", "datastore", "firestore", "bigtable") and first in (
        "read",
        "executesql",
        "execute",
        "streaming",
        "run",
        "batch",
        "lookup",
    ):
        return Kind.DATA_READ, service, "read", ()
    if service == "cloudfunctions" and first == "update":
        return Kind.CONFIG_CHANGE, service, "write", (Tag.REMOTE_EXEC,)
    if service == "artifactregistry" and lower.startswith("docker-"):
        return (Kind.DATA_READ, service, "read", ()) if read else (Kind.OTHER, service, "write", ())
    if (service == "logging" and first == "write") or lower == "createtimeseries" or (service == "pubsub" and first == "publish"):
        return Kind.OTHER, service, "write", ()
    if service == "logging" and "logentries" in lower and read:
        return Kind.DATA_READ, service, "read", ()
    if read == "discover":
        return Kind.DISCOVERY, service, "discover", ()
    if read:
        return Kind.OTHER, service, "read", ()
    return Kind.CONFIG_CHANGE, service, "delete" if deletes else "write", ()
