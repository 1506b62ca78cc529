// Microphone -> ring -> listener -> snapshots, on a thread of its own.

#if os(iOS)
  import CryKitCore
  import Foundation

  public enum Phase: Sendable {
    case off, starting, quiet, crying
  }

  /// Why nothing can be heard.
  public enum Trouble: Equatable, Sendable {
    case notAllowed, dead, stopped
    case missed(seconds: Int)
    case unusable(String)
  }

  public struct HeardCry: Identifiable, Sendable {
    public let id = UUID()
    public let start: Date
    public let end: Date?  // nil while it lasts
  }

  struct Snapshot: Sendable {
    var phase = Phase.starting
    var probability = 0.0
    var levelDbfs = silenceDbfs
    var cries: [HeardCry] = []  // latest first
    var trouble: Trouble?
  }

  /// Listens from `init` until `stop`. `publish` is called several times a second on its thread.
  final class ListenSession: @unchecked Sendable {
    private static let ringSeconds = 10  // how long the model may stall before sound is lost
    private static let silentDriverSeconds = 3.0
    private static let retrySeconds = 2.0
    private static let showMissedSeconds = 60.0
    private static let maxCries = 100

    private let loaded: LoadedKit
    private let ring: SampleRing
    private let microphone: Microphone
    private let publish: @Sendable (Snapshot) -> Void
    private let lock = NSLock()
    private var stopped = false
    private var snapshot: Snapshot

    /// On the main thread.
    init(cries: [HeardCry], publish: @escaping @Sendable (Snapshot) -> Void) throws {
      loaded = try LoadedKit()
      ring = SampleRing(capacity: Self.ringSeconds * loaded.kit.sampleRateHz)
      microphone = Microphone(sampleRateHz: loaded.kit.sampleRateHz, ring: ring)
      snapshot = Snapshot(cries: cries)
      self.publish = publish
      try microphone.start()
      let thread = Thread { [self] in listen() }
      thread.name = "listener"
      thread.qualityOfService = .userInitiated
      thread.start()
    }

    func stop() {
      lock.withLock { stopped = true }
      microphone.stop()
    }

    private func listen() {
      do {
        try listenUntilStopped()
      } catch {
        snapshot.trouble = .unusable(error.localizedDescription)
        publish(snapshot)
      }
    }

    private func listenUntilStopped() throws {
      let kit = loaded.kit
      let listener = Listener(
        model: loaded.model, gate: kit.makeGate(), stepSamples: kit.stepSamples
      ) { [self] block in
        snapshot.probability = block.cryProbability.last ?? 0
        snapshot.levelDbfs = block.levelDbfs.last ?? silenceDbfs
      }
      var watch = SignalWatch(sampleRateHz: kit.sampleRateHz)
      var startedAt: Date?
      var heardAt = Date.now
      var triedAt = Date.distantPast
      var missed: (seconds: Int, at: Date)?
      while !lock.withLock({ stopped }) {
        let read = ring.read(kit.stepSamples, wait: 0.5)
        if !read.samples.isEmpty {
          heardAt = .now
          startedAt = startedAt ?? heardAt
        }
        if read.lostBefore > 0 {
          note(try listener.skip(read.lostBefore), startedAt, kit)
          watch.reset()
          missed = (seconds: read.lostBefore / kit.sampleRateHz + 1, at: Date.now)
        }
        watch.hear(read.samples)
        note(try listener.feed(read.samples), startedAt, kit)
        snapshot.phase = listener.isCrying ? .crying : .quiet
        snapshot.trouble = trouble(heardAt, watch.isFlat, missed)
        if snapshot.trouble == .stopped, -triedAt.timeIntervalSinceNow > Self.retrySeconds {
          triedAt = .now
          DispatchQueue.main.async { self.tryAgain() }
        }
        publish(snapshot)
      }
      note(try listener.flush(), startedAt, kit)
      publish(snapshot)
    }

    private func trouble(
      _ heardAt: Date, _ isFlat: Bool, _ missed: (seconds: Int, at: Date)?
    ) -> Trouble? {
      if -heardAt.timeIntervalSinceNow > Self.silentDriverSeconds { return .stopped }
      if isFlat { return .dead }
      guard let missed, -missed.at.timeIntervalSinceNow < Self.showMissedSeconds else { return nil }
      return .missed(seconds: missed.seconds)
    }

    private func tryAgain() {
      if microphone.isDown, !lock.withLock({ stopped }) { microphone.restart() }
    }

    /// Bring the list of cries up to date; sample clocks become times of day.
    private func note(_ changes: [GateChange], _ startedAt: Date?, _ kit: Kit) {
      func time(_ sample: Int) -> Date {
        (startedAt ?? .now).addingTimeInterval(Double(sample) / Double(kit.sampleRateHz))
      }
      for change in changes {
        switch change {
        case .opened(let cry):
          snapshot.cries.insert(HeardCry(start: time(cry.onsetSample), end: nil), at: 0)
        case .closed(let cry):
          snapshot.cries[0] = HeardCry(start: time(cry.onsetSample), end: time(cry.offsetSample))
        }
        snapshot.cries = Array(snapshot.cries.prefix(Self.maxCries))
      }
    }
  }
#endif
