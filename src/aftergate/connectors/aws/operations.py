"""What AWS API calls can do: CloudTrail eventName to kind, family and tags. Names as in the AWS service authorization reference."""

from __future__ import annotations

from typing import Final

from aftergate.vocabulary import Kind, Tag
from aftergate.vocabulary.patterns import regex

K, T = Kind, Tag
Entry = tuple[Kind, str, tuple[Tag, ...]]


def _table() -> dict[str, Entry]:
    table: dict[str, Entry] = {}

    def add(kind: Kind, family: str, tags: tuple[Tag, ...], service: str, names: str) -> None:
        for name in names.split():
            table[f"{service}:{name}"] = (kind, family, tags)

    add(K.TOKEN_EXCHANGE, "auth", (), "sts", "AssumeRole AssumeRoleWithWebIdentity AssumeRoleWithSAML AssumeRoot")
    add(K.TOKEN_ISSUE, "auth", (), "sts", "GetSessionToken GetFederationToken")
    add(K.TOKEN_ISSUE, "auth", (), "sso", "GetRoleCredentials")
    add(K.TOKEN_ISSUE, "auth", (), "sso-oauth", "CreateToken")
    add(K.TOKEN_ISSUE, "auth", (), "sso", "Authenticate Federate CreateToken")
    add(K.DISCOVERY, "discover", (), "sts", "GetCallerIdentity GetAccessKeyInfo DecodeAuthorizationMessage")
    add(K.SIGN_IN, "auth", (T.CONSOLE_LOGIN,), "signin", "ConsoleLogin")
    add(K.SIGN_IN, "auth", (T.CONSOLE_LOGIN,), "signin", "GetSigninToken SwitchRole")
    add(K.SIGN_IN, "auth", (), "signin", "CheckMfa UserAuthentication CredentialVerification CredentialChallenge ExternalIdPDirectoryLogin")
    add(K.SIGN_IN, "auth", (), "sso", "UserAuthentication")
    # credentials on identities
    add(
        K.CREDENTIAL_CREATE,
        "admin",
        (T.CREDENTIAL_ADD,),
        "iam",
        "CreateAccessKey CreateLoginProfile UploadSSHPublicKey UploadSigningCertificate CreateServiceSpecificCredential ResetServiceSpecificCredential",
    )
    add(K.CREDENTIAL_CREATE, "admin", (T.CREDENTIAL_ADD, T.PASSWORD_CHANGE), "iam", "UpdateLoginProfile")
    add(K.CREDENTIAL_CREATE, "admin", (T.PASSWORD_CHANGE,), "iam", "ChangePassword")
    add(
        K.CREDENTIAL_DELETE,
        "admin",
        (T.CREDENTIAL_REMOVE,),
        "iam",
        "DeleteAccessKey DeleteLoginProfile DeleteSSHPublicKey DeleteSigningCertificate DeleteServiceSpecificCredential",
    )
    add(K.CREDENTIAL_CREATE, "admin", (T.CREDENTIAL_ADD,), "ec2", "CreateKeyPair ImportKeyPair")
    add(K.CREDENTIAL_DELETE, "admin", (T.CREDENTIAL_REMOVE,), "iam", "UpdateAccessKey.Inactive")
    add(K.CREDENTIAL_CREATE, "admin", (), "iam", "UpdateAccessKey")
    add(K.CREDENTIAL_CREATE, "admin", (T.IDENTITY_ENABLE,), "iam", "UpdateAccessKey.Active")
    # factors
    add(K.FACTOR_CHANGE, "admin", (T.FACTOR_ADD,), "iam", "EnableMFADevice CreateVirtualMFADevice ResyncMFADevice")
    add(K.FACTOR_CHANGE, "admin", (T.FACTOR_REMOVE,), "iam", "DeactivateMFADevice DeleteVirtualMFADevice")
    # rights
    add(
        K.ROLE_CHANGE,
        "admin",
        (T.PRIVILEGE_GRANT,),
        "iam",
        "AttachUserPolicy AttachRolePolicy AttachGroupPolicy PutUserPolicy PutRolePolicy PutGroupPolicy AddUserToGroup CreatePolicyVersion "
        "SetDefaultPolicyVersion AddRoleToInstanceProfile DeleteRolePermissionsBoundary DeleteUserPermissionsBoundary",
    )
    add(
        K.ROLE_CHANGE,
        "admin",
        (T.PRIVILEGE_REVOKE,),
        "iam",
        "DetachUserPolicy DetachRolePolicy DetachGroupPolicy DeleteUserPolicy DeleteRolePolicy DeleteGroupPolicy RemoveUserFromGroup "
        "PutRolePermissionsBoundary PutUserPermissionsBoundary RemoveRoleFromInstanceProfile DeletePolicyVersion DeletePolicy",
    )
    add(
        K.ROLE_CHANGE,
        "admin",
        (T.PRIVILEGE_GRANT,),
        "sso",
        "CreateAccountAssignment PutInlinePolicyToPermissionSet AttachManagedPolicyToPermissionSet AttachCustomerManagedPolicyReferenceToPermissionSet",
    )
    add(K.ROLE_CHANGE, "admin", (T.PRIVILEGE_REVOKE,), "sso", "DeleteAccountAssignment DetachManagedPolicyFromPermissionSet")
    add(K.ROLE_CHANGE, "admin", (T.PRIVILEGE_GRANT,), "identitystore", "CreateGroupMembership")
    add(K.ROLE_CHANGE, "admin", (T.PRIVILEGE_GRANT,), "sso-directory", "AddMemberToGroup")
    add(K.ROLE_CHANGE, "admin", (T.PRIVILEGE_GRANT,), "eks", "CreateAccessEntry AssociateAccessPolicy UpdateAccessEntry")
    add(K.IDENTITY_LIFECYCLE, "admin", (T.IDENTITY_CREATE,), "iam", "CreateUser CreateRole CreateGroup CreateInstanceProfile CreatePolicy")
    add(K.IDENTITY_LIFECYCLE, "admin", (T.IDENTITY_DISABLE,), "iam", "DeleteUser DeleteRole")
    add(K.IDENTITY_LIFECYCLE, "admin", (T.IDENTITY_DISABLE,), "sso-directory", "DisableUser DeleteUser")
    add(K.IDENTITY_LIFECYCLE, "admin", (T.IDENTITY_DISABLE,), "identitystore", "DeleteUser")
    add(K.IDENTITY_LIFECYCLE, "admin", (T.IDENTITY_ENABLE,), "sso-directory", "EnableUser")
    add(K.IDENTITY_LIFECYCLE, "admin", (T.IDENTITY_CREATE,), "sso-directory", "CreateUser")
    add(K.IDENTITY_LIFECYCLE, "admin", (T.IDENTITY_CREATE,), "identitystore", "CreateUser")
    # trust
    add(
        K.TRUST_CHANGE,
        "admin",
        (T.TRUST_CHANGE,),
        "iam",
        "UpdateAssumeRolePolicy CreateOpenIDConnectProvider UpdateOpenIDConnectProviderThumbprint AddClientIDToOpenIDConnectProvider "
        "DeleteOpenIDConnectProvider CreateSAMLProvider UpdateSAMLProvider DeleteSAMLProvider",
    )
    add(
        K.TRUST_CHANGE,
        "admin",
        (T.TRUST_CHANGE,),
        "rolesanywhere",
        "CreateTrustAnchor UpdateTrustAnchor EnableTrustAnchor CreateProfile UpdateProfile EnableProfile ImportCrl",
    )
    add(
        K.TRUST_CHANGE,
        "admin",
        (T.TRUST_CHANGE,),
        "sso",
        "CreateInstance CreateTrustedTokenIssuer UpdateTrustedTokenIssuer ConfigureExternalIdP EnableExternalIdPConfigurationForDirectory CreateExternalIdPConfigurationForDirectory AssociateDirectory",
    )
    add(
        K.TRUST_CHANGE,
        "admin",
        (T.TRUST_CHANGE,),
        "sso-directory",
        "EnableExternalIdPConfigurationForDirectory CreateExternalIdPConfigurationForDirectory UpdateExternalIdPConfigurationForDirectory",
    )
    add(K.TRUST_CHANGE, "admin", (T.TRUST_CHANGE,), "eks", "AssociateIdentityProviderConfig")
    add(K.TRUST_CHANGE, "admin", (T.TRUST_CHANGE,), "cognito-idp", "CreateIdentityProvider UpdateIdentityProvider")
    # secrets
    add(K.SECRET_READ, "read", (T.SECRET_READ,), "secretsmanager", "GetSecretValue BatchGetSecretValue")
    add(K.SECRET_READ, "read", (T.SECRET_READ,), "ssm", "GetParameter GetParameters GetParametersByPath GetParameterHistory")
    add(K.SECRET_READ, "read", (T.SECRET_READ,), "ec2", "GetPasswordData")
    add(K.SECRET_READ, "read", (T.SECRET_READ,), "ec2", "DescribeInstanceAttribute.userData")  # start-up scripts are full of passwords
    add(K.SECRET_READ, "read", (T.SECRET_READ,), "redshift", "GetClusterCredentials GetClusterCredentialsWithIAM")
    add(
        K.SECRET_READ,
        "read",
        (T.SECRET_READ,),
        "lightsail",
        "GetInstanceAccessDetails DownloadDefaultKeyPair GetRelationalDatabaseMasterUserPassword",
    )
    add(K.SECRET_READ, "read", (T.SECRET_READ,), "codeartifact", "GetAuthorizationToken")
    add(K.SECRET_READ, "read", (T.SECRET_READ,), "cognito-idp", "DescribeUserPoolClient")
    # defence
    add(
        K.CONFIG_CHANGE,
        "admin",
        (T.DEFENCE_CHANGE, T.DEFENCE_WEAKEN),
        "cloudtrail",
        "StopLogging DeleteTrail DeleteEventDataStore StopEventDataStoreIngestion DeregisterOrganizationDelegatedAdmin",
    )
    add(
        K.CONFIG_CHANGE,
        "admin",
        (T.DEFENCE_CHANGE,),
        "cloudtrail",
        "StartLogging UpdateTrail PutEventSelectors PutInsightSelectors UpdateEventDataStore CreateTrail RemoveTags",
    )
    add(
        K.CONFIG_CHANGE,
        "admin",
        (T.DEFENCE_CHANGE, T.DEFENCE_WEAKEN),
        "guardduty",
        "DeleteDetector DisassociateFromMasterAccount DisassociateFromAdministratorAccount DisassociateMembers StopMonitoringMembers DeleteMembers "
        "DeletePublishingDestination DeleteThreatIntelSet DisableOrganizationAdminAccount",
    )
    add(
        K.CONFIG_CHANGE,
        "admin",
        (T.DEFENCE_CHANGE,),
        "guardduty",
        "UpdateDetector CreateFilter UpdateFilter CreateIPSet UpdateIPSet UpdateMemberDetectors ArchiveFindings",
    )
    add(
        K.CONFIG_CHANGE,
        "admin",
        (T.DEFENCE_CHANGE, T.DEFENCE_WEAKEN),
        "config",
        "StopConfigurationRecorder DeleteConfigurationRecorder DeleteDeliveryChannel DeleteConfigRule DeleteConfigurationAggregator DeleteRetentionConfiguration",
    )
    add(
        K.CONFIG_CHANGE,
        "admin",
        (T.DEFENCE_CHANGE,),
        "config",
        "PutConfigurationRecorder PutRetentionConfiguration StartConfigurationRecorder",
    )
    add(
        K.CONFIG_CHANGE,
        "admin",
        (T.DEFENCE_CHANGE, T.DEFENCE_WEAKEN),
        "securityhub",
        "DisableSecurityHub BatchDisableStandards DisableImportFindingsForProduct DeleteMembers DisassociateFromAdministratorAccount",
    )
    add(K.CONFIG_CHANGE, "admin", (T.DEFENCE_CHANGE, T.DEFENCE_WEAKEN), "access-analyzer", "DeleteAnalyzer")
    add(K.CONFIG_CHANGE, "admin", (T.DEFENCE_CHANGE, T.DEFENCE_WEAKEN), "macie2", "DisableMacie DisassociateFromAdministratorAccount")
    add(K.CONFIG_CHANGE, "admin", (T.DEFENCE_CHANGE, T.DEFENCE_WEAKEN), "inspector2", "Disable DisassociateMember")
    add(K.CONFIG_CHANGE, "admin", (T.DEFENCE_CHANGE, T.DEFENCE_WEAKEN), "detective", "DeleteGraph DeleteMembers")
    add(
        K.CONFIG_CHANGE,
        "admin",
        (T.DEFENCE_CHANGE, T.DEFENCE_WEAKEN),
        "logs",
        "DeleteLogGroup DeleteLogStream DeleteSubscriptionFilter DeleteMetricFilter DeleteDestination",
    )
    add(K.CONFIG_CHANGE, "admin", (T.DEFENCE_CHANGE,), "logs", "PutRetentionPolicy")
    add(K.CONFIG_CHANGE, "admin", (T.DEFENCE_CHANGE, T.DEFENCE_WEAKEN), "cloudwatch", "DeleteAlarms DisableAlarmActions")
    add(K.CONFIG_CHANGE, "admin", (T.DEFENCE_CHANGE, T.DEFENCE_WEAKEN), "monitoring", "DeleteAlarms DisableAlarmActions")
    add(K.CONFIG_CHANGE, "admin", (T.DEFENCE_CHANGE, T.DEFENCE_WEAKEN), "events", "DisableRule DeleteRule RemoveTargets")
    add(K.CONFIG_CHANGE, "admin", (T.DEFENCE_CHANGE, T.DEFENCE_WEAKEN), "ec2", "DeleteFlowLogs DisableEbsEncryptionByDefault")
    add(
        K.CONFIG_CHANGE,
        "admin",
        (T.DEFENCE_CHANGE, T.DEFENCE_WEAKEN),
        "organizations",
        "LeaveOrganization DisablePolicyType DetachPolicy DeletePolicy DisableAWSServiceAccess DeregisterDelegatedAdministrator",
    )
    add(K.CONFIG_CHANGE, "admin", (T.DEFENCE_CHANGE,), "organizations", "UpdatePolicy AttachPolicy")
    add(
        K.CONFIG_CHANGE,
        "admin",
        (T.DEFENCE_CHANGE, T.DEFENCE_WEAKEN),
        "wafv2",
        "DeleteWebACL DisassociateWebACL DeleteLoggingConfiguration DeleteRuleGroup",
    )
    add(K.CONFIG_CHANGE, "admin", (T.DEFENCE_CHANGE, T.DEFENCE_WEAKEN), "waf", "DeleteWebACL DeleteRule DeleteRuleGroup")
    add(
        K.CONFIG_CHANGE,
        "admin",
        (T.DEFENCE_CHANGE, T.DEFENCE_WEAKEN),
        "waf-regional",
        "DeleteWebACL DisassociateWebACL DeleteRule DeleteRuleGroup",
    )
    add(K.CONFIG_CHANGE, "admin", (T.DEFENCE_CHANGE, T.DEFENCE_WEAKEN), "shield", "DeleteProtection DeleteSubscription")
    add(
        K.CONFIG_CHANGE,
        "admin",
        (T.DEFENCE_CHANGE, T.DEFENCE_WEAKEN),
        "route53resolver",
        "DeleteResolverQueryLogConfig DisassociateResolverQueryLogConfig",
    )
    add(K.CONFIG_CHANGE, "admin", (T.DEFENCE_CHANGE, T.DEFENCE_WEAKEN), "route53", "DeleteQueryLoggingConfig")
    add(
        K.CONFIG_CHANGE,
        "admin",
        (T.DEFENCE_CHANGE,),
        "s3",
        "PutBucketLogging PutBucketVersioning PutBucketLifecycle PutBucketLifecycleConfiguration DeleteBucketEncryption",
    )
    add(K.CONFIG_CHANGE, "admin", (T.DEFENCE_CHANGE, T.DEFENCE_WEAKEN), "iam", "DeleteAccountPasswordPolicy")
    add(K.CONFIG_CHANGE, "admin", (T.DEFENCE_CHANGE,), "iam", "UpdateAccountPasswordPolicy")
    add(K.CONFIG_CHANGE, "admin", (T.DEFENCE_CHANGE, T.DEFENCE_WEAKEN), "kms", "ScheduleKeyDeletion DisableKey DisableKeyRotation")
    add(
        K.CONFIG_CHANGE,
        "admin",
        (T.DEFENCE_CHANGE, T.DEFENCE_WEAKEN),
        "bedrock",
        "DeleteModelInvocationLoggingConfiguration DeleteGuardrail",
    )
    add(
        K.CONFIG_CHANGE,
        "admin",
        (T.DEFENCE_CHANGE,),
        "ec2",
        "AuthorizeSecurityGroupIngress AuthorizeSecurityGroupEgress ModifyInstanceMetadataOptions",
    )
    add(K.CONFIG_CHANGE, "admin", (T.DEFENCE_CHANGE,), "lambda", "UpdateEventSourceMapping")
    # opened to others
    share = (T.SHARE_CHANGE,)
    add(
        K.DATA_EXPORT,
        "admin",
        share,
        "ec2",
        "ModifySnapshotAttribute ModifyImageAttribute ModifyFpgaImageAttribute CreateStoreImageTask ExportImage CreateInstanceExportTask",
    )
    add(K.DATA_EXPORT, "admin", share, "ec2", "DisableSnapshotBlockPublicAccess DisableImageBlockPublicAccess CreateNetworkAclEntry")
    table["ec2:CreateNetworkAclEntry"] = (K.CONFIG_CHANGE, "write", ())
    add(K.DATA_EXPORT, "admin", share, "rds", "ModifyDBSnapshotAttribute ModifyDBClusterSnapshotAttribute StartExportTask ModifyDBInstance")
    add(K.DATA_EXPORT, "admin", share, "redshift", "AuthorizeSnapshotAccess AuthorizeDataShare AuthorizeClusterSecurityGroupIngress")
    add(
        K.POLICY_CHANGE,
        "admin",
        share,
        "s3",
        "PutBucketPolicy PutBucketAcl PutObjectAcl DeleteBucketPublicAccessBlock PutBucketPublicAccessBlock PutBucketReplication PutAccessPointPolicy PutBucketWebsite DeleteBucketPolicy",
    )
    add(K.POLICY_CHANGE, "admin", share, "s3control", "DeletePublicAccessBlock PutPublicAccessBlock PutAccessPointPolicy")
    add(
        K.POLICY_CHANGE, "admin", share, "lambda", "AddPermission AddLayerVersionPermission CreateFunctionUrlConfig UpdateFunctionUrlConfig"
    )
    add(K.POLICY_CHANGE, "admin", share, "kms", "PutKeyPolicy CreateGrant")
    add(K.POLICY_CHANGE, "admin", share, "ecr", "SetRepositoryPolicy PutRegistryPolicy")
    add(K.POLICY_CHANGE, "admin", share, "ecr-public", "CreateRepository SetRepositoryPolicy")
    add(K.POLICY_CHANGE, "admin", share, "sqs", "AddPermission SetQueueAttributes")
    add(K.POLICY_CHANGE, "admin", share, "sns", "AddPermission SetTopicAttributes Subscribe")
    add(K.POLICY_CHANGE, "admin", share, "secretsmanager", "PutResourcePolicy")
    add(K.POLICY_CHANGE, "admin", share, "codebuild", "UpdateProjectVisibility")
    add(K.POLICY_CHANGE, "admin", share, "ram", "CreateResourceShare AssociateResourceShare UpdateResourceShare")
    add(K.POLICY_CHANGE, "admin", share, "backup", "PutBackupVaultAccessPolicy")
    add(K.POLICY_CHANGE, "admin", share, "es", "UpdateDomainConfig UpdateElasticsearchDomainConfig AuthorizeVpcEndpointAccess")
    add(K.POLICY_CHANGE, "admin", share, "glue", "PutResourcePolicy")
    add(K.POLICY_CHANGE, "admin", share, "ssm", "ModifyDocumentPermission")
    add(K.POLICY_CHANGE, "admin", share, "quicksight", "UpdateDashboardPermissions")
    add(K.POLICY_CHANGE, "admin", share, "elasticfilesystem", "PutFileSystemPolicy")
    add(K.POLICY_CHANGE, "admin", share, "lakeformation", "GrantPermissions PutDataLakeSettings")
    # code on machines and functions
    run = (T.REMOTE_EXEC,)
    add(
        K.CONFIG_CHANGE,
        "execute",
        run,
        "ssm",
        "SendCommand StartSession ResumeSession StartAutomationExecution CreateAssociation UpdateAssociation StartChangeRequestExecution",
    )
    add(K.CONFIG_CHANGE, "execute", run, "ec2-instance-connect", "SendSSHPublicKey SendSerialConsoleSSHPublicKey OpenTunnel")
    add(
        K.CONFIG_CHANGE,
        "execute",
        run,
        "ec2",
        "ModifyInstanceAttribute EnableSerialConsoleAccess ReplaceIamInstanceProfileAssociation AssociateIamInstanceProfile",
    )
    add(K.CONFIG_CHANGE, "execute", run, "lambda", "UpdateFunctionCode UpdateFunctionConfiguration PublishLayerVersion CreateFunction")
    add(K.CONFIG_CHANGE, "execute", run, "ecs", "ExecuteCommand RegisterTaskDefinition RunTask")
    add(K.CONFIG_CHANGE, "execute", run, "codebuild", "UpdateProject StartBuild")
    add(K.CONFIG_CHANGE, "execute", run, "glue", "CreateDevEndpoint UpdateDevEndpoint UpdateJob")
    add(
        K.CONFIG_CHANGE,
        "execute",
        run,
        "sagemaker",
        "CreatePresignedNotebookInstanceUrl CreateNotebookInstanceLifecycleConfig UpdateNotebookInstanceLifecycleConfig CreatePresignedDomainUrl",
    )
    add(K.CONFIG_CHANGE, "execute", run, "datapipeline", "PutPipelineDefinition")
    add(K.CONFIG_CHANGE, "execute", run, "cloudshell", "CreateEnvironment CreateSession")
    # AI services
    add(
        K.DISCOVERY,
        "discover",
        (T.AI_DISCOVER,),
        "bedrock",
        "ListFoundationModels GetFoundationModel GetFoundationModelAvailability GetUseCaseForModelAccess ListFoundationModelAgreementOffers "
        "GetModelInvocationLoggingConfiguration ListInferenceProfiles ListProvisionedModelThroughputs ListCustomModels ListImportedModels",
    )
    add(
        K.CONFIG_CHANGE,
        "admin",
        (T.AI_ENABLE,),
        "bedrock",
        "PutUseCaseForModelAccess CreateFoundationModelAgreement PutFoundationModelEntitlement CreateProvisionedModelThroughput CreateModelInvocationJob "
        "CreateInferenceProfile",
    )
    table["bedrock:PutModelInvocationLoggingConfiguration"] = (K.CONFIG_CHANGE, "admin", (T.DEFENCE_CHANGE,))
    add(
        K.DATA_READ,
        "execute",
        (T.AI_INVOKE,),
        "bedrock",
        "InvokeModel InvokeModelWithResponseStream Converse ConverseStream InvokeAgent Retrieve RetrieveAndGenerate ApplyGuardrail InvokeModelWithBidirectionalStream",
    )
    add(K.DATA_READ, "execute", (T.AI_INVOKE,), "bedrock-runtime", "InvokeModel InvokeModelWithResponseStream Converse ConverseStream")
    add(K.DATA_READ, "execute", (T.AI_INVOKE,), "sagemaker", "InvokeEndpoint InvokeEndpointAsync")
    # sign-out and ends
    add(K.SESSION_END, "auth", (), "signin", "Logout")
    add(K.SESSION_END, "auth", (), "sso", "Logout DeleteSession")
    return table


TABLE: Final = _table()
_VERSIONED = regex(r"(\d{8}|20\d\d_\d\d_\d\d)(v\d)?$")
_DISCOVER = ("List", "Describe", "Search", "Lookup", "Simulate", "Check", "Discover", "Estimate", "Preview", "Validate", "Test", "Count")
_DELETE = ("Delete", "Terminate", "Remove", "Deregister", "Purge", "Revoke", "Detach", "Disassociate", "Cancel")
_READ = ("Get", "BatchGet", "Head", "Select", "Query", "Scan", "Receive", "Download", "Read", "View", "Filter")
_EXECUTE = ("Run", "Invoke", "Start", "Execute", "Send", "Publish")
# what is in these is data; in others a Get reads settings
_DATA = {
    "s3",
    "dynamodb",
    "athena",
    "kinesis",
    "sqs",
    "glacier",
    "timestream",
    "codecommit",
    "ebs",
    "rds-data",
    "redshift-data",
    "qldb",
    "ecr",
    "codeartifact",
}


def operation_name(name: str) -> str:
    """The call without its API version: `AddPermission20150331v2` is `AddPermission`."""
    return _VERSIONED.sub("", name) if name[-1:].isdigit() or name[-2:-1] == "v" else name


def describe(name: str) -> tuple[Kind, str, str, tuple[Tag, ...]]:
    """Kind, service, family and tags of `service:Operation`."""
    service, _, call = name.partition(":")
    entry = TABLE.get(name)
    if entry is not None:
        return entry[0], service, entry[1], entry[2]
    if call.startswith(_DISCOVER) or (call.endswith(("Policy", "Acl")) and call.startswith("Get")):
        return K.DISCOVERY, service, "discover", ()
    if call.startswith(_DELETE):
        return K.CONFIG_CHANGE, service, "delete", ()
    if call.startswith(_READ):
        return (K.DATA_READ, service, "read", ()) if service in _DATA else (K.DISCOVERY, service, "discover", ())
    if call.startswith(_EXECUTE):
        return K.CONFIG_CHANGE, service, "execute", ()
    admin = service in ("iam", "organizations", "sso", "sso-directory", "identitystore", "account")
    return K.CONFIG_CHANGE, service, "admin" if admin else "write", ()
