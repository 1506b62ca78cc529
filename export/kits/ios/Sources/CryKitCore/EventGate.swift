// From frame probabilities to events: a plain translation of crykit/gate.py, held to it by
// golden/gate_vectors.json. The clock is an integer count of samples; frame j covers samples
// j * n until (j + 1) * n.

import Foundation

private struct Frame {
  let probability: Double
  let power: Double
}

/// Statistics of consecutive frames from `onset`, in samples.
private final class Span {
  let onset: Int
  var offset: Int
  var frames = 0
  var total = 0.0
  var power = 0.0
  var peak = 0.0

  init(onset: Int) {
    self.onset = onset
    offset = onset
  }

  func add(_ frame: Frame, _ frameSamples: Int) {
    offset += frameSamples
    frames += 1
    total += frame.probability
    power += frame.power
    peak = max(peak, frame.probability)
  }

  /// Append a span that begins where this one ends.
  func extend(_ other: Span) {
    offset = other.offset
    frames += other.frames
    total += other.total
    power += other.power
    peak = max(peak, other.peak)
  }
}

/// Hysteresis over a stream of frame probabilities.
///
/// Events come out in order, never overlap, and are never shorter than `minOnMs`. How the frames
/// are cut into calls of `feed` makes no difference. The onset is walked back from the first frame
/// over the on threshold to where the probability rose over the off threshold, by `minOnMs` at
/// most.
public final class EventGate {
  public let frameSamples: Int
  /// End of the last frame fed, in samples.
  public private(set) var clockSample: Int
  /// Whether an event has been opened and not yet closed.
  public var isOpen: Bool { event != nil }

  private let settings: GateSettings
  private let minOn: Int
  private let minOff: Int
  private let mergeGap: Int
  private let walkBack: Int
  private let follow: Double

  private var smoothed: Double?
  private var rise: [Frame] = []
  private var run: Span?  // over the thresholds now, or within minOff of it
  private var gap: Span?  // frames since, which belong to the run if it goes on
  private var event: Span?  // opened, not yet closed
  private var between: Span?  // frames after the event, before the next run

  public init(
    settings: GateSettings, frameSamples: Int, sampleRateHz: Int, firstSample: Int = 0
  ) {
    func samples(_ durationMs: Double) -> Int {
      Int((durationMs * Double(sampleRateHz) / 1000).rounded(.up))
    }
    self.settings = settings
    self.frameSamples = frameSamples
    clockSample = firstSample
    minOn = samples(settings.minOnMs)
    minOff = samples(settings.minOffMs)
    mergeGap = samples(settings.mergeGapMs)
    walkBack = Int((Double(minOn) / Double(frameSamples)).rounded(.up))
    let frameMs = 1000 * Double(frameSamples) / Double(sampleRateHz)
    let tau = settings.smoothingMs
    follow = tau > 0 ? 1 - exp(-frameMs / tau) : 1
  }

  /// Forget everything; the next frame starts at `firstSample`.
  public func reset(firstSample: Int = 0) {
    clockSample = firstSample
    smoothed = nil
    rise = []
    run = nil
    gap = nil
    event = nil
    between = nil
  }

  /// Take frames in order, any number; `probabilities` in 0...1, one level a frame.
  public func feed(_ probabilities: [Double], levelsDbfs: [Double]) throws -> [GateChange] {
    guard probabilities.count == levelsDbfs.count else {
      throw KitError("\(probabilities.count) probabilities, but \(levelsDbfs.count) levels")
    }
    var found: [GateChange] = []
    for (probability, level) in zip(probabilities, levelsDbfs) {
      guard probability.isFinite else {
        throw KitError("frame at sample \(clockSample): expected a probability, got \(probability)")
      }
      take(Frame(probability: probability, power: pow(10, level / 10)), &found)
    }
    return found
  }

  /// The stream ends here: close what is open, drop what is too short.
  public func flush() -> [GateChange] {
    var found: [GateChange] = []
    endRun()
    close(&found)
    rise = []
    return found
  }

  private func take(_ frame: Frame, _ found: inout [GateChange]) {
    let last = smoothed ?? frame.probability
    let value = last + follow * (frame.probability - last)
    smoothed = value
    let start = clockSample
    clockSample += frameSamples
    if let run {
      continueRun(run, value, frame)
    } else {
      awaitRun(value, frame, start)
    }
    guard let run else { return closeIfOver(&found) }
    if run.offset - run.onset >= minOn, gap == nil { accept(run, &found) }
  }

  private func continueRun(_ run: Span, _ value: Double, _ frame: Frame) {
    if value >= settings.offThreshold {
      if let gap { run.extend(gap) }
      gap = nil
      run.add(frame, frameSamples)
      return
    }
    let pause = gap ?? Span(onset: run.offset)
    gap = pause
    pause.add(frame, frameSamples)
    if pause.offset - pause.onset >= minOff { endRun() }
  }

  private func awaitRun(_ value: Double, _ frame: Frame, _ start: Int) {
    if value >= settings.onThreshold {
      let begun = Span(onset: start - rise.count * frameSamples)
      for earlier in rise { begun.add(earlier, frameSamples) }
      begun.add(frame, frameSamples)
      rise = []
      run = begun
      return
    }
    rise.append(frame)
    let keep = value >= settings.offThreshold ? walkBack : 0
    while rise.count > keep {
      let passed = rise.removeFirst()
      between?.add(passed, frameSamples)
    }
  }

  /// A run long enough opens an event, or goes on with the one before it.
  private func accept(_ run: Span, _ found: inout [GateChange]) {
    if event === run { return }
    guard let earlier = event, let pause = between else {
      event = run
      found.append(
        .opened(
          GateOpened(
            onsetSample: run.onset, detectedSample: clockSample, peakProbability: run.peak)))
      return
    }
    // The pause had not yet outlasted the merge gap, else the event would be closed.
    earlier.extend(pause)
    earlier.extend(run)
    self.run = earlier
    between = nil
  }

  /// The run is over: its event now waits for one to merge with, or it was too short.
  private func endRun() {
    guard let ended = run else { return }
    let pause = gap
    run = nil
    gap = nil
    if event === ended {
      between = pause ?? Span(onset: ended.offset)
    } else {
      between?.extend(ended)
      if let pause { between?.extend(pause) }
    }
  }

  private func closeIfOver(_ found: inout [GateChange]) {
    // A rise that may yet become a run is not in `between`: its onset is what counts.
    if let between, between.offset - between.onset >= mergeGap { close(&found) }
  }

  private func close(_ found: inout [GateChange]) {
    guard let ended = event else { return }
    event = nil
    between = nil
    let power = ended.power / Double(ended.frames)
    found.append(
      .closed(
        GateClosed(
          onsetSample: ended.onset,
          offsetSample: ended.offset,
          peakProbability: ended.peak,
          meanProbability: ended.total / Double(ended.frames),
          levelDbfs: power > 0 ? 10 * log10(power) : silenceDbfs)))
  }
}
