"""A user agent becomes a family."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aftergate.events.agents import classify_agent

MAC = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) "
WIN = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "

TABLE = [
    # browsers
    (MAC + "Chrome/133.0.0.0 Safari/537.36", "chrome", "browser", "macos", "133"),
    (WIN + "Chrome/133.0.0.0 Safari/537.36 Edg/133.0.0.0", "edge", "browser", "windows", "133"),
    (
        "Mozilla/5.0 (Linux; Android 16; Pixel 9) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/149.0.0.0 Mobile Safari/537.36",
        "chrome",
        "browser",
        "android",
        "149",
    ),
    (
        "Mozilla/5.0 (iPhone; CPU iPhone OS 26_0_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/26.0 Mobile/15E148 Safari/604.1",
        "safari",
        "browser",
        "ios",
        "26",
    ),
    (
        "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) CriOS/131.0.1 Mobile/15E148 Safari/604.1",
        "chrome",
        "browser",
        "ios",
        "131",
    ),
    (MAC.replace("537.36", "605.1.15") + "Version/16.4 Safari/605.1.15", "safari", "browser", "macos", "16"),
    ("Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0", "firefox", "browser", "linux", "128"),
    (MAC + "Chrome/118.0.0.0 Safari/537.36,gzip(gfe),gzip(gfe)", "chrome", "browser", "macos", "118"),
    ("[" + MAC + "Chrome/118.0.0.0 Safari/537.36]", "chrome", "browser", "macos", "118"),
    (
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/133.0.0.0 Safari/537.36",
        "chrome",
        "headless",
        "linux",
        "133",
    ),
    # short forms
    ("Chrome 133.0.0 / Windows 10.0.0", "chrome", "browser", "windows", "133"),
    ("Chrome Mobile 133.0.0 / Android 14.0.0", "chrome", "browser", "android", "133"),
    ("Mobile Safari 18.5.0 / iOS 18.5.0", "safari", "browser", "ios", "18"),
    ("Mobile Safari", "safari", "browser", None, None),
    ("Edge 133.0.0", "edge", "browser", None, "133"),
    ("CHROME", "chrome", "browser", None, None),
    ("Python Requests 2.32.3 / Other 0.0.0", "python-requests", "http_library", None, "2"),
    ("Rich Client 5.2.7.0", "rich-client", "desktop_app", None, "5"),
    # command lines
    ("aws-cli/2.31.4 md/awscrt#0.27.6 ua/2.1 os/macos#26.0 md/arch#arm64 lang/python#3.13.7", "aws-cli", "cli", "macos", "2"),
    ("aws-cli/1.15.42 Python/3.6.1 Darwin/17.7.0 botocore/1.10.42", "aws-cli", "cli", "macos", "1"),
    ("python/3.11.9 (Linux-6.8.0-x86_64) AZURECLI/2.67.0 (DEB)", "az", "cli", "linux", "2"),
    ("google-cloud-sdk gcloud/548.0.0 command/gcloud.storage.cp", "gcloud", "cli", None, "548"),
    ("google-cloud-sdk gcloud-python/2.16.0 gl-python/3.11.8 grpc/1.62.1", "gcloud", "cli", None, None),
    ("kubectl/v1.33.4 (windows/amd64) kubernetes/8adb42f", "kubectl", "cli", "windows", "1"),
    (
        "APN/1.0 HashiCorp/1.0 Terraform/1.7.5 (+https://www.terraform.io) terraform-provider-aws/5.46.0 aws-sdk-go-v2/1.26.1 os/linux",
        "terraform",
        "cli",
        "linux",
        "1",
    ),
    ("HashiCorp Terraform/1.9", "terraform", "cli", None, "1"),
    ("git/2.51.0 (Apple Git-170)", "git", "cli", "macos", "2"),
    ("GitHub CLI 2.40.1", "gh", "cli", None, "2"),
    ("Mozilla/5.0 (Windows NT 10.0; Microsoft Windows 10.0.19045; en-US) PowerShell/7.4.6", "powershell", "cli", "windows", "7"),
    ("Mozilla/5.0 (Windows NT; Windows NT 10.0; en-US) WindowsPowerShell/5.1.19041.1", "powershell", "cli", "windows", "5"),
    ("Microsoft Graph PowerShell/2.25.0", "graph-powershell", "cli", None, "2"),
    # SDKs
    ("Boto3/1.40.55 md/Botocore#1.40.55 ua/2.1 os/linux#6.1.153 md/arch#x86_64 lang/python#3.12.11", "boto3", "sdk", "linux", "1"),
    ("[Boto3/1.26.165 Python/3.10.6 Linux/5.19.0-46-generic Botocore/1.29.165]", "boto3", "sdk", "linux", "1"),
    ("aws-sdk-go-v2/1.39.2 ua/2.1 os/linux lang/go#1.25.2", "aws-sdk-go", "sdk", "linux", "1"),
    ("aws-sdk-nodejs/3.913.0 linux/v20.19.5 configure-aws-credentials-for-github-actions", "aws-sdk-js", "sdk", "linux", "3"),
    ("azsdk-python-identity/1.19.0 Python/3.11.9 (Linux)", "azure-sdk", "sdk", "linux", "1"),
    ("google-api-python-client/2.184", "google-api-python-client", "sdk", None, "2"),
    ("gcloud-python/3.4.1 gl-python/3.12.11 grpc/1.75.1", "gcloud-python", "sdk", None, "3"),
    ("octokit.rb/9.2.0", "octokit", "sdk", None, "9"),
    ("MSAL.Python/1.31.0", "msal", "sdk", None, "1"),
    ("okta-sdk-python/2.9.8 python/3.11.9 Linux/5.15", "okta-sdk-python", "sdk", "linux", "2"),
    ("cert-manager/v1 (linux/amd64) kubernetes/8adb42f", "cert-manager", "sdk", "linux", "1"),
    # libraries
    ("curl/8.5.0", "curl", "http_library", None, "8"),
    ("python-requests/2.32.3", "python-requests", "http_library", None, "2"),
    ("python-httpx/0.28.1", "httpx", "http_library", None, "0"),
    ("Python/3.12 aiohttp/3.9.1", "aiohttp", "http_library", None, "3"),
    ("Go-http-client/2.0", "go-http-client", "http_library", None, "2"),
    ("okhttp/4.12.0", "okhttp", "http_library", None, "4"),
    ("axios/1.7.2", "axios", "http_library", None, "1"),
    ("Wget/1.21.4", "wget", "http_library", None, "1"),
    ("GuzzleHttp/7", "guzzle", "http_library", None, "7"),
    ("Java/17.0.2", "java", "http_library", None, "17"),
    ("PostmanRuntime/7.29.2", "postman", "http_library", None, "7"),
    # services
    ("config.amazonaws.com", "config.amazonaws.com", "service", None, None),
    ("AWS Internal", "aws-internal", "service", None, None),
    ("aws-internal/3 aws-sdk-java/1.12.692 Linux/5.10.213 OpenJDK_64-Bit_Server_VM/17.0.10+9-LTS", "aws-internal", "service", None, None),
    ("kubelet/v1.33.4 (linux/amd64) kubernetes/8adb42f", "kubelet", "service", "linux", "1"),
    ("kube-controller-manager/v1.30.2", "kube-controller-manager", "service", None, "1"),
    ("aws-sdk-go/1.55.8 (go1.24.6; linux; amd64) amazon-ssm-agent/3.3.3050.0", "ssm-agent", "service", "linux", "3"),
    # the console acts for somebody's browser
    (
        "[S3Console/0.4, aws-internal/3 aws-sdk-java/1.12.488 Linux/5.4.242 OpenJDK_64-Bit_Server_VM/25.372-b08]",
        "aws-console",
        "browser",
        None,
        None,
    ),
    ("console.amazonaws.com", "aws-console", "browser", None, None),
    ("signin.amazonaws.com", "aws-console", "browser", None, None),
    # applications
    ("Outlook-iOS/723.4200.prod.iphone (5.2540.0)", "outlook", "mobile_app", "ios", "723"),
    ("Outlook-Android/2.0", "outlook", "mobile_app", "android", "2"),
    ("Microsoft Office/16.0 (Windows NT 10.0; 16.0.19328; Pro)", "office", "desktop_app", "windows", "16"),
    ("Microsoft Teams/25290.302", "teams", "desktop_app", None, "25290"),
    ("Visual Studio Code/1.105.1 (linux)", "vscode", "desktop_app", "linux", "1"),
    ("FieldCompanion/8.3 CFNetwork/3826 Darwin/26.0", "fieldcompanion", "mobile_app", "ios", "8"),
    # attack tools, even inside another agent
    ("stratus-red-team_06e68e16-fec4-4980-a23e-ab8afc7ae8e1", "stratus-red-team", "tool", None, None),
    (
        "APN/1.0 HashiCorp/1.0 Terraform/1.1.2 aws-sdk-go/1.44.157 (go1.19.3; linux; amd64) stratus-red-team_06e68e16",
        "stratus-red-team",
        "tool",
        "linux",
        None,
    ),
    ("TruffleHog/3.0 (Security Audit)", "trufflehog", "tool", None, "3"),
    ("azurehound/v2.1.0", "azurehound", "tool", None, "2"),
    ("Prowler/4.2", "prowler", "tool", None, "4"),
    ("ScoutSuite/5.13", "scoutsuite", "tool", None, "5"),
    ("aws-cli/2.9.19 Python/3.11.2 Linux/6.6.9-amd64 source/x86_64.kali.2024 prompt/off", "kali", "tool", "linux", None),
    # unknown stays unknown, but a product's name is kept
    ("", "unknown", "unknown", None, None),
    ("Mozilla/5.0", "unknown", "unknown", None, None),
    ("UNKNOWN", "unknown", "unknown", None, None),
    ("<redacted>", "unknown", "unknown", None, None),
    ("ticket-bridge/9.0", "ticket-bridge", "unknown", None, "9"),
    ("worker-06e68e16fec44980a23e/1.0", "unknown", "unknown", None, None),
    # near misses: a word inside another word
    ("vault-secrets-operator/0.5.2 (linux/amd64)", "vault-secrets-operator", "unknown", "linux", "0"),
    ("curly-sync/1.0", "curly-sync", "unknown", None, "1"),
    ("skubectlish/1.0", "skubectlish", "unknown", None, "1"),
]


@pytest.mark.parametrize(("raw", "family", "kind", "os", "version"), TABLE)
def test_family_kind_system_and_version(raw: str, family: str, kind: str, os: str | None, version: str | None) -> None:
    agent = classify_agent(raw)
    assert (agent.family, agent.kind, agent.os, agent.version, agent.raw) == (family, kind, os, version, raw)


@given(st.text(max_size=300))
def test_any_text_has_an_answer(raw: str) -> None:
    agent = classify_agent(raw)
    assert agent.raw == raw
    assert agent.family
