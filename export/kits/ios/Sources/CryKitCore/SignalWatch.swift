// A microphone that hears nothing must not look like a quiet night.

/// Tells whether a microphone is dead. A real one always moves a little, even in a silent room;
/// samples that are all the same mean that it is muted, taken by another app, or broken.
public struct SignalWatch {
  private let afterSamples: Int
  private var last: Float = 0
  private var still = 0

  /// Whether the signal has stood still for too long, up to now.
  public var isFlat: Bool { still >= afterSamples }

  /// - Parameter afterMs: how long the signal must have stood still.
  public init(sampleRateHz: Int, afterMs: Int = 5000) {
    afterSamples = sampleRateHz * afterMs / 1000
  }

  public mutating func hear(_ samples: [Float]) {
    for sample in samples {
      still = sample == last ? still + 1 : 0
      last = sample
    }
  }

  public mutating func reset() {
    last = 0
    still = 0
  }
}
