import XCTest

@testable import CryKitCore

private struct Fake: Graph {
  let answer: ([[Float]]) -> [[Float]]
  func run(_ inputs: [[Float]]) -> [[Float]] { answer(inputs) }
}

final class KitTests: XCTestCase {
  func testSaysWhatTheModelHearsAndKeeps() throws {
    let kit = try TestKit.kit()
    XCTAssertTrue(kit.labels.contains("cry"))
    XCTAssertEqual(kit.frontend.inputs[0].size, kit.stepSamples)
    XCTAssertFalse(kit.frontend.states.isEmpty || kit.network.states.isEmpty)
    XCTAssertTrue(kit.network.outputs.contains { $0.name == "cry_probability" })
  }

  func testAnotherFormatRuntimeOrTypeIsRefused() throws {
    let text = String(decoding: try TestKit.data("kit.json"), as: UTF8.self)
    for (from, to, said) in [
      ("\"format_version\": 1", "\"format_version\": 2", "format 1, got 2"),
      ("\"executorch\"", "\"onnx\"", "got onnx"),
      ("\"float32\"", "\"int8\"", "is int8"),
      ("\"on_threshold\": 0", "\"on_threshold\": 9", "thresholds"),
      ("{", "[", "not a kit's"),
    ] {
      let broken = text.replacingOccurrences(of: from, with: to)
      XCTAssertNotEqual(broken, text)
      XCTAssertThrowsError(try Kit(json: Data(broken.utf8))) { error in
        XCTAssertTrue(error.localizedDescription.contains(said), "\(error)")
      }
    }
  }

  func testStatesGoInAsTheyCameOutAndStartAsZerosAfterAReset() throws {
    let spec = try TestKit.kit().frontend
    var seen: [[Float]] = []
    let graph = StreamingGraph(
      spec: spec,
      graph: Fake { inputs in
        seen.append(inputs.map { $0[0] })
        return spec.outputs.map {
          [Float](repeating: $0.name.hasSuffix("_next") ? 7 : 1, count: $0.size)
        }
      })
    let data = [spec.inputs[0].name: [Float](repeating: 3, count: spec.inputs[0].size)]
    XCTAssertEqual(try graph.step(data).count, spec.outputs.count - spec.states.count)
    _ = try graph.step(data)
    graph.reset()
    _ = try graph.step(data)
    XCTAssertEqual(seen[0].dropFirst().allSatisfy { $0 == 0 }, true)
    XCTAssertEqual(seen[1].dropFirst().allSatisfy { $0 == 7 }, true)
    XCTAssertEqual(seen[2], seen[0])
  }

  func testAGraphThatTakesOrGivesSomethingElseIsRefused() throws {
    let spec = try TestKit.kit().frontend
    let graph = StreamingGraph(spec: spec, graph: Fake { _ in [] })
    let name = spec.inputs[0].name
    XCTAssertThrowsError(try graph.step([:]))
    XCTAssertThrowsError(try graph.step([name: [1, 2, 3]]))
    XCTAssertThrowsError(
      try graph.step([name: [Float](repeating: 0, count: spec.inputs[0].size)]))
  }

  func testFrontEndAndNetworkMakeOneModel() throws {
    let kit = try TestKit.kit()
    func outputs(_ spec: GraphSpec, _ value: Float) -> [[Float]] {
      spec.outputs.map { [Float](repeating: value, count: $0.size) }
    }
    let model = CryModel(
      kit: kit,
      frontend: Fake { _ in outputs(kit.frontend, 0.25) },
      network: Fake { inputs in outputs(kit.network, inputs[0][0]) })
    let samples = [Float](repeating: 0, count: kit.stepSamples)
    XCTAssertEqual(
      try model.step(samples), [Float](repeating: 0.25, count: kit.framesPerStep))
  }
}
