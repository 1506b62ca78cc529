"""The Android kit: its plain Kotlin compiled and run on the JVM, its app type-checked.

What needs the Android SDK or a device is not built here: stubs stand for it.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from xml.etree import ElementTree

import pytest
from kotlin_tools import (
    HARNESS,
    TEMPLATE,
    Kotlin,
    defined_resources,
    find_kotlin,
    serve,
    versions,
    write_stubs,
)

from crykit.bundle import Bundle

ROOT = Path(__file__).parents[1]
APP = TEMPLATE / "app" / "src" / "main"
ANDROID = "{http://schemas.android.com/apk/res/android}"
TOOLS = "{http://schemas.android.com/tools}"


@pytest.fixture(scope="session")
def kotlin(tmp_path_factory: pytest.TempPathFactory) -> Kotlin:
    return find_kotlin(tmp_path_factory.mktemp("kotlin"))


@pytest.fixture(scope="session")
def android_kit(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kit of the shipped model."""
    for module in ("torch", "executorch"):
        pytest.importorskip(module)
    from crykit_export.kits import write_kits

    return write_kits(bundle, ["android"], tmp_path_factory.mktemp("kits"))[0]


@pytest.fixture(scope="session")
def payload(android_kit: Path) -> Path:
    return android_kit / "app" / "src" / "main" / "assets" / "kit"


@pytest.fixture(scope="session")
def classes(kotlin: Kotlin, android_kit: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`core`, its tests, and the harness that runs it over pipes."""
    folder = tmp_path_factory.mktemp("classes")
    sources = [*(android_kit / "core").rglob("*.kt"), *HARNESS.glob("*.kt")]
    kotlin.compile(sorted(sources), [], folder)
    return folder


def run_junit(kotlin: Kotlin, classes: Path, payload: Path) -> str:
    tests = sorted(f"crykit.core.{path.stem}" for path in classes.rglob("*Test.class"))
    command = kotlin.java(
        [classes, *kotlin.libraries],
        f"-Dcrykit.kit={payload}",
        "org.junit.runner.JUnitCore",
        *tests,
    )
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    return done.stdout + done.stderr


@pytest.mark.executorch
def test_the_plain_kotlin_passes_its_own_tests(
    kotlin: Kotlin, classes: Path, payload: Path
) -> None:
    said = run_junit(kotlin, classes, payload)
    passed = re.search(r"OK \((\d+) tests\)", said)
    assert passed and int(passed[1]) >= 24, said


@pytest.mark.executorch
@pytest.mark.parametrize(
    ("file", "field", "test"),
    [
        ("golden/gate_vectors.json", "onset_sample", "does what the Python gate does"),
        ("golden/expected.json", "offset_sample", "the golden audio makes"),
    ],
)
def test_the_kotlin_tests_fail_where_the_golden_files_say_otherwise(
    kotlin: Kotlin,
    classes: Path,
    payload: Path,
    tmp_path: Path,
    file: str,
    field: str,
    test: str,
) -> None:
    altered = tmp_path / "kit"
    shutil.copytree(payload, altered)
    text = (altered / file).read_text(encoding="utf-8")
    changed = re.sub(rf'("{field}": ?)(\d+)', lambda m: f"{m[1]}{int(m[2]) + 640}", text, count=1)
    assert changed != text
    (altered / file).write_text(changed, encoding="utf-8")
    said = run_junit(kotlin, classes, altered)
    assert "FAILURES!!!" in said and test in said


@pytest.mark.executorch
def test_the_kotlin_listener_hears_with_the_real_programs_what_python_hears(
    kotlin: Kotlin, classes: Path, payload: Path
) -> None:
    pytest.importorskip("crykit_executorch")
    command = kotlin.java(
        [classes, *kotlin.libraries], f"-Dcrykit.kit={payload}", "crykit.piped.PipedKt"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL) as process:
        heard = serve(process, payload)
    expected = json.loads((payload / "golden" / "expected.json").read_text(encoding="utf-8"))
    assert heard["cry_probability"] == pytest.approx(expected["cry_probability"], abs=1e-6)
    assert heard["events"] == [
        [event["onset_sample"], event["offset_sample"]] for event in expected["events"]
    ]


@pytest.mark.executorch
def test_the_app_fits_the_plain_part_and_stubs_of_android(
    kotlin: Kotlin, classes: Path, tmp_path: Path
) -> None:
    write_stubs(tmp_path / "stubs")
    sources = sorted((TEMPLATE / "app" / "src").rglob("*.kt"))
    kotlin.compile([*sources, tmp_path / "stubs"], [classes], tmp_path / "app")
    assert list((tmp_path / "app").rglob("ListenService.class"))


@pytest.mark.executorch
def test_the_payload_lies_where_the_app_and_its_tests_look(
    android_kit: Path, payload: Path
) -> None:
    kit = json.loads((payload / "kit.json").read_text(encoding="utf-8"))
    assert kit["runtime"] == "executorch"
    for path in (kit["frontend"]["file"], kit["network"]["file"], *kit["golden"].values()):
        assert (payload / path).is_file()
    assert '"app/src/main/assets/kit"' in (android_kit / "core" / "build.gradle.kts").read_text()


def test_the_manifest_asks_for_the_microphone_and_never_for_the_network() -> None:
    root = ElementTree.parse(APP / "AndroidManifest.xml").getroot()
    kept, removed = set[str](), set[str]()
    for permission in root.iter("uses-permission"):
        name = permission.attrib[f"{ANDROID}name"].removeprefix("android.permission.")
        (removed if permission.get(f"{TOOLS}node") == "remove" else kept).add(name)
    assert kept == {
        "RECORD_AUDIO",
        "FOREGROUND_SERVICE",
        "FOREGROUND_SERVICE_MICROPHONE",
        "POST_NOTIFICATIONS",
        "WAKE_LOCK",
    }
    assert removed == {"INTERNET", "ACCESS_NETWORK_STATE"}
    (service,) = root.iter("service")
    assert service.get(f"{ANDROID}foregroundServiceType") == "microphone"
    assert service.get(f"{ANDROID}exported") == "false"
    for component in [*root.iter("service"), *root.iter("activity")]:
        name = component.attrib[f"{ANDROID}name"].removeprefix(".")
        assert (APP / "kotlin" / "crykit" / "phone" / f"{name}.kt").is_file()


def test_every_resource_that_is_named_exists_and_none_lies_idle() -> None:
    files = [*APP.rglob("*.kt"), *APP.rglob("*.xml")]
    text = "\n".join(path.read_text(encoding="utf-8") for path in files)
    named = set(re.findall(r"(?<![\w.])R\.(\w+)\.(\w+)", text))
    named |= set(re.findall(r'"@(string|color|drawable|style|layout)/(\w+)"', text))
    named |= set(re.findall(r">@(color)/(\w+)<", text))
    assert named == defined_resources()


def test_versions_are_pinned_and_executorch_is_the_one_that_exports() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    exporter = re.search(r'"executorch==([\d.]+)"', project)
    assert exporter and versions()["executorch"] == exporter[1]
    for name, version in versions().items():
        assert re.fullmatch(r"\d+(\.\d+)+", version), name
    app = (TEMPLATE / "app" / "build.gradle.kts").read_text(encoding="utf-8")
    assert "libs.executorch" in app and "useLegacyPackaging = false" in app
    scripts = [*TEMPLATE.rglob("*.gradle.kts")]
    aliases = re.findall(r"libs\.([a-z.]+)", "\n".join(p.read_text() for p in scripts))
    catalogue = tomllib.loads((TEMPLATE / "gradle" / "libs.versions.toml").read_text())
    known = {name.replace("-", ".") for name in catalogue["libraries"]}
    known |= {f"plugins.{name.replace('-', '.')}" for name in catalogue["plugins"]}
    assert set(aliases) == known


def test_the_plain_part_knows_nothing_of_android() -> None:
    sources = [*(TEMPLATE / "core" / "src").rglob("*.kt")]
    assert len(sources) >= 10
    for path in sources:
        imports = re.findall(r"^import (\S+)", path.read_text(encoding="utf-8"), re.MULTILINE)
        assert not [name for name in imports if name.startswith(("android", "org.pytorch"))], path
