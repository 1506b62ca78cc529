"""What the tests of the Android kit compile, run and stand in with."""

from __future__ import annotations

import json
import math
import re
import shutil
import struct
import subprocess
import sys
import tomllib
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

TEMPLATE = Path(__file__).parents[1] / "export" / "kits" / "android"
RES = TEMPLATE / "app" / "src" / "main" / "res"
HARNESS = Path(__file__).parent / "kotlin"
JAVA_JARS = Path("/usr/share/java")
COMPILER = "org.jetbrains.kotlin.cli.jvm.K2JVMCompiler"
SERIALIZATION = "org.jetbrains.kotlinx.serialization.compiler.extensions."


def versions() -> dict[str, str]:
    """The versions that the kit's Gradle files pin."""
    text = (TEMPLATE / "gradle" / "libs.versions.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)["versions"]


@dataclass(frozen=True)
class Kotlin:
    """A compiler, run by `java`, and what is on the classpath of what it compiles."""

    compiler: Path
    libraries: list[Path]
    plugin: Path

    def java(self, classpath: list[Path], *arguments: str) -> list[str]:
        options = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        return ["java", *options, "-cp", ":".join(map(str, classpath)), *arguments]

    def compile(self, sources: list[Path], classpath: list[Path], to: Path) -> None:
        """As the kit's Gradle would, warnings being errors; Java among the sources is looked at."""
        language = ".".join(versions()["kotlin"].split(".")[:2])
        options = ["-Werror", "-no-stdlib", "-no-reflect", "-jvm-target", "17"]
        options += ["-language-version", language, "-api-version", language]
        options += [f"-Xplugin={self.plugin}", "-d", str(to)]
        options += ["-cp", ":".join(map(str, [*classpath, *self.libraries]))]
        command = self.java([self.compiler], COMPILER, *options, *map(str, sources))
        done = subprocess.run(command, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stdout + done.stderr


def find_kotlin(folder: Path) -> Kotlin:
    """The compiler that `make kotlin` fetches, and JUnit from the system."""
    jars = Path(sys.prefix) / "kotlin" / "run_kotlin_kernel" / "jars"
    compilers = list(jars.glob("kotlin-jupyter-kernel-*-all.jar"))
    junit = [JAVA_JARS / "junit4.jar", JAVA_JARS / "hamcrest-core.jar"]
    if not compilers or shutil.which("java") is None or not all(j.exists() for j in junit):
        pytest.skip("needs java, junit4 (apt install default-jre-headless junit4), `make kotlin`")
    libraries = [*jars.glob("kotlin-stdlib-*.jar"), *jars.glob("kotlinx-serialization-*.jar")]
    # The compiler's jar holds the plugin for @Serializable among others, which clash when loaded
    # together: this jar names that one alone.
    plugin = folder / "serialization.jar"
    with zipfile.ZipFile(plugin, "w") as jar:
        jar.writestr(
            "META-INF/services/org.jetbrains.kotlin.compiler.plugin.CompilerPluginRegistrar",
            f"{SERIALIZATION}SerializationComponentRegistrar\n",
        )
    return Kotlin(compilers[0], [*libraries, *junit], plugin)


def serve(process: subprocess.Popen[bytes], payload: Path) -> dict[str, Any]:
    """Run the kit's programs for `Piped.kt` until it says what it heard."""
    native = pytest.importorskip("crykit_executorch")
    kit = json.loads((payload / "kit.json").read_text(encoding="utf-8"))
    specs = [kit["frontend"], kit["network"]]
    programs = [native.Program(str(payload / spec["file"])) for spec in specs]
    assert process.stdin and process.stdout
    while (number := struct.unpack(">i", process.stdout.read(4))[0]) >= 0:
        inputs: list[Any] = []
        for tensor in specs[number]["inputs"]:
            data = process.stdout.read(4 * math.prod(tensor["shape"]))
            inputs.append(np.frombuffer(data, ">f4").astype(np.float32).reshape(tensor["shape"]))
        for output in programs[number].run(inputs):
            process.stdin.write(np.asarray(output).astype(">f4").tobytes())
        process.stdin.flush()
    return json.loads(process.stdout.read())


def write_stubs(folder: Path) -> None:
    """The stubs and `R` as Java sources, which the compiler only looks at."""
    lines = (HARNESS / "android_stubs.txt").read_text(encoding="utf-8").splitlines()
    for line in [*(line for line in lines if not line.startswith("#")), resources_class()]:
        name, body = line.split(": ", 1)
        package, simple = name.rsplit(".", 1)
        source = folder / Path(*package.split(".")) / f"{simple}.java"
        source.parent.mkdir(parents=True, exist_ok=True)
        source.write_text(f"package {package};\n{body}\n", encoding="utf-8")


def resources_class() -> str:
    """`R`, as Android's tools would make it."""
    kinds: list[str] = []
    for kind in ("string", "color", "id", "layout", "drawable"):
        names = sorted(name for of, name in defined_resources() if of == kind)
        fields = " ".join(f"public static final int {n} = {i};" for i, n in enumerate(names))
        kinds.append(f"public static final class {kind} {{ {fields} }}")
    return f"crykit.phone.R: public final class R {{ {' '.join(kinds)} }}"


def defined_resources() -> set[tuple[str, str]]:
    """(kind, name) of everything under `res`."""
    files = [*(RES / "drawable").iterdir(), *(RES / "layout").iterdir()]
    found = {(path.parent.name, path.stem) for path in files}
    for path in (RES / "values").iterdir():
        for entry in ElementTree.parse(path).getroot():
            found.add((entry.tag, entry.attrib["name"]))
    for path in (RES / "layout").iterdir():
        found |= {("id", name) for name in re.findall(r"@\+id/(\w+)", path.read_text())}
    return found
