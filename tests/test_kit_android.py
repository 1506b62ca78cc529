"""The Android kit: its plain Kotlin compiled and tested on the JVM, the rest looked through.

What needs the Android SDK (the app module, the test on a device) is not built here.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import pytest

from crykit.bundle import Bundle

ROOT = Path(__file__).parents[1]
TEMPLATE = ROOT / "export" / "kits" / "android"
APP = TEMPLATE / "app" / "src" / "main"
ANDROID = "{http://schemas.android.com/apk/res/android}"
TOOLS = "{http://schemas.android.com/tools}"
JAVA_JARS = Path("/usr/share/java")
COMPILER = "org.jetbrains.kotlin.cli.jvm.K2JVMCompiler"
SERIALIZATION = "org.jetbrains.kotlinx.serialization.compiler.extensions."


@dataclass(frozen=True)
class Kotlin:
    """A compiler, run by `java`, and what is on the classpath of what it compiles."""

    compiler: Path
    libraries: list[Path]

    def java(self, classpath: list[Path], *arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        command += ["-cp", ":".join(map(str, classpath)), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=200)


@pytest.fixture(scope="session")
def kotlin() -> Kotlin:
    """The compiler that `make kotlin` fetches, and JUnit from the system."""
    jars = Path(sys.prefix) / "kotlin" / "run_kotlin_kernel" / "jars"
    compilers = list(jars.glob("kotlin-jupyter-kernel-*-all.jar"))
    junit = [JAVA_JARS / "junit4.jar", JAVA_JARS / "hamcrest-core.jar"]
    if not compilers or shutil.which("java") is None or not all(j.exists() for j in junit):
        pytest.skip("needs java, junit4 (apt install default-jre-headless junit4), `make kotlin`")
    libraries = [*jars.glob("kotlin-stdlib-*.jar"), *jars.glob("kotlinx-serialization-*.jar")]
    return Kotlin(compilers[0], [*libraries, *junit])


@pytest.fixture(scope="session")
def android_kit(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kit of the shipped model."""
    for module in ("torch", "executorch"):
        pytest.importorskip(module)
    from crykit_export.kits import write_kits

    return write_kits(bundle, ["android"], tmp_path_factory.mktemp("kits"))[0]


@pytest.fixture(scope="session")
def classes(kotlin: Kotlin, android_kit: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`core` and its tests, compiled as the kit's Gradle would, warnings being errors."""
    folder = tmp_path_factory.mktemp("kotlin")
    # The compiler's jar holds the plugin for @Serializable among others, which clash when loaded
    # together: this jar names that one alone.
    plugin = folder / "serialization.jar"
    with zipfile.ZipFile(plugin, "w") as jar:
        jar.writestr(
            "META-INF/services/org.jetbrains.kotlin.compiler.plugin.CompilerPluginRegistrar",
            f"{SERIALIZATION}SerializationComponentRegistrar\n",
        )
    language = ".".join(versions()["kotlin"].split(".")[:2])
    done = kotlin.java(
        [kotlin.compiler],
        COMPILER,
        *("-Werror", "-no-stdlib", "-no-reflect", f"-Xplugin={plugin}", "-jvm-target", "17"),
        *("-language-version", language, "-api-version", language),
        *("-cp", ":".join(map(str, kotlin.libraries)), "-d", str(folder / "classes")),
        *map(str, sorted((android_kit / "core").rglob("*.kt"))),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "classes"


def run_junit(kotlin: Kotlin, classes: Path, payload: Path) -> str:
    tests = sorted(f"crykit.core.{path.stem}" for path in classes.rglob("*Test.class"))
    done = kotlin.java(
        [classes, *kotlin.libraries],
        f"-Dcrykit.kit={payload}",
        "org.junit.runner.JUnitCore",
        *tests,
    )
    return done.stdout + done.stderr


def versions() -> dict[str, str]:
    text = (TEMPLATE / "gradle" / "libs.versions.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)["versions"]


@pytest.mark.executorch
def test_the_plain_kotlin_passes_its_own_tests(
    kotlin: Kotlin, classes: Path, android_kit: Path
) -> None:
    said = run_junit(kotlin, classes, android_kit / "app/src/main/assets/kit")
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
    android_kit: Path,
    tmp_path: Path,
    file: str,
    field: str,
    test: str,
) -> None:
    payload = tmp_path / "kit"
    shutil.copytree(android_kit / "app/src/main/assets/kit", payload)
    text = (payload / file).read_text(encoding="utf-8")
    changed = re.sub(rf'("{field}": ?)(\d+)', lambda m: f"{m[1]}{int(m[2]) + 640}", text, count=1)
    assert changed != text
    (payload / file).write_text(changed, encoding="utf-8")
    said = run_junit(kotlin, classes, payload)
    assert "FAILURES!!!" in said and test in said


@pytest.mark.executorch
def test_the_payload_lies_where_the_app_and_its_tests_look(android_kit: Path) -> None:
    payload = android_kit / "app" / "src" / "main" / "assets" / "kit"
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
    defined = {("drawable", path.stem) for path in (APP / "res" / "drawable").iterdir()}
    defined |= {("layout", path.stem) for path in (APP / "res" / "layout").iterdir()}
    for path in (APP / "res" / "values").iterdir():
        for entry in ElementTree.parse(path).getroot():
            defined.add((entry.tag, entry.attrib["name"]))
    defined |= {("id", name) for name in re.findall(r"@\+id/(\w+)", text)}
    named = set(re.findall(r"(?<![\w.])R\.(\w+)\.(\w+)", text))
    named |= set(re.findall(r'"@(string|color|drawable|style|layout)/(\w+)"', text))
    named |= set(re.findall(r">@(color)/(\w+)<", text))
    assert named == defined


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
