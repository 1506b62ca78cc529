import XCTest

@testable import CryKitCore

final class SampleRingTests: XCTestCase {
  func testGivesBackWhatWasWrittenInOrderAroundTheEnd() {
    let ring = SampleRing(capacity: 7)
    var got: [Float] = []
    for block in 0..<20 {
      write(ring, (0..<3).map { Float(block * 3 + $0) })
      got += ring.read(5).samples
    }
    XCTAssertEqual(got, (0..<60).map { Float($0) })
  }

  func testWhatDoesNotFitIsLostAndTheReaderLearnsWhere() {
    let ring = SampleRing(capacity: 10)
    write(ring, [Float](repeating: 1, count: 6))
    write(ring, [Float](repeating: 2, count: 9))  // 4 fit, 5 are lost
    XCTAssertEqual(ring.read(8).samples.count, 8)
    write(ring, [3, 3])
    // Never across the loss.
    XCTAssertEqual(ring.read(8), RingRead(samples: [2, 2], lostBefore: 0))
    XCTAssertEqual(ring.read(8), RingRead(samples: [3, 3], lostBefore: 5))
    XCTAssertEqual(ring.read(8), RingRead(samples: [], lostBefore: 0))
  }

  func testLossesAtTheSamePlaceAddUp() {
    let ring = SampleRing(capacity: 10)
    ring.countLost(100)
    ring.countLost(0)
    ring.countLost(20)
    write(ring, [1])
    XCTAssertEqual(ring.read(8), RingRead(samples: [1], lostBefore: 120))
  }

  func testAReaderWaitsForTheWriterAndNoLongerThanItSaid() {
    let ring = SampleRing(capacity: 10)
    XCTAssertEqual(ring.read(8, wait: 0.02).samples, [])
    let writer = Thread {
      Thread.sleep(forTimeInterval: 0.03)
      [Float](repeating: 1, count: 4).withUnsafeBufferPointer(ring.write)
    }
    writer.start()
    XCTAssertEqual(ring.read(8, wait: 5).samples.count, 4)
  }

  private func write(_ ring: SampleRing, _ samples: [Float]) {
    samples.withUnsafeBufferPointer(ring.write)
  }
}

final class SignalWatchTests: XCTestCase {
  func testADeadMicrophoneIsToldAfterFiveSecondsAQuietRoomNever() {
    var watch = SignalWatch(sampleRateHz: 100)
    watch.hear([Float](repeating: 0, count: 499))
    XCTAssertFalse(watch.isFlat)
    watch.hear([0])
    XCTAssertTrue(watch.isFlat)
    watch.hear((0..<3000).map { $0 % 2 == 0 ? 1e-5 : -1e-5 })
    XCTAssertFalse(watch.isFlat)
  }

  func testOneThatStandsStillAwayFromZeroIsDeadAsWellAndAResetBeginsAnew() {
    var watch = SignalWatch(sampleRateHz: 100, afterMs: 1000)
    watch.hear([Float](repeating: 0.3, count: 101))
    XCTAssertTrue(watch.isFlat)
    watch.reset()
    XCTAssertFalse(watch.isFlat)
  }
}
