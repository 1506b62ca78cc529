// The one screen: what is heard now, in type that can be read across a dark room.

#if os(iOS)
  import CryKitCore
  import SwiftUI

  @MainActor
  public struct ListenView: View {
    @State private var monitor = CryMonitor()

    public init() {}

    public var body: some View {
      VStack(alignment: .leading, spacing: 16) {
        Text(title)
          .font(.system(size: 48, weight: .bold))
          .accessibilityAddTraits(.updatesFrequently)
        Text(isListening ? percent : " ")
          .font(.system(size: 96, weight: .thin))
          .monospacedDigit()
          .accessibilityHidden(true)
        ProgressView(value: isListening ? min(1, 1 - monitor.levelDbfs / silenceDbfs) : 0)
          .accessibilityHidden(true)
        if let trouble = monitor.trouble {
          Text(trouble.message).font(.title2).foregroundStyle(.red)
        }
        cries
        Button(action: toggle) {
          Text(monitor.phase == .off ? "Start listening" : "Stop listening")
            .font(.title2)
            .frame(maxWidth: .infinity, minHeight: 56)
        }
        .buttonStyle(.borderedProminent)
        Text("Not a medical device. Sound never leaves this phone.")
          .font(.footnote)
          .foregroundStyle(.secondary)
          .frame(maxWidth: .infinity)
      }
      .padding(24)
      .foregroundStyle(monitor.phase == .crying ? Color.orange : Color.primary)
      .preferredColorScheme(.dark)
    }

    private var cries: some View {
      ScrollView {
        VStack(alignment: .leading, spacing: 8) {
          if monitor.cries.isEmpty { Text("No cries yet") }
          ForEach(monitor.cries) { Text(line($0)) }
        }
        .font(.title)
        .monospacedDigit()
        .frame(maxWidth: .infinity, alignment: .leading)
      }
    }

    private var isListening: Bool { monitor.phase == .quiet || monitor.phase == .crying }

    private var percent: String {
      monitor.probability.formatted(.percent.precision(.fractionLength(0)))
    }

    private var title: String {
      switch monitor.phase {
      case .off: "Not listening"
      case .starting: "Starting"
      case .quiet: "Quiet"
      case .crying: "Crying"
      }
    }

    private func line(_ cry: HeardCry) -> String {
      let start = cry.start.formatted(date: .omitted, time: .standard)
      guard let end = cry.end else { return "\(start)  now" }
      return "\(start)  \(Int(end.timeIntervalSince(cry.start).rounded())) s"
    }

    private func toggle() {
      if monitor.phase == .off {
        Task { await monitor.start() }
      } else {
        monitor.stop()
      }
    }
  }
#endif
