import CryKitCore
import XCTest

@testable import CryKit

private struct Expected: Decodable {
  struct Tolerance: Decodable {
    let cryProbabilityMaxAbs: Double
  }
  struct Event: Decodable {
    let onsetSample: Int
    let offsetSample: Int
  }
  let tolerance: Tolerance
  let cryProbability: [Double]
  let events: [Event]
}

/// The programs where this runs: the golden audio must give what it gave the maker of the kit.
final class GoldenTests: XCTestCase {
  func testGoldenAudioGivesTheExpectedProbabilitiesAndEvents() throws {
    let loaded = try LoadedKit()
    let kit = loaded.kit
    let expected = try kitDecoder.decode(Expected.self, from: data(kit.golden.expected))
    let audio = try samples(kit.golden.audio)
    var heard: [Double] = []
    let listener = Listener(
      model: loaded.model, gate: kit.makeGate(), stepSamples: kit.stepSamples
    ) { heard += $0.cryProbability }
    let clock = ContinuousClock()
    var found: [GateChange] = []
    let took = try clock.measure { found = try listener.feed(audio) + listener.flush() }
    print("crykit: \(took) for \(audio.count / kit.sampleRateHz) s of sound")

    XCTAssertEqual(heard.count, expected.cryProbability.count)
    for (got, wanted) in zip(heard, expected.cryProbability) {
      XCTAssertEqual(got, wanted, accuracy: expected.tolerance.cryProbabilityMaxAbs)
    }
    // Within the tolerance a threshold may be crossed a step earlier or later.
    let closed = found.compactMap(\.asClosed)
    XCTAssertEqual(closed.count, expected.events.count)
    for (got, wanted) in zip(closed, expected.events) {
      XCTAssertLessThanOrEqual(abs(got.onsetSample - wanted.onsetSample), kit.stepSamples)
      XCTAssertLessThanOrEqual(abs(got.offsetSample - wanted.offsetSample), kit.stepSamples)
    }
  }

  func testAnAlteredProgramIsRefusedBeforeAnythingParsesIt() throws {
    let files = FileManager.default
    let folder = files.temporaryDirectory.appending(path: UUID().uuidString)
    try files.copyItem(at: LoadedKit.bundled, to: folder)
    defer { try? files.removeItem(at: folder) }
    let program = folder.appending(path: try LoadedKit().kit.network.file)
    var bytes = try Data(contentsOf: program)
    bytes[100] ^= 1
    try bytes.write(to: program)
    XCTAssertThrowsError(try LoadedKit(folder: folder)) { error in
      XCTAssertTrue(error.localizedDescription.contains("altered"))
    }
  }

  private func data(_ path: String) throws -> Data {
    try Data(contentsOf: LoadedKit.bundled.appending(path: path))
  }

  /// 16-bit mono PCM in -1...1.
  private func samples(_ path: String) throws -> [Float] {
    let file = try data(path)
    let marker = try XCTUnwrap(file.range(of: Data("data".utf8)))
    return file[(marker.upperBound + 4)...].withUnsafeBytes { bytes in
      (0..<bytes.count / 2).map {
        let value = bytes.loadUnaligned(fromByteOffset: 2 * $0, as: Int16.self)
        return Float(Int16(littleEndian: value)) / 32768
      }
    }
  }
}
