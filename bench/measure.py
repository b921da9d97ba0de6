"""One measurement, in a process of its own: CPU seconds and memory of a scan, or of a bare orjson parse of the same lines.

    python bench/measure.py scan FILE [--jobs N]
    python bench/measure.py orjson FILE
Prints one JSON object.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from pathlib import Path


def bare(path: Path) -> dict[str, float]:
    """`orjson.loads` of each line, the lines split beforehand; only the parse is counted."""
    import orjson

    loads = orjson.loads
    spent = 0.0
    count = 0
    tail = b""
    with path.open("rb") as file:
        while block := file.read(4 << 20):
            lines = (tail + block).split(b"\n")
            tail = lines.pop()
            began = time.process_time()
            for line in lines:
                loads(line)
            spent += time.process_time() - began
            count += len(lines)
    return {"cpu": spent, "wall": spent, "events": count}


def whole(path: Path, jobs: int) -> dict[str, float]:
    """The whole pipeline, every detection on, findings written. CPU is of this process and of those it started."""
    from aftergate.pipeline.outputs import conclude, write_findings
    from aftergate.pipeline.scan import Options, scan

    wall, cpu = time.perf_counter(), time.process_time()
    engine, counts = scan(Options(paths=[path], jobs=jobs, tables=False))
    findings, _ = conclude(engine)
    with tempfile.TemporaryDirectory() as folder:
        write_findings(findings, Path(folder, "findings.jsonl"))
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "cpu": time.process_time() - cpu + children.ru_utime + children.ru_stime,
        "wall": time.perf_counter() - wall,
        "events": counts.read,
        "findings": len(findings),
        "lives": len(engine.world.lives),
        "rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main() -> None:
    what, path = sys.argv[1], Path(sys.argv[2])
    jobs = int(sys.argv[sys.argv.index("--jobs") + 1]) if "--jobs" in sys.argv else 1
    print(json.dumps(bare(path) if what == "orjson" else whole(path, jobs)))  # noqa: T201


if __name__ == "__main__":
    main()
