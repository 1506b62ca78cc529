// Sound in, cries out: a plain translation of crykit/listener.py.

import Foundation

/// What one step heard and said: one probability and one level a frame.
public struct FrameBlock: Sendable {
  public let firstSample: Int
  public let cryProbability: [Double]
  public let levelDbfs: [Double]
}

/// Feeds sound of any length through a model and a gate. What comes out depends on the samples
/// alone, never on how they were cut.
public final class Listener {
  /// Samples heard and scored, padding excluded.
  public private(set) var clockSample: Int
  public var isCrying: Bool { gate.isOpen }

  private let model: StepModel
  private let gate: EventGate
  private let stepSamples: Int
  private let onFrames: (FrameBlock) -> Void
  private var pending: [Float] = []

  /// - Parameter onFrames: called with every step's `FrameBlock`, on the thread that feeds.
  public init(
    model: StepModel, gate: EventGate, stepSamples: Int,
    onFrames: @escaping (FrameBlock) -> Void = { _ in }
  ) {
    self.model = model
    self.gate = gate
    self.stepSamples = stepSamples
    self.onFrames = onFrames
    clockSample = gate.clockSample
  }

  /// Start a new stream whose first sample has the clock `firstSample`.
  public func reset(firstSample: Int = 0) {
    model.reset()
    gate.reset(firstSample: firstSample)
    clockSample = firstSample
    pending = []
  }

  /// Take samples, mono in -1...1 at the kit's rate, and return what became known.
  public func feed<Samples: Collection>(_ samples: Samples) throws -> [GateChange]
  where Samples.Element == Float {
    // Full scale is 1; a NaN fails the comparison as well.
    if let bad = samples.first(where: { !(abs($0) <= 1e6) }) {
      throw KitError("not a sample: \(bad)")
    }
    pending.append(contentsOf: samples)
    var found: [GateChange] = []
    var start = 0
    while pending.count - start >= stepSamples {
      found += try step(Array(pending[start..<start + stepSamples]), heard: stepSamples)
      start += stepSamples
    }
    pending.removeFirst(start)
    return found
  }

  /// The stream ends: score the rest, led out by zeros, and close an open cry. Only frames that
  /// were heard in full reach the gate, so no event outlasts the sound.
  public func flush() throws -> [GateChange] {
    var found: [GateChange] = []
    let heard = pending.count
    if heard > 0 {
      let padding = [Float](repeating: 0, count: stepSamples - heard)
      found += try step(pending + padding, heard: heard)
      pending = []
    }
    return found + gate.flush()
  }

  /// `lostSamples` are missing here: what follows is another stream. Closes what was open, starts
  /// anew, and keeps the clock right.
  public func skip(_ lostSamples: Int) throws -> [GateChange] {
    let found = try flush()
    reset(firstSample: clockSample + lostSamples)
    return found
  }

  private func step(_ samples: [Float], heard: Int) throws -> [GateChange] {
    let frame = gate.frameSamples
    let kept = (heard + frame - 1) / frame
    let block = FrameBlock(
      firstSample: clockSample,
      cryProbability: try model.step(samples).prefix(kept).map { Double($0) },
      levelDbfs: (0..<kept).map { rootMeanSquareDbfs(samples[$0 * frame..<($0 + 1) * frame]) })
    clockSample += heard
    onFrames(block)
    let whole = heard / frame
    return try gate.feed(
      Array(block.cryProbability.prefix(whole)), levelsDbfs: Array(block.levelDbfs.prefix(whole)))
  }
}

/// Root-mean-square level in dB of full scale: a sine that just reaches it reads -3.
public func rootMeanSquareDbfs<Samples: Collection>(_ samples: Samples) -> Double
where Samples.Element == Float {
  let power = samples.reduce(0.0) { $0 + Double($1) * Double($1) } / Double(samples.count)
  return 10 * log10(max(power, pow(10, silenceDbfs / 10)))
}
