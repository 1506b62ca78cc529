// swift-tools-version:5.9
import PackageDescription

let package = Package(
  name: "CryKit",
  platforms: [
    .iOS(.v17),
    .macOS(.v14),  // for the tests: what needs a phone is left out there
  ],
  products: [
    .library(name: "CryKit", targets: ["CryKit"])
  ],
  dependencies: [
    // The release that the programs were exported with.
    .package(url: "https://github.com/pytorch/executorch.git", branch: "swiftpm-1.5.1")
  ],
  targets: [
    // Everything that needs no phone: the gate, the ring, the kit's description, the listener.
    .target(name: "CryKitCore"),
    .target(
      name: "CryKit",
      dependencies: [
        "CryKitCore",
        .product(name: "executorch", package: "executorch"),
        .product(name: "backend_xnnpack", package: "executorch"),
        // The front end's FFT and a few copies run outside XNNPACK.
        .product(name: "kernels_optimized", package: "executorch"),
      ],
      resources: [
        .copy("Resources/kit")
      ],
      linkerSettings: [
        // Backends and kernels register themselves; the linker would drop what nobody calls.
        .unsafeFlags(["-Wl,-all_load"])
      ]
    ),
    .testTarget(name: "CryKitCoreTests", dependencies: ["CryKitCore"]),
    .testTarget(name: "CryKitTests", dependencies: ["CryKit", "CryKitCore"]),
  ]
)
