"""Builds the wheel with its core compiled to C by mypyc; see docs/decisions/0005-compiled-core.md.

Where there is no C compiler or no Python headers the wheel is pure and finds the same, more slowly. AFTERGATE_CORE=pure asks for that,
AFTERGATE_CORE=compiled makes it an error that nothing was compiled. `python hatch_build.py FOLDER` puts the package there, compiled, to try out.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).parent
WORK = ROOT / "build" / "core"  # C, objects and libraries of the last build: what did not change is not built again
# What every event passes. Not in here: classes for msgspec, which have to stay classes of Python, and what recurses over data, since C has no recursion limit.
CORE = (
    "vocabulary/events.py",
    "events/clock.py",
    "events/interning.py",
    "connectors/aws/normalise.py",
    "connectors/microsoft/common.py",
    "connectors/microsoft/signins.py",
    "pipeline/lines.py",
    "pipeline/normalising.py",
    "pipeline/ordering.py",
    "events/wire.py",
    "lineage/state.py",
    "lineage/tracking.py",
    "detections/api.py",
    "detections/engine.py",
    "detections/conduct.py",
    "detections/drift_first_action_class.py",
    "detections/drift_privilege_change.py",
    "detections/drift_recon_burst.py",
    "detections/drift_secret_harvest.py",
    "detections/drift_volume_per_token.py",
    "detections/kinds_of_act.py",
    "detections/lc_old_secret_still_used.py",
    "detections/ni_cred_type_switch.py",
    "detections/ni_device_code_replay.py",
    "detections/ni_family_pivot.py",
    "detections/ni_first_party_oauth_phish.py",
    "detections/ni_human_use_of_nhi.py",
    "detections/ni_workload_new_origin.py",
    "detections/pipelines.py",
    "detections/reasoning.py",
    "detections/tok_ci_creds_off_ci.py",
    "detections/tok_ci_provenance.py",
    "detections/tok_concurrent_origins.py",
    "detections/tok_cookie_to_script.py",
    "detections/tok_delegation_anomaly.py",
    "detections/tok_dormant_awake.py",
    "detections/tok_host_creds_offhost.py",
    "detections/tok_scope_growth.py",
    "detections/tok_session_device_change.py",
    "detections/tok_unbound_downgrade.py",
    "detections/tok_unminted.py",
)


class CustomBuildHook(BuildHookInterface[Any]):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        wanted = os.environ.get("AFTERGATE_CORE", "")
        if version == "editable" or wanted == "pure":
            return
        missing = lacking()
        built: dict[str, str] = {}
        if not missing:
            try:
                built = {str(path): name for path, name in libraries()}
            except RuntimeError as error:
                missing = str(error)
        if missing and wanted == "compiled":
            raise RuntimeError(missing)
        if missing:
            self.app.display_warning(f"Aftergate is built without its compiled core, so scans take twice as long: {missing}")
            return
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        build_data["force_include"].update(built)


def lacking() -> str:
    """What is missing for compiling; nothing if all is there."""
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    if shutil.which(compiler) is None:
        return f"there is no C compiler ({compiler})"
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        return "the headers of Python are not installed"
    for name in ("mypyc", "setuptools"):
        if importlib.util.find_spec(name) is None:
            return f"{name} is not installed"
    return ""


def libraries() -> Iterator[tuple[Path, str]]:
    """The compiled modules, each with its place in the wheel.

    In a process of its own: mypyc and setuptools change the process that runs them.
    """
    WORK.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, __file__, "--compile"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603  (itself)
    if done.returncode:
        raise RuntimeError(f"compiling the core failed:\n{(done.stdout + done.stderr)[-4000:]}")
    for path in sorted((WORK / "lib").rglob(f"*{sysconfig.get_config_var('EXT_SUFFIX')}")):
        yield path, path.relative_to(WORK / "lib").as_posix()


def compile_core() -> None:
    """Python to C to libraries, in WORK."""
    from concurrent.futures import ThreadPoolExecutor

    from mypyc.build import mypycify
    from setuptools import Distribution
    from setuptools.command.build_ext import build_ext

    class Build(build_ext):
        """Compiles files side by side, and only those that changed."""

        def build_extensions(self) -> None:
            one = self.compiler.compile

            def every(sources: list[str], output_dir: str, **options: Any) -> list[str]:
                newest = max(path.stat().st_mtime for path in (WORK / "c").rglob("*.h"))

                def built(source: str) -> str:
                    (made,) = self.compiler.object_filenames([source], output_dir=output_dir)
                    if not Path(made).exists() or Path(made).stat().st_mtime < max(newest, Path(source).stat().st_mtime):
                        one([source], output_dir=output_dir, **options)
                    return str(made)

                with ThreadPoolExecutor(os.cpu_count()) as pool:
                    return list(pool.map(built, sources))

            self.compiler.compile = every
            super().build_extensions()

    os.environ["MYPYPATH"] = "src"
    shutil.rmtree(WORK / "lib", ignore_errors=True)
    extensions = mypycify(
        [
            "--config-file=",
            "--strict",
            "--ignore-missing-imports",
            f"--cache-dir={WORK / 'mypy'}",
            *(f"src/aftergate/{name}" for name in CORE),
        ],
        opt_level="2",
        debug_level="0",
        multi_file=True,
        target_dir=str(WORK / "c"),
        group_name="aftergate",
    )
    # A Distribution of our own: `setup()` would read pyproject.toml, which is written for hatchling.
    build = Build(Distribution({"name": "aftergate", "ext_modules": extensions}))
    build.build_lib, build.build_temp = str(WORK / "lib"), str(WORK / "objects")
    build.ensure_finalized()
    build.run()


def main() -> None:
    if sys.argv[1] == "--lacking":
        print(lacking())
        return
    if sys.argv[1] == "--compile":
        compile_core()
        return
    out = Path(sys.argv[1])
    shutil.copytree(ROOT / "src" / "aftergate", out / "aftergate", dirs_exist_ok=True)
    for path, name in libraries():
        shutil.copy(path, out / name)


if __name__ == "__main__":
    main()
