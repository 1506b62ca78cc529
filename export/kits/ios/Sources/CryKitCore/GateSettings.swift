// What a gate is told and what it tells: a plain translation of the types in crykit/gate.py.

/// Level given to digital silence, which has no logarithm.
public let silenceDbfs = -100.0

/// When a probability becomes an event.
///
/// A run starts where the probability reaches `onThreshold` and lasts until it has stayed under
/// `offThreshold` for `minOffMs`. It is an event once it is `minOnMs` long; a later run that starts
/// within `mergeGapMs` of an event's end belongs to that event. `smoothingMs` is the time constant
/// of a causal moving average that is taken first; 0 is none.
public struct GateSettings: Codable, Equatable, Sendable {
  public var onThreshold: Double
  public var offThreshold: Double
  public var smoothingMs: Double
  public var minOnMs: Double
  public var minOffMs: Double
  public var mergeGapMs: Double

  /// - Throws: `KitError` where the settings make no sense.
  public func check() throws {
    guard 0 < offThreshold, offThreshold <= onThreshold, onThreshold <= 1 else {
      let got = "on \(onThreshold), off \(offThreshold)"
      throw KitError("gate thresholds must satisfy 0 < off <= on <= 1, got \(got)")
    }
    for duration in [smoothingMs, minOnMs, minOffMs, mergeGapMs]
    where !(duration.isFinite && duration >= 0) {
      throw KitError("gate durations must be 0 or more milliseconds, got \(duration)")
    }
  }
}

/// An event has begun. `detectedSample` is how much had been heard when that was known.
public struct GateOpened: Equatable, Sendable {
  public let onsetSample: Int
  public let detectedSample: Int
  public let peakProbability: Double
}

/// An event has ended; statistics are over its frames, the level over their mean power.
public struct GateClosed: Equatable, Sendable {
  public let onsetSample: Int
  public let offsetSample: Int
  public let peakProbability: Double
  public let meanProbability: Double
  public let levelDbfs: Double
}

public enum GateChange: Equatable, Sendable {
  case opened(GateOpened)
  case closed(GateClosed)

  public var asOpened: GateOpened? {
    guard case .opened(let cry) = self else { return nil }
    return cry
  }

  public var asClosed: GateClosed? {
    guard case .closed(let cry) = self else { return nil }
    return cry
  }
}
