// The microphone, as raw as the phone gives it.

#if os(iOS)
  import AVFoundation
  import CryKitCore

  /// Records mono samples at the kit's rate into a `SampleRing` until `stop`.
  ///
  /// The session's measurement mode asks for the least processing: gain control and noise
  /// suppression take a cry for noise. Calls, Siri and alarms interrupt it, headsets come and go,
  /// and the media services may die; each time the engine is set up anew as soon as it may be.
  final class Microphone: @unchecked Sendable {
    private let ring: SampleRing
    private let target: AVAudioFormat
    private let lock = NSLock()
    private var engine = AVAudioEngine()
    private var converter: AVAudioConverter?
    private var observers: [NSObjectProtocol] = []
    private var heardAt: TimeInterval?
    private var down = true

    /// Whether no sound arrives for now.
    var isDown: Bool { lock.withLock { down } }

    init(sampleRateHz: Int, ring: SampleRing) {
      self.ring = ring
      target = AVAudioFormat(
        commonFormat: .pcmFormatFloat32, sampleRate: Double(sampleRateHz), channels: 1,
        interleaved: false)!
    }

    /// On the main thread.
    func start() throws {
      observe(AVAudioSession.interruptionNotification) { [weak self] note in
        let raw = note.userInfo?[AVAudioSessionInterruptionTypeKey] as? UInt
        switch raw.flatMap(AVAudioSession.InterruptionType.init(rawValue:)) {
        case .began: self?.pause()
        default: self?.restart()
        }
      }
      // A headset was plugged in or pulled out: the format of the input may be another one.
      observe(.AVAudioEngineConfigurationChange) { [weak self] _ in self?.restart() }
      observe(AVAudioSession.mediaServicesWereResetNotification) { [weak self] _ in
        self?.engine = AVAudioEngine()
        self?.restart()
      }
      try open()
    }

    func stop() {
      for observer in observers { NotificationCenter.default.removeObserver(observer) }
      observers = []
      pause()
      try? AVAudioSession.sharedInstance().setActive(false, options: .notifyOthersOnDeactivation)
    }

    /// Tries again to open what could not be opened; the monitor calls it while nothing is heard.
    func restart() {
      pause()
      try? open()
    }

    private func open() throws {
      let session = AVAudioSession.sharedInstance()
      try session.setCategory(.record, mode: .measurement)
      try session.setActive(true)
      let input = engine.inputNode
      guard input.outputFormat(forBus: 0).sampleRate > 0 else {
        throw KitError("there is no microphone")
      }
      input.installTap(onBus: 0, bufferSize: 4096, format: nil) { [weak self] buffer, _ in
        self?.hear(buffer)
      }
      engine.prepare()
      try engine.start()
    }

    private func pause() {
      engine.inputNode.removeTap(onBus: 0)
      engine.stop()
      lock.withLock { down = true }
    }

    /// On the engine's own thread.
    private func hear(_ buffer: AVAudioPCMBuffer) {
      guard let samples = convert(buffer), let channel = samples.floatChannelData else { return }
      let now = ProcessInfo.processInfo.systemUptime
      lock.withLock {
        if down, let heardAt {
          ring.countLost(Int((now - heardAt) * target.sampleRate) - Int(samples.frameLength))
        }
        down = false
        heardAt = now
      }
      ring.write(UnsafeBufferPointer(start: channel[0], count: Int(samples.frameLength)))
    }

    private func convert(_ buffer: AVAudioPCMBuffer) -> AVAudioPCMBuffer? {
      if converter?.inputFormat != buffer.format {
        converter = AVAudioConverter(from: buffer.format, to: target)
        if buffer.format.channelCount > 1 { converter?.channelMap = [0] }
      }
      let ratio = target.sampleRate / buffer.format.sampleRate
      let capacity = AVAudioFrameCount((Double(buffer.frameLength) * ratio).rounded(.up)) + 64
      guard let converter, let out = AVAudioPCMBuffer(pcmFormat: target, frameCapacity: capacity)
      else { return nil }
      let once = Once(buffer)
      let status = converter.convert(to: out, error: nil) { _, state in
        let next = once.take()
        state.pointee = next == nil ? .noDataNow : .haveData
        return next
      }
      return status == .error ? nil : out
    }

    private func observe(
      _ name: Notification.Name, _ act: @escaping @Sendable (Notification) -> Void
    ) {
      observers.append(
        NotificationCenter.default.addObserver(
          forName: name, object: nil, queue: .main, using: act))
    }
  }

  /// Gives its buffer once. The converter asks until it is told that there is no more for now; so
  /// its filter keeps its state until the microphone brings the next one.
  private final class Once: @unchecked Sendable {
    private var buffer: AVAudioPCMBuffer?

    init(_ buffer: AVAudioPCMBuffer) {
      self.buffer = buffer
    }

    func take() -> AVAudioPCMBuffer? {
      defer { buffer = nil }
      return buffer
    }
  }
#endif
