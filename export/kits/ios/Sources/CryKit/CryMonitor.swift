// What a screen needs: start, stop, and what is heard now.

#if os(iOS)
  import AVFoundation
  import CryKitCore
  import Observation
  import UserNotifications

  @MainActor
  @Observable
  public final class CryMonitor {
    public private(set) var phase = Phase.off
    public private(set) var probability = 0.0
    public private(set) var levelDbfs = silenceDbfs
    public private(set) var cries: [HeardCry] = []  // latest first
    public private(set) var trouble: Trouble?

    private var session: ListenSession?

    public init() {}

    /// Asks for the microphone where that was not done yet, and listens.
    public func start() async {
      guard session == nil else { return }
      guard await AVAudioApplication.requestRecordPermission() else {
        trouble = .notAllowed
        return
      }
      let center = UNUserNotificationCenter.current()
      _ = try? await center.requestAuthorization(options: [.alert, .sound])
      trouble = nil
      phase = .starting
      do {
        session = try ListenSession(cries: cries) { [weak self] snapshot in
          Task { @MainActor [weak self] in self?.show(snapshot) }
        }
      } catch {
        phase = .off
        trouble = .unusable(error.localizedDescription)
      }
    }

    public func stop() {
      session?.stop()
      session = nil
      phase = .off
      probability = 0
      trouble = nil
    }

    private func show(_ snapshot: Snapshot) {
      cries = snapshot.cries
      guard session != nil else { return }
      phase = snapshot.phase
      probability = snapshot.probability
      levelDbfs = snapshot.levelDbfs
      guard trouble != snapshot.trouble else { return }
      trouble = snapshot.trouble
      sayTrouble()
    }

    /// A notification that sounds: a parent must know that nobody listens.
    private func sayTrouble() {
      let id = "crykit.trouble"
      let center = UNUserNotificationCenter.current()
      guard let trouble else {
        center.removeDeliveredNotifications(withIdentifiers: [id])
        return
      }
      let content = UNMutableNotificationContent()
      content.title = "crykit cannot hear"
      content.body = trouble.message
      content.sound = .default
      center.add(UNNotificationRequest(identifier: id, content: content, trigger: nil))
    }
  }

  extension Trouble {
    public var message: String {
      switch self {
      case .notAllowed: "crykit hears nothing without the microphone: allow it in Settings."
      case .dead: "The microphone is dead: it gives no sound at all."
      case .stopped: "The microphone stopped: a call or another app is using it. Trying again."
      case .missed(let seconds): "About \(seconds) s of sound were missed."
      case .unusable(let why): "crykit cannot listen: \(why)"
      }
    }
  }
#endif
