import CryKit
import SwiftUI

@main
struct CryKitExampleApp: App {
  var body: some Scene {
    WindowGroup { ListenView() }
  }
}
