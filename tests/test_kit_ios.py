"""The iOS kit, as far as it can be seen without a Swift compiler: grammar, structure, versions."""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec
import pytest
import tree_sitter
import tree_sitter_swift

from crykit.bundle import Bundle
from crykit.gate import EventGate, GateClosed, GateOpened, GateSettings

ROOT = Path(__file__).parents[1]
TEMPLATE = ROOT / "export" / "kits" / "ios"
CORE = TEMPLATE / "Sources" / "CryKitCore"
SOURCES = sorted(TEMPLATE.rglob("*.swift"))


def camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.title() for word in rest)


def body(source: str, declaration: str) -> str:
    """What stands between a declaration's braces, at the margin."""
    found = re.search(rf"^public [\w ]*{declaration}\b.*?\{{\n(.*?)^\}}", source, re.M | re.S)
    assert found, declaration
    return found[1]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_every_swift_file_parses(path: Path) -> None:
    parser = tree_sitter.Parser(tree_sitter.Language(tree_sitter_swift.language()))
    tree = parser.parse(path.read_bytes())
    assert not tree.root_node.has_error


def test_the_parser_would_notice_a_slip() -> None:
    parser = tree_sitter.Parser(tree_sitter.Language(tree_sitter_swift.language()))
    text = (CORE / "EventGate.swift").read_text(encoding="utf-8")
    assert parser.parse(text.replace("} else {", "} else", 1).encode()).root_node.has_error


def test_the_gate_has_every_setting_field_and_step_of_the_python_one() -> None:
    types = (CORE / "GateSettings.swift").read_text(encoding="utf-8")
    settings = body(types, "struct GateSettings")
    names = [field.name for field in msgspec.structs.fields(GateSettings)]
    assert re.findall(r"public var (\w+): Double", settings) == [camel(name) for name in names]
    for change in (GateOpened, GateClosed):
        fields = re.findall(r"public let (\w+):", body(types, f"struct {change.__name__}"))
        assert fields == [camel(name) for name in change.__dataclass_fields__]
    source = (CORE / "EventGate.swift").read_text(encoding="utf-8")
    methods = {name for name in vars(EventGate) if callable(getattr(EventGate, name))}
    wanted = {camel(name.lstrip("_")) for name in methods if not name.startswith("__")}
    written = set(re.findall(r"func (\w+)\(", body(source, "class EventGate")))
    assert wanted - {"frame"} <= written


def test_the_kit_reader_reads_fields_that_a_kit_has(payload: Path) -> None:
    kit = json.loads((payload / "kit.json").read_text(encoding="utf-8"))
    source = (CORE / "Kit.swift").read_text(encoding="utf-8")
    for declaration, document in (
        ("struct Kit", kit),
        ("struct GraphSpec", kit["network"]),
        ("struct TensorSpec", kit["network"]["inputs"][0]),
        ("struct GoldenFiles", kit["golden"]),
    ):
        read = re.findall(r"^  public let (\w+):", body(source, declaration), re.M)
        assert read and set(read) <= {camel(name) for name in document}


@pytest.fixture(scope="module")
def payload(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The payload of the iOS kit."""
    for module in ("torch", "executorch"):
        pytest.importorskip(module)
    from crykit_export.kits import write_kits

    folder = write_kits(bundle, ["ios"], tmp_path_factory.mktemp("kits"))[0]
    return folder / "Sources" / "CryKit" / "Resources" / "kit"


def test_the_payload_lies_where_the_package_and_its_tests_look(payload: Path) -> None:
    kit = json.loads((payload / "kit.json").read_text(encoding="utf-8"))
    assert kit["runtime"] == "executorch"
    for path in (kit["frontend"]["file"], kit["network"]["file"], *kit["golden"].values()):
        assert (payload / path).is_file()
    package = (TEMPLATE / "Package.swift").read_text(encoding="utf-8")
    assert '.copy("Resources/kit")' in package
    test = TEMPLATE / "Tests" / "CryKitCoreTests" / "TestKit.swift"
    assert '"Sources/CryKit/Resources/kit"' in test.read_text(encoding="utf-8")


def test_executorch_is_the_release_that_exports_with_what_the_programs_need() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    exporter = re.search(r'"executorch==([\d.]+)"', project)
    package = (TEMPLATE / "Package.swift").read_text(encoding="utf-8")
    assert exporter and f'branch: "swiftpm-{exporter[1]}"' in package
    products = re.findall(r'\.product\(name: "(\w+)", package: "executorch"\)', package)
    assert products == ["executorch", "backend_xnnpack", "kernels_optimized"]
    assert "-all_load" in package


def test_every_target_has_its_sources_and_the_plain_one_needs_no_phone() -> None:
    package = (TEMPLATE / "Package.swift").read_text(encoding="utf-8")
    for kind, name in re.findall(r'\.(target|testTarget)\(\s*name: "(\w+)"', package):
        folder = TEMPLATE / ("Sources" if kind == "target" else "Tests") / name
        assert [path for path in SOURCES if path.parent == folder], name
    for path in CORE.glob("*.swift"):
        imports = re.findall(r"^import (\w+)", path.read_text(encoding="utf-8"), re.M)
        assert set(imports) <= {"Foundation"}, path


def test_the_app_says_why_it_listens_and_may_do_so_in_the_background() -> None:
    project = (TEMPLATE / "Example" / "project.yml").read_text(encoding="utf-8")
    assert "NSMicrophoneUsageDescription: " in project
    assert "UIBackgroundModes: [audio]" in project
