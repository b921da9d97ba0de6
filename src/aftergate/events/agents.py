"""User agent text to family. Unknown stays unknown.

Rules are tried in order and the first match wins: attack tools before the SDK they are built on, command lines before the library they
are written with, browsers last because nearly everything claims to be one.
"""

from __future__ import annotations

import re
from typing import Final

from aftergate.vocabulary import Agent

# family, kind, pattern on the lower-case text. A group is the version. `{name}` families take the text of the group `name`.
_RULES: Final[tuple[tuple[str, str, str], ...]] = (
    # attack tools and scanners of secrets and rights
    ("stratus-red-team", "tool", r"stratus-red-team(?:/v?([\d.]+))?"),
    ("pacu", "tool", r"\bpacu\b(?:/v?([\d.]+))?"),
    ("trufflehog", "tool", r"trufflehog(?:/v?([\d.]+))?"),
    ("roadtools", "tool", r"\broad(?:tools|tx|recon|lib)\b(?:/v?([\d.]+))?"),
    ("azurehound", "tool", r"azurehound(?:/v?([\d.]+))?"),
    ("bloodhound", "tool", r"(?:blood|sharp)hound(?:/v?([\d.]+))?"),
    ("aadinternals", "tool", r"aadinternals|aadint"),
    ("graphrunner", "tool", r"graph-?runner"),
    ("tokentactics", "tool", r"token-?tactics"),
    ("teamfiltration", "tool", r"teamfiltration"),
    ("o365spray", "tool", r"o365spray|msolspray|trevorspray|spray365"),
    ("evilginx", "tool", r"evilginx|evilnovnc|modlishka|muraena"),
    ("scoutsuite", "tool", r"scout ?suite(?:/v?([\d.]+))?"),
    ("prowler", "tool", r"\bprowler\b(?:/v?([\d.]+))?"),
    ("cloudfox", "tool", r"cloudfox"),
    ("cloudsploit", "tool", r"cloudsploit"),
    ("cloudmapper", "tool", r"cloudmapper"),
    ("enumerate-iam", "tool", r"enumerate-iam"),
    ("weirdaal", "tool", r"weirdaal"),
    ("nimbostratus", "tool", r"nimbostratus"),
    ("gitleaks", "tool", r"gitleaks"),
    ("peirates", "tool", r"peirates"),
    ("kube-hunter", "tool", r"kube-?hunter"),
    ("kubescape", "tool", r"kubescape"),
    ("kali", "tool", r"\bkali(?:\.|-|/|\b)"),
    ("parrot-os", "tool", r"\bparrot(?:sec|os)\b|/[^ ]*parrot\.\d"),
    ("nuclei", "tool", r"\bnuclei\b"),
    ("sqlmap", "tool", r"\bsqlmap\b"),
    ("nmap", "tool", r"\bnmap\b"),
    # command lines
    ("terraform", "cli", r"(?:terraform|opentofu)/v?([\d.]+)|terraform-provider|hashicorp terraform(?!/)"),
    ("pulumi", "cli", r"\bpulumi\b(?:/v?([\d.]+))?"),
    ("okta-aws-cli", "cli", r"okta-aws-cli/v?([\d.]+)"),
    ("aws-cli", "cli", r"aws-cli/([\d.]+)"),
    ("aws-powershell", "cli", r"awspowershell|aws\.tools|aws-?tools"),
    ("graph-powershell", "cli", r"(?:microsoft ?graph|graph).{0,12}powershell(?:/([\d.]+))?"),
    ("azure-powershell", "cli", r"azurepowershell(?:/v?([\d.]+))?|azpowershell|\bpsversion/|az\.accounts"),
    ("az", "cli", r"azurecli/([\d.]+)|azure-cli(?:/([\d.]+))?|microsoft azure cli"),
    ("azd", "cli", r"\bazd/|azdev"),
    ("azcopy", "cli", r"azcopy/v?([\d.]+)"),
    ("gcloud", "cli", r"google-cloud-sdk(?:.*?\bgcloud/([\d.]+))?|\bgcloud/([\d.]+)|command/gcloud\.|\bgsutil/([\d.]+)"),
    ("kubectl", "cli", r"\bkubectl(?:/v?([\d.]+))?"),
    ("helm", "cli", r"^helm/v?([\d.]+)"),
    ("oc", "cli", r"^oc/v?([\d.]+)"),
    ("k9s", "cli", r"^k9s/v?([\d.]+)"),
    ("gh", "cli", r"github cli ?([\d.]+)?|^gh/([\d.]+)"),
    ("git", "cli", r"^git(?:-lfs)?/v?([\d.]+)|^jgit/([\d.]+)"),
    ("docker", "cli", r"^docker/([\d.]+)"),
    ("vault", "cli", r"^vault/v?([\d.]+)"),
    ("powershell", "cli", r"(?:windows)?powershell/([\d.]+)"),
    # what a cloud or a cluster does by itself
    ("ssm-agent", "service", r"amazon-ssm-agent(?:/([\d.]+))?"),
    (
        "aws-console",
        "browser",
        (
            r"^aws console|s3console/|consolefrontend|^console(?:\.[a-z0-9-]+)*\.amazonaws\.com|^signin\.amazonaws\.com|^aws signin|"
            r"^aws ?cloudtrail(?:console)?,|^cloudwatchconsole|[a-z0-9]console,? aws-internal"
        ),
    ),
    ("aws-internal", "service", r"^aws internal|^aws-internal/"),
    ("{name}", "service", r"^(?P<name>[a-z0-9.-]+\.(?:amazonaws\.com(?:\.cn)?|googleapis\.com|gserviceaccount\.com|azure\.com))$"),
    ("elb-healthchecker", "service", r"^elb-healthchecker/([\d.]+)"),
    ("google-frontend", "service", r"^googlehc/|googlekubernetesenginefrontend"),
    ("kubelet", "service", r"^kubelet/v?([\d.]+)"),
    ("{name}", "service", r"^(?P<name>kube-[a-z-]+|cloud-controller-manager|etcd|konnectivity[a-z-]*)/v?([\d.]+)?"),
    ("github-actions", "service", r"github-?actions-runner|^actions-runner|githubactionsrunner"),
    ("{name}", "service", r"^(?P<name>github-[a-z-]+)$"),
    # SDKs
    ("boto3", "sdk", r"\bboto3/([\d.]+)|^botocore/([\d.]+)|\bbotocore[/#]([\d.]+)|^boto/([\d.]+)"),
    ("aws-sdk-go", "sdk", r"aws-sdk-go(?:-v2)?/([\d.]+)"),
    ("aws-sdk-java", "sdk", r"aws-sdk-java/([\d.]+)"),
    ("aws-sdk-js", "sdk", r"aws-sdk-(?:js|nodejs)/([\d.]+)"),
    ("{name}", "sdk", r"(?P<name>aws-sdk-[a-z0-9]+)/([\d.]+)"),
    ("aws-sdk-rust", "sdk", r"\brusoto/([\d.]+)"),
    ("msal", "sdk", r"\bmsal(?:\.[a-z]+|[ -](?:python|js|node|java|net))?[ /]([\d.]+)|\bmsal\b|\badal\b"),
    ("azure-sdk", "sdk", r"\bazsdk-[a-z]+-[^/ ]+/([\d.v]+)|azure-sdk-for|\bazure-identity/([\d.]+)|microsoft\.azure\.|msrest"),
    ("graph-sdk", "sdk", r"graph-(?:dotnet|python|java|go|js)[^/ ]*/([\d.]+)|microsoft\.graph/([\d.]+)|msgraph"),
    ("google-api-python-client", "sdk", r"google-api-python-client(?:/([\d.]+))?"),
    (
        "{name}",
        "sdk",
        (
            r"(?P<name>google-api-[a-z]+-client|gcloud-(?:python|java|node|go|ruby|php|dotnet)|google-auth-library-[a-z]+|google-cloud-[a-z]+)"
            r"/([\d.]+)"
        ),
    ),
    ("octokit", "sdk", r"octokit[a-z.@/-]*[/ ]v?([\d.]+)|\boctokit\b"),
    (
        "{name}",
        "sdk",
        (
            r"^(?P<name>okta-sdk-[a-z]+|go-github|pygithub|ghapi|openai|anthropic|databricks-sdk-[a-z]+|slack-?sdk|auth0-[a-z]+)"
            r"[/ ]v?([\d.]+)?"
        ),
    ),
    ("kubernetes-client", "sdk", r"kubernetes java client|kubernetes-client/|^openapi-generator/"),
    # HTTP libraries and the tools people type them with
    ("curl", "http_library", r"\b(?:lib)?curl/([\d.]+)|^curl\b"),
    ("wget", "http_library", r"\bwget/([\d.]+)|^wget\b"),
    ("python-requests", "http_library", r"python[- ]requests[/ ]([\d.]+)|python[- ]requests"),
    ("rclone", "http_library", r"\brclone/v?([\d.]+)"),
    ("httpx", "http_library", r"python-httpx/([\d.]+)|^httpx/([\d.]+)|^python httpx"),
    ("aiohttp", "http_library", r"\baiohttp/([\d.]+)"),
    ("python-urllib", "http_library", r"python-urllib3?/([\d.]+)|^urllib3?/([\d.]+)"),
    ("go-http-client", "http_library", r"go-http-client[/ ]([\d.]+)|go-resty/([\d.]+)"),
    ("okhttp", "http_library", r"\bokhttp[/ ]([\d.]+)|\bokhttp\b"),
    ("axios", "http_library", r"\baxios/([\d.]+)|\baxios\b"),
    ("node-fetch", "http_library", r"node-fetch(?:/([\d.]+))?|^undici|^node(?:\.js)?(?:/v?([\d.]+))?$|^got\b|superagent"),
    ("guzzle", "http_library", r"guzzle(?:http)?(?:/([\d.]+))?"),
    ("apache-httpclient", "http_library", r"apache-httpclient/([\d.]+)|apache-httpasyncclient|asynchttpclient"),
    ("java", "http_library", r"^java/([\d.]+)|java-http-client(?:/([\d.]+))?|^jersey/|^feign"),
    ("postman", "http_library", r"postmanruntime/([\d.]+)|^postman"),
    ("insomnia", "http_library", r"^insomnia/([\d.]+)"),
    ("ruby", "http_library", r"^ruby\b|^faraday|rest-client/([\d.]+)|^httparty"),
    ("perl", "http_library", r"libwww-perl/([\d.]+)"),
    ("php", "http_library", r"^php/([\d.]+)"),
    ("dotnet", "http_library", r"^\.net|restsharp/([\d.]+)|system\.net\.http"),
    ("powershell", "cli", r"^powershell\b"),
    # applications
    ("vscode", "desktop_app", r"visual studio code(?:/([\d.]+))?|^vscode/([\d.]+)|\bcode/[\d.]+.*electron"),
    ("visual-studio", "desktop_app", r"^visual ?studio"),
    ("outlook", "mobile_app", r"outlook-(?:ios|android)/([\d.]+)|microsoft outlook.*(?:iphone|android)"),
    ("outlook", "desktop_app", r"microsoft outlook(?: ([\d.]+))?|^outlook\b|macoutlook/([\d.]+)"),
    ("teams", "desktop_app", r"\bteams/([\d.]+)|microsoft teams(?!/)"),
    ("onedrive", "desktop_app", r"onedrive(?:/([\d.]+))?|skydrivesync(?: ([\d.]+))?"),
    ("office", "desktop_app", r"microsoft office(?:/([\d.]+))?|msoffice ?([\d.]+)?|microsoft (?:word|excel|powerpoint|onenote)"),
    ("owa", "browser", r"client=owa"),
    ("exchange-rest", "sdk", r"client=rest"),
    ("imap-pop", "desktop_app", r"client=(?:imap4|pop3)"),
    ("exchange-activesync", "mobile_app", r"client=activesync|^apple-(?:iphone|ipad)\w*/|^android-mail/|^samsung-?"),
    ("bav2ropc", "desktop_app", r"^c?bav[2r][a-z]*ropc"),
    ("thunderbird", "desktop_app", r"thunderbird/([\d.]+)"),
    ("slack", "desktop_app", r"\bslack(?:_ssb)?/([\d.]+)"),
    ("windows-broker", "desktop_app", r"windows-azuread-authentication-provider|microsoft\.aad\.brokerplugin|^msauthhost"),
    ("dalvik", "mobile_app", r"^dalvik/([\d.]+)"),
    ("{name}", "mobile_app", r"^(?P<name>[\w. -]{2,40})/([\d.]+) cfnetwork/"),
    ("apple-native", "mobile_app", r"\bcfnetwork/([\d.]+)"),
    ("rich-client", "desktop_app", r"^rich client ?([\d.]+)?"),
    # browsers
    ("chrome", "headless", r"headlesschrome/([\d.]+)|headless ?chrome"),
    ("{name}", "headless", r"(?P<name>phantomjs|puppeteer|playwright|selenium|electron-headless)(?:/([\d.]+))?"),
    ("edge", "browser", r"\bedg(?:e|a|ios)?/([\d.]+)"),
    ("opera", "browser", r"\bopr/([\d.]+)|\bopera[/ ]([\d.]+)|^opera$"),
    ("samsung-internet", "browser", r"samsungbrowser/([\d.]+)"),
    ("vivaldi", "browser", r"vivaldi/([\d.]+)"),
    ("electron", "desktop_app", r"electron/([\d.]+)"),
    ("firefox", "browser", r"(?:firefox|fxios)/([\d.]+)"),
    ("chrome", "browser", r"(?:chrome|crios|chromium)/([\d.]+)"),
    ("safari", "browser", r"version/([\d.]+).*safari/"),
    ("safari", "browser", r"^mozilla/.*\bsafari/"),
    ("ie", "browser", r"\bmsie ([\d.]+)|trident/.*rv:([\d.]+)"),
    # short forms: Auth0 `Chrome 133.0.0 / Windows 10.0.0`, Okta `CHROME`, Entra `Mobile Safari 18.5`
    ("chrome", "headless", r"^chrome headless(?: ([\d.]+))?|^headless ?chrome"),
    ("edge", "browser", r"^(?:microsoft )?edge(?: mobile| chromium)?(?: ([\d.]+))?(?: /|$)"),
    ("firefox", "browser", r"^firefox(?: mobile| ios)?(?: ([\d.]+))?(?: /|$)"),
    ("chrome", "browser", r"^chrom(?:e|ium)(?: mobile| browser| ios)?(?: webview)?(?: ([\d.]+))?(?: /|$)"),
    ("safari", "browser", r"^(?:mobile )?safari(?: ui/wkwebview)?(?: ([\d.]+))?(?: /|$)"),
    ("ie", "browser", r"^(?:ie|internet explorer)(?: mobile)?(?: ([\d.]+))?(?: /|$)"),
    ("webkit", "browser", r"^mozilla/.*applewebkit/([\d.]+)"),
)
_COMPILED: Final = tuple((family, kind, re.compile(pattern)) for family, kind, pattern in _RULES)

_SYSTEMS: Final = tuple(
    (name, re.compile(pattern))
    for name, pattern in (
        ("ios", r"iphone|ipad|ipod|\bios\b|outlook-ios|(?<!mac )\bcpu os \d|mobile safari [\d.]+ / ios"),
        ("android", r"android"),
        ("windows", r"windows|win64|win32|\bwin(?:dows)?nt\b|client-os/windows"),
        ("macos", r"macintosh|mac os|macos|darwin|osx|apple git"),
        ("linux", r"linux|x11;|ubuntu|debian|\.amzn|el[789]\.|\bcros\b"),
    )
)
_PRODUCT: Final = re.compile(r"^([a-z][a-z0-9 ._-]{1,40}?)/v?(\d+)[\d.]*(?:[ ,;(-]|$)")
_LONG_HEX: Final = re.compile(r"[0-9a-f]{12,}|[0-9a-f]{8}-[0-9a-f]{4}")


def classify_agent(raw: str) -> Agent:
    """Family, kind, operating system and major version of a user agent. Pure; callers cache.

    A text that matches no rule but has the form `product/1.2` keeps its product name as family, since a change of program then still
    shows; its kind stays unknown.
    """
    text = raw.strip().strip("[]").strip().lower()
    for listed, kind, pattern in _COMPILED:
        match = pattern.search(text)
        if match is None:
            continue
        named = match.groupdict().get("name")
        family = named or listed
        found = [group for group in match.groups() if group and group != named]
        if family in ("aws-console", "aws-internal"):
            system = None  # the text tells of the vendor's server
        else:
            system = "ios" if kind == "mobile_app" and "cfnetwork" in text else _system(text)
        return Agent(raw=raw, family=family, kind=kind, os=system, version=_major(found))
    product = _PRODUCT.match(text)
    if product is None or product.group(1) == "mozilla" or _LONG_HEX.search(product.group(1)):
        return Agent(raw=raw, os=_system(text))
    if "kubernetes/" in text:
        return Agent(raw=raw, family=product.group(1), kind="sdk", os=_system(text), version=product.group(2))
    return Agent(raw=raw, family=product.group(1), os=_system(text), version=product.group(2))


def _system(text: str) -> str | None:
    for name, pattern in _SYSTEMS:
        if pattern.search(text):
            return name
    return None


def _major(found: list[str]) -> str | None:
    return found[0].lstrip("v").partition(".")[0] or None if found else None
