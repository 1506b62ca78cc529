import XCTest

@testable import CryKitCore

final class EventGateTests: XCTestCase {
  func testDoesWhatThePythonGateDoes() throws {
    let vectors = try TestKit.vectors()
    XCTAssertEqual(vectors.formatVersion, 1)
    XCTAssertGreaterThanOrEqual(vectors.vectors.count, 60)
    for (index, vector) in vectors.vectors.enumerated() {
      let gate = makeGate(vector)
      let found =
        try gate.feed(vector.probabilities, levelsDbfs: vector.levelsDbfs) + gate.flush()
      compare(found, vector, "vector \(index)")
    }
  }

  func testDoesTheSameFrameByFrameAndAgainAfterAReset() throws {
    for (index, vector) in try TestKit.vectors().vectors.enumerated() {
      let gate = makeGate(vector)
      for _ in 0..<2 {
        gate.reset(firstSample: vector.firstSample)
        var found: [GateChange] = []
        for (probability, level) in zip(vector.probabilities, vector.levelsDbfs) {
          found += try gate.feed([probability], levelsDbfs: [level])
        }
        compare(found + gate.flush(), vector, "vector \(index)")
        XCTAssertFalse(gate.isOpen)
      }
    }
  }

  func testRefusesWhatIsNoProbabilityAndSettingsThatMakeNoSense() throws {
    let kit = try TestKit.kit()
    let gate = kit.makeGate()
    XCTAssertThrowsError(try gate.feed([.nan], levelsDbfs: [-30]))
    XCTAssertThrowsError(try gate.feed([0.5], levelsDbfs: []))
    var settings = kit.gate
    settings.offThreshold = settings.onThreshold + 0.01
    XCTAssertThrowsError(try settings.check())
    settings = kit.gate
    settings.minOnMs = -1
    XCTAssertThrowsError(try settings.check())
  }

  private func makeGate(_ vector: Vector) -> EventGate {
    EventGate(
      settings: vector.settings, frameSamples: vector.frameSamples,
      sampleRateHz: vector.sampleRateHz, firstSample: vector.firstSample)
  }

  private func compare(_ found: [GateChange], _ vector: Vector, _ what: String) {
    let what = "\(what) \(vector.shows ?? [])"
    XCTAssertEqual(found.count, vector.found.count, what)
    for (got, wanted) in zip(found, vector.found) {
      switch got {
      case .opened(let got):
        XCTAssertEqual(wanted.type, "opened", what)
        XCTAssertEqual(got.onsetSample, wanted.onsetSample, what)
        XCTAssertEqual(got.detectedSample, wanted.detectedSample, what)
        XCTAssertEqual(got.peakProbability, wanted.peakProbability, accuracy: 1e-9, what)
      case .closed(let got):
        XCTAssertEqual(wanted.type, "closed", what)
        XCTAssertEqual(got.onsetSample, wanted.onsetSample, what)
        XCTAssertEqual(got.offsetSample, wanted.offsetSample, what)
        XCTAssertEqual(got.peakProbability, wanted.peakProbability, accuracy: 1e-9, what)
        XCTAssertEqual(got.meanProbability, wanted.meanProbability ?? .nan, accuracy: 1e-9, what)
        XCTAssertEqual(got.levelDbfs, wanted.levelDbfs ?? .nan, accuracy: 1e-9, what)
      }
    }
  }
}
