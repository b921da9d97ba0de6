"""Makes the benchmarks' inputs: a sample week of real form, repeated week after week with new events, keys, tokens and sessions.

python bench/generate.py cloudtrail 1000000 out.jsonl
python bench/generate.py entra 1000000 out.jsonl
python bench/generate.py credentials 1000000 out.jsonl     # that many session keys, each issued and used once
"""

from __future__ import annotations

import gzip
import hashlib
import re
import sys
from datetime import date, datetime, timedelta
from pathlib import Path

WEEK = Path(__file__).parents[1] / "tests" / "data" / "quiet-week"
SAMPLES = {"cloudtrail": "cloudtrail.jsonl.gz", "entra": "entra-noninteractive.jsonl.gz"}
_DAY = re.compile(rb"2026-1[01]-\d\d(?=[T ])")
_END = re.compile(rb'("expiration":")(\w{3} \d{1,2}, \d{4})(?=, )')
_KEY = re.compile(rb"ASIA[A-Z0-9]{16}")
_EVENT = re.compile(rb'("eventID":"|"id":"|"sessionId":"|"correlationId":"|"originalRequestId":")([0-9a-f]{8})')
_TOKEN = re.compile(rb'("uniqueTokenIdentifier":")([\w-]{6})')


def _fresh(value: bytes, turn: int, size: int) -> bytes:
    return hashlib.blake2s(value + turn.to_bytes(4, "big"), digest_size=16).hexdigest().upper()[:size].encode()


def weeks(kind: str, count: int, out: Path) -> None:
    """Write `count` records: the sample, then the sample a week later under new ids, and so on."""
    lines = gzip.decompress((WEEK / SAMPLES[kind]).read_bytes()).splitlines()
    lines = [line for line in lines if b"AccessKey" not in line]  # long-lived keys stay the same from week to week
    written = turn = 0
    with out.open("wb") as file:
        while written < count:
            shift = timedelta(weeks=turn)
            days: dict[bytes, bytes] = {}

            def day(found: re.Match[bytes], shift: timedelta = shift, days: dict[bytes, bytes] = days) -> bytes:
                text = found.group()
                if text not in days:
                    days[text] = (date.fromisoformat(text.decode()) + shift).isoformat().encode()
                return days[text]

            def end(found: re.Match[bytes], shift: timedelta = shift) -> bytes:
                moment = datetime.strptime(found.group(2).decode(), "%b %d, %Y") + shift  # noqa: DTZ007  (a day, without a zone)
                return found.group(1) + f"{moment:%b} {moment.day}, {moment.year}".encode()

            def key(found: re.Match[bytes], turn: int = turn) -> bytes:
                return b"ASIA" + _fresh(found.group(), turn, 16)

            def event(found: re.Match[bytes], turn: int = turn) -> bytes:
                return found.group(1) + _fresh(found.group(2), turn, 8).lower()

            def token(found: re.Match[bytes], turn: int = turn) -> bytes:
                return found.group(1) + _fresh(found.group(2), turn, 6)

            for line in lines[: count - written]:
                made = line
                if turn:
                    made = _EVENT.sub(event, _DAY.sub(day, made))
                    made = _KEY.sub(key, _END.sub(end, made)) if kind == "cloudtrail" else _TOKEN.sub(token, made)
                file.write(made + b"\n")
                written += 1
            turn += 1


def credentials(count: int, out: Path) -> None:
    """Write `count` session keys, each issued and then used once: two records a key."""
    start = datetime(2026, 1, 1)  # noqa: DTZ001  (only its text is used)
    template = (
        '{"eventVersion":"1.11","userIdentity":{"type":"AssumedRole","arn":"arn:aws:sts::111122223333:assumed-role/worker-%d/job","accountId":"111122223333",'
        '"accessKeyId":"%s","sessionContext":{"sessionIssuer":{"type":"Role","arn":"arn:aws:iam::111122223333:role/worker-%d"}}},"eventTime":"%s",'
        '"eventSource":"sqs.amazonaws.com","eventName":"ReceiveMessage","awsRegion":"eu-central-1","sourceIPAddress":"198.51.100.%d","userAgent":"Boto3/1.40.55",'
        '"eventID":"%s","recipientAccountId":"111122223333"}\n'
    )
    mint = (
        '{"eventVersion":"1.11","userIdentity":{"type":"AWSService","invokedBy":"ecs-tasks.amazonaws.com"},"eventTime":"%s","eventSource":"sts.amazonaws.com",'
        '"eventName":"AssumeRole","awsRegion":"eu-central-1","sourceIPAddress":"ecs-tasks.amazonaws.com","userAgent":"ecs-tasks.amazonaws.com",'
        '"requestParameters":{"roleArn":"arn:aws:iam::111122223333:role/worker-%d","roleSessionName":"job"},"responseElements":{"credentials":{"accessKeyId":"%s"}},'
        '"eventID":"%s","recipientAccountId":"111122223333"}\n'
    )
    with out.open("w") as file:
        for number in range(count):
            moment = start + timedelta(seconds=number)
            name = "ASIA" + hashlib.blake2s(number.to_bytes(8, "big"), digest_size=8).hexdigest().upper()
            role = number % 200
            file.write(mint % (moment.isoformat() + "Z", role, name, f"m{number:015x}"))
            file.write(template % (role, name, role, (moment + timedelta(seconds=30)).isoformat() + "Z", role % 250, f"u{number:015x}"))


def main() -> None:
    kind, count, out = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    if kind == "credentials":
        credentials(count, out)
    else:
        weeks(kind, count, out)


if __name__ == "__main__":
    main()
