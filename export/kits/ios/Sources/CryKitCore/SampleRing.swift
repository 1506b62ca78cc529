// Bounded buffer between the thread that records and the thread that listens.

import Foundation

/// What a reader got: `samples`, with `lostBefore` missing just before them.
public struct RingRead: Equatable, Sendable {
  public let samples: [Float]
  public let lostBefore: Int
}

/// One writer, one reader. When it is full the newest sound is dropped and counted, and the reader
/// learns exactly where it is missing, so the clock of what follows stays right. The lock is held
/// only while one block is copied.
public final class SampleRing: @unchecked Sendable {
  private let capacity: Int
  private let condition = NSCondition()
  private var buffer: [Float]
  private var losses: [(at: Int, samples: Int)] = []
  private var written = 0
  private var consumed = 0

  public init(capacity: Int) {
    precondition(capacity > 0, "a ring of \(capacity) samples holds nothing")
    self.capacity = capacity
    buffer = [Float](repeating: 0, count: capacity)
  }

  /// Copy samples; what does not fit is counted as lost.
  public func write(_ samples: UnsafeBufferPointer<Float>) {
    condition.lock()
    defer { condition.unlock() }
    let kept = min(samples.count, capacity - (written - consumed))
    for i in 0..<kept { buffer[(written + i) % capacity] = samples[i] }
    written += kept
    lose(samples.count - kept)
    condition.signal()
  }

  /// Note that `samples` went missing before the next `write`: the microphone stood still.
  public func countLost(_ samples: Int) {
    condition.lock()
    defer { condition.unlock() }
    lose(samples)
    condition.signal()
  }

  /// Fetch what is there, at most `count` and never across a loss; `wait` for it, in seconds.
  public func read(_ count: Int, wait: TimeInterval = 0) -> RingRead {
    condition.lock()
    defer { condition.unlock() }
    let deadline = Date(timeIntervalSinceNow: wait)
    while consumed == written, losses.isEmpty, wait > 0 {
      if !condition.wait(until: deadline) { break }
    }
    var lost = 0
    while let first = losses.first, first.at <= consumed { lost += losses.removeFirst().samples }
    let end = min(written, consumed + count, losses.first?.at ?? .max)
    let samples = (consumed..<end).map { buffer[$0 % capacity] }
    consumed = end
    return RingRead(samples: samples, lostBefore: lost)
  }

  private func lose(_ samples: Int) {
    guard samples > 0 else { return }
    if losses.last?.at == written {
      losses[losses.count - 1].samples += samples
    } else {
      losses.append((at: written, samples: samples))
    }
  }
}
