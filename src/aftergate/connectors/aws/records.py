"""CloudTrail records as msgspec reads them. Fields that are not named here are skipped unread."""

from __future__ import annotations

from msgspec import Raw, Struct

EMPTY = Raw(b"")


class Issuer(Struct, gc=False):
    arn: str | None = None


class Attributes(Struct, gc=False):
    mfaAuthenticated: str | bool | None = None


class Federation(Struct, gc=False):
    federatedProvider: str | None = None


class Context(Struct, gc=False):
    sessionIssuer: Issuer | None = None
    attributes: Attributes | None = None
    sourceIdentity: str | None = None
    webIdFederationData: Federation | None = None


class BehalfOf(Struct, gc=False):
    userId: str | None = None


class Who(Struct, gc=False):
    """The caller, as each of its records repeats it. `sessionContext` is read once for each caller."""

    type: str | None = None
    principalId: str | None = None
    arn: str | None = None
    accountId: str | None = None
    accessKeyId: str | None = None
    userName: str | None = None
    sessionContext: Raw = EMPTY
    invokedBy: str | None = None
    identityProvider: str | None = None
    credentialId: str | None = None
    onBehalfOf: BehalfOf | None = None


class Record(Struct, gc=False):
    """Fields in the order records mostly have them: msgspec looks for a key first where the last one ended, which saves a tenth."""

    userIdentity: Who | None = None
    eventTime: str | None = None
    eventSource: str | None = None
    eventName: str | None = None
    awsRegion: str | None = None
    sourceIPAddress: str | None = None
    userAgent: str | None = None
    errorCode: str | None = None
    errorMessage: str | None = None
    requestParameters: Raw = EMPTY
    responseElements: Raw = EMPTY
    additionalEventData: Raw = EMPTY
    eventID: str | None = None
    recipientAccountId: str | None = None
    vpcEndpointId: str | None = None
    sharedEventID: str | None = None
    sessionCredentialFromConsole: str | bool | None = None


class Sent(Struct, gc=False):
    bytesTransferredOut: float | None = None


class Object(Struct, gc=False):
    bucketName: str | None = None
    tableName: str | None = None
    queryExecutionId: str | None = None


class Minted(Struct, gc=False):
    accessKeyId: str | None = None
    expiration: str | None = None


class Assumed(Struct, gc=False):
    arn: str | None = None


class StsAnswer(Struct, gc=False):
    credentials: Minted | None = None
    assumedRoleUser: Assumed | None = None
    provider: str | None = None
    subjectFromWebIdentityToken: str | None = None


class StsAsked(Struct, gc=False):
    roleArn: str | None = None
    roleSessionName: str | None = None
    durationSeconds: int | None = None
    sourceIdentity: str | None = None
    policy: str | None = None
    externalId: str | None = None
    serialNumber: str | None = None
