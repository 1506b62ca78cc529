import XCTest

@testable import CryKitCore

final class ListenerTests: XCTestCase {
  private var kit: Kit!
  private var expected: Expected!
  private var audio: [Float] = []

  override func setUpWithError() throws {
    kit = try TestKit.kit()
    expected = try TestKit.expected()
    audio = try TestKit.audio()
  }

  func testTheExpectedProbabilitiesMakeTheExpectedEvents() throws {
    let gate = kit.makeGate()
    let found = try gate.feed(expected.cryProbability, levelsDbfs: expected.levelDbfs)
    compare(found + gate.flush())
  }

  func testTheGoldenAudioMakesTheExpectedLevelsAndEventsHoweverItIsCut() throws {
    XCTAssertFalse(expected.events.isEmpty)
    for chunk in [audio.count, kit.stepSamples, 317, kit.stepSamples + 1] {
      var levels: [Double] = []
      let listener = makeListener { levels += $0.levelDbfs }
      var found: [GateChange] = []
      for start in stride(from: 0, to: audio.count, by: chunk) {
        found += try listener.feed(audio[start..<min(start + chunk, audio.count)])
      }
      compare(found + (try listener.flush()))
      XCTAssertEqual(listener.clockSample, audio.count)
      XCTAssertEqual(levels.count, expected.levelDbfs.count)
      for (got, wanted) in zip(levels, expected.levelDbfs) {
        XCTAssertEqual(got, wanted, accuracy: 0.001)
      }
    }
  }

  func testALaterClockMovesEveryEventByAsMuch() throws {
    let listener = makeListener()
    listener.reset(firstSample: 1_000_000)
    let found = try listener.feed(audio) + listener.flush()
    let onsets = found.compactMap(\.asClosed).map { $0.onsetSample - 1_000_000 }
    XCTAssertEqual(onsets, expected.events.map(\.onsetSample))
  }

  func testARestThatIsNoStepIsHeardAndNoEventOutlastsTheSound() throws {
    let always = Recorded([Double](repeating: 1, count: 1000), framesPerStep: kit.framesPerStep)
    let listener = Listener(model: always, gate: kit.makeGate(), stepSamples: kit.stepSamples)
    let length = 16 * kit.stepSamples + kit.frameSamples + 7
    let found = try listener.feed([Float](repeating: 0, count: length)) + listener.flush()
    let end = (16 * kit.framesPerStep + 1) * kit.frameSamples
    XCTAssertEqual(found.compactMap(\.asClosed).map(\.offsetSample), [end])
  }

  func testWhereSoundIsMissingACryIsClosedAndTheClockGoesOn() throws {
    let always = Recorded([Double](repeating: 1, count: 1000), framesPerStep: kit.framesPerStep)
    let listener = Listener(model: always, gate: kit.makeGate(), stepSamples: kit.stepSamples)
    let sound = [Float](repeating: 0, count: 16 * kit.stepSamples)
    let first = try listener.feed(sound) + listener.skip(5000)
    let second = try listener.feed(sound) + listener.flush()
    XCTAssertEqual(first.compactMap(\.asClosed).map(\.onsetSample), [0])
    XCTAssertEqual(second.compactMap(\.asClosed).map(\.onsetSample), [sound.count + 5000])
  }

  func testWhatIsNoSampleIsRefused() {
    for bad in [Float.nan, .infinity, 2e6] {
      XCTAssertThrowsError(try makeListener().feed([0, bad]))
    }
  }

  func testLevelsAreThoseOfASineAndOfSilence() {
    let sine = (0..<16_000).map { Float(sin(0.1 * Double($0))) }
    XCTAssertEqual(rootMeanSquareDbfs(sine), -3.01, accuracy: 0.01)
    XCTAssertEqual(rootMeanSquareDbfs([Float](repeating: 0, count: 640)), silenceDbfs)
  }

  private func makeListener(_ onFrames: @escaping (FrameBlock) -> Void = { _ in }) -> Listener {
    let recorded = Recorded(expected.cryProbability, framesPerStep: kit.framesPerStep)
    return Listener(
      model: recorded, gate: kit.makeGate(), stepSamples: kit.stepSamples, onFrames: onFrames)
  }

  private func compare(_ found: [GateChange]) {
    let closed = found.compactMap(\.asClosed)
    XCTAssertEqual(
      found.compactMap(\.asOpened).map(\.detectedSample), expected.events.map(\.detectedSample))
    XCTAssertEqual(closed.map(\.onsetSample), expected.events.map(\.onsetSample))
    XCTAssertEqual(closed.map(\.offsetSample), expected.events.map(\.offsetSample))
    for (got, wanted) in zip(closed, expected.events) {
      XCTAssertEqual(got.peakProbability, wanted.peakProbability, accuracy: 1e-4)
      XCTAssertEqual(got.meanProbability, wanted.meanProbability, accuracy: 1e-4)
      XCTAssertEqual(got.levelDbfs, wanted.levelDbfs, accuracy: 0.001)
    }
  }
}
