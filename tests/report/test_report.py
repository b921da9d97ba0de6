"""The report: one file, no request, nothing of a log becomes markup, the same bytes each time."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from aftergate.pipeline.outputs import conclude, summary
from aftergate.pipeline.scan import Options, scan
from aftergate.report.axis import make_axis
from aftergate.report.build import write_report
from aftergate.report.text import clean, esc, lasting, short, stretch
from aftergate.risk.incidents import Incident
from aftergate.vocabulary import Finding, Subject

VOID = {"meta", "br", "link", "img", "input", "hr", "col", "source"}
HOSTILE = "<script>alert(1)</script>\" onmouseover='x' & \u202e\u0000 https://evil.example/x.js"


class Page(HTMLParser):
    """Elements in order, and whether they nest."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.stack: list[str] = []
        self.broken: list[str] = []
        self.data: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if not self.stack or self.stack[-1] != tag:
            self.broken.append(f"</{tag}> after {self.stack[-3:]}")
        if tag in self.stack:
            while self.stack.pop() != tag:
                pass

    def handle_data(self, data):
        self.data.append(data)

    def all(self, tag, **attributes):
        return [a for t, a in self.elements if t == tag and all(v in (a.get(k) or "").split() for k, v in attributes.items())]


def report(tmp_path: Path, options: Options, name: str = "r.html") -> str:
    engine, counts = scan(options)
    findings, incidents = conclude(engine)
    write_report(tmp_path / name, options, engine, findings, incidents, summary(engine, counts, findings))
    return (tmp_path / name).read_text(encoding="utf-8")


def key_off_host(trouble: str = "") -> list[dict[str, object]]:
    """CloudTrail of one machine whose credentials are used elsewhere; `trouble` is put where an attacker chooses the text."""
    records = []
    for hour in range(40):
        away = hour >= 36
        records.append({
            "eventVersion": "1.09", "eventID": f"e-{hour}{trouble}", "eventTime": f"2026-03-{2 + hour // 24:02d}T{hour % 24:02d}:10:00Z",
            "eventSource": "s3.amazonaws.com", "eventName": "ListBuckets" if not away else "GetObject", "awsRegion": "eu-west-1",
            "sourceIPAddress": "65.108.20.7" if away else "52.31.139.75", "userAgent": f"curl/8.5.0{trouble}" if away else "Boto3/1.34",
            "recipientAccountId": "111122223333", "readOnly": True, "eventType": "AwsApiCall",
            "userIdentity": {
                "type": "AssumedRole", "principalId": "AROAEXAMPLE:i-0abc123def4567890", "accountId": "111122223333", "accessKeyId": "ASIAEXAMPLEKEY000001",
                "arn": "arn:aws:sts::111122223333:assumed-role/web/i-0abc123def4567890",
                "sessionContext": {
                    "sessionIssuer": {"type": "Role", "arn": "arn:aws:iam::111122223333:role/web", "principalId": "AROAEXAMPLE", "userName": f"web{trouble}"},
                    "attributes": {"creationDate": "2026-03-02T00:00:00Z"}, "ec2RoleDelivery": "2.0",
                },
            },
        })  # fmt: skip
    return records


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "trail.jsonl"
    path.write_text("\n".join(json.dumps(r) for r in key_off_host()))
    return path


@pytest.fixture
def options(log: Path) -> Options:
    return Options(paths=[log], tables=False)


def test_nothing_on_the_page_makes_a_request(tmp_path, options):
    text = report(tmp_path, options)
    page = Page(text)
    for tag, attributes in page.elements:
        assert tag not in {"link", "img", "iframe", "object", "embed", "base", "audio", "video", "image", "use", "form"}, tag
        for name in ("src", "srcset", "href", "xlink:href", "action", "poster", "data"):
            value = attributes.get(name)
            assert value is None or value.startswith("#"), (tag, name, value)
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style


def test_the_content_policy_allows_only_our_style_and_our_script(tmp_path, options):
    text = report(tmp_path, options)
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)[1]
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    for tag in ("style", "script"):
        inside = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        assert len(inside) == 1
        assert f"'sha256-{base64.b64encode(hashlib.sha256(inside[0].encode()).digest()).decode()}'" in policy
    page = Page(text)
    assert not [a for _, a in page.elements if "style" in a or any(k.startswith("on") for k in a)]


def test_the_page_is_well_formed_and_ids_are_unique(tmp_path, options):
    page = Page(report(tmp_path, options))
    assert page.broken == []
    assert page.stack == []
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    names = set(ids)
    assert all(a["href"][1:] in names for a in page.all("a"))
    assert len([t for t, _ in page.elements if t == "h1"]) == 1


def test_an_incident_has_its_story_its_picture_and_its_lineage(tmp_path, options):
    text = report(tmp_path, options)
    page = Page(text)
    told = " ".join(page.data)
    assert page.all("details", **{"class": "incident"})
    assert page.all("svg", **{"class": "life"})
    assert page.all("ul", **{"class": "tree"})
    for words in (
        "What happened",
        "What to do, smallest step first",
        "Life of the credential",
        "Lineage",
        "ASIAEXAMPLEKEY000001",
        "T1552.005",
        "65.108.20.7",
    ):
        assert words in told, words
    assert page.all("svg", **{"class": "ring"})


def test_coverage_says_what_was_read_and_what_could_not_fire(tmp_path, options):
    told = " ".join(Page(report(tmp_path, options)).data)
    for words in ("normalised", "duplicates", "set aside", "AWS CloudTrail", "Detections that could not fire", "tok-refresh-reuse"):
        assert words in told, words


def test_text_from_logs_stays_text(tmp_path):
    path = tmp_path / "a<b>.jsonl"
    path.write_text("\n".join(json.dumps(r) for r in key_off_host(HOSTILE)))
    text = report(tmp_path, Options(paths=[path], tables=False))
    assert "alert(1)" in text
    assert "<script>alert" not in text
    assert "\u202e" not in text
    assert "\x00" not in text
    page = Page(text)
    assert page.broken == []
    assert len([t for t, _ in page.elements if t == "script"]) == 1
    assert not [a for _, a in page.elements if any(k.startswith("on") for k in a)]


def test_the_same_input_gives_the_same_bytes(tmp_path, options):
    assert report(tmp_path, options, "a.html") == report(tmp_path, options, "b.html")


def test_standard_input_gives_everything_but_pictures(tmp_path, options):
    engine, counts = scan(options)
    findings, incidents = conclude(engine)
    assert incidents
    data = summary(engine, counts, findings)
    write_report(tmp_path / "r.html", Options(paths=["-"]), engine, findings, incidents, data)
    page = Page((tmp_path / "r.html").read_text())
    assert page.all("details", **{"class": "incident"})
    assert page.all("ul", **{"class": "tree"})
    assert not page.all("svg", **{"class": "life"})
    assert "standard input cannot be read a second time" in " ".join(page.data)
    assert findings[0].evidence[-1] in " ".join(page.data)


def test_a_page_about_nothing_is_a_page(tmp_path):
    path = tmp_path / "empty.jsonl"
    path.write_text("")
    page = Page(report(tmp_path, Options(paths=[path])))
    assert page.broken == []
    assert "No abused credential was found" in " ".join(page.data)


def test_a_busy_credential_stays_small(tmp_path):
    records = key_off_host()
    many = []
    for minute in range(30_000):
        record = json.loads(json.dumps(records[minute % 30]))
        day, rest = divmod(minute, 1440)
        record |= {"eventID": f"m-{minute}", "eventTime": f"2026-02-{1 + day:02d}T{rest // 60:02d}:{rest % 60:02d}:00Z"}
        many.append(record)
    path = tmp_path / "busy.jsonl"
    path.write_text("\n".join(json.dumps(r) for r in [*many, *records]))
    text = report(tmp_path, Options(paths=[path], tables=False))
    assert len(text) < 250_000
    drawn = re.search(r'<svg class="life".*?</svg>', text, re.DOTALL)[0]
    assert drawn.count('class="m ') <= 90
    assert re.search(r"\d+ Feb", drawn)


def test_more_incidents_than_can_be_drawn_are_listed_and_it_is_said(tmp_path, options):
    engine, counts = scan(options)
    findings = [_finding(n) for n in range(230)]
    incidents = [_incident(f) for f in findings]
    write_report(tmp_path / "r.html", options, engine, findings, incidents, summary(engine, counts, findings))
    page = Page((tmp_path / "r.html").read_text())
    assert len(page.all("details", **{"class": "incident"})) == 230
    assert "drawn for the 200 most urgent incidents" in " ".join(page.data)


def _finding(number: int) -> Finding:
    subject = Subject([f"person-{number}@corp.example"], [], [])
    return Finding(
        f"af-{number}", "tok-refresh-reuse", "medium", 1_700_000_000_000 + number, 1_700_000_000_000, "Something", "It happened.", subject, [f"e{number}"], ["okta"],
        incident=f"inc-{number}", started=1_700_000_000_000,
    )  # fmt: skip


def _incident(finding: Finding) -> Incident:
    return Incident(
        finding.incident, finding.severity, finding.started, finding.time, finding.title, finding.narrative, [finding.id], [finding.detection], finding.subject, 70,
        [], [], finding.sources,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("times", "focus"),
    [
        ([5], None),
        ([0, 1], (0, 1)),
        ([0, 86_400_000 * 300], (86_400_000 * 300, 86_400_000 * 300)),
        (list(range(0, 10**9, 10**7)), (10**8, 10**8 + 1)),
    ],
)
def test_an_axis_keeps_order_and_stays_inside(times, focus):
    axis = make_axis(times, 10, 500, focus)
    placed = [axis.x(t) for t in times]
    assert placed == sorted(placed)
    assert all(10 <= x <= 500.001 for x in placed)


def test_an_axis_gives_room_to_the_findings():
    day = 86_400_000
    times = [*range(0, 30 * day, day // 4), 30 * day, 30 * day + 600_000]
    axis = make_axis(sorted(times), 0, 1000, (30 * day, 30 * day + 600_000))
    assert axis.x(30 * day + 600_000) - axis.x(30 * day) > 15


def test_an_axis_cuts_out_quiet_time():
    day = 86_400_000
    axis = make_axis([0, 1000, 90 * day, 90 * day + 1000], 0, 1000)
    assert [s.gap for s in axis.segments] == [0, 90 * day - 1000]


def test_texts():
    assert esc('<a href="x">\'') == "&lt;a href=&quot;x&quot;&gt;&#x27;"
    assert clean("a\u202eb\x00c\nd") == "a\ufffdb\ufffdc d"
    assert short("a" * 100, 20).count("a") == 19
    assert lasting(90_000) == "2 min"
    assert stretch(0, 60_000) == "1970-01-01 00:00 – 00:01"


@pytest.mark.browser
def test_a_browser_runs_the_page_without_complaint(tmp_path, options):
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no chromium on the path")
    report(tmp_path, options)
    done = subprocess.run(
        [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
            "--disable-component-update", "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr", "--v=0", "--dump-dom",
            (tmp_path / "r.html").as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    shown = re.search(r'<output id="shown"[^>]*>([^<]*)<', done.stdout)
    assert shown is not None
    assert re.fullmatch(r"(\d+) of \1 shown", shown[1])  # the script ran: its hash is the policy's
    assert "Content Security Policy" not in done.stderr
    assert 'id="tip"' in done.stdout


@pytest.mark.browser
def test_filter_theme_and_arrow_keys_work(tmp_path, options):
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no chromium on the path")
    text = report(tmp_path, options)
    # a probe of ours may run only in a copy without the policy
    probe = """<script>
      const said = [], say = (...w) => said.push(w.join("="));
      const shown = () => document.querySelector("#shown").textContent, pick = document.querySelector(".pick");
      pick.click(); say("off", shown()); pick.click();
      const words = document.querySelector("#by-text"); words.value = "no such words"; words.dispatchEvent(new Event("input"));
      setTimeout(() => {
        say("words", shown()); say("none", !document.querySelector("#none").hidden);
        words.value = ""; words.dispatchEvent(new Event("input"));
      }, 300);
      setTimeout(() => {
        document.querySelector("#theme").click(); say("theme", document.documentElement.dataset.theme);
        document.querySelector("#toggle-all").click();
        const life = document.querySelector("svg.life"); life.focus();
        life.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight", bubbles: true }));
        say("mark", document.activeElement.getAttribute("aria-label").length > 10); say("tip", !document.querySelector("#tip").hidden);
        document.title = said.join(" | ");
      }, 700);
    </script></body>"""
    policy = re.search(r'<meta http-equiv="Content-Security-Policy"[^>]*>', text)[0]
    (tmp_path / "probe.html").write_text(text.replace(policy, "").replace("</body>", probe), encoding="utf-8")
    done = subprocess.run(
        [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
            "--disable-component-update", "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=3000", "--dump-dom",
            (tmp_path / "probe.html").as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    said = dict(part.split("=", 1) for part in re.search(r"<title>([^<]*)</title>", done.stdout)[1].split(" | "))
    assert said["off"].startswith("0 of")
    assert said["words"].startswith("0 of")
    assert said["none"] == said["mark"] == said["tip"] == "true"
    assert said["theme"] in {"dark", "light"}
