// The kit's programs under ExecuTorch, checked before they are parsed.

import CryKitCore
import CryptoKit
import ExecuTorch
import Foundation

/// One program's `forward`. Not thread-safe, as ExecuTorch's `Module` is not.
final class ExecuTorchGraph: Graph {
  private let module: Module
  private let spec: GraphSpec

  init(program: URL, spec: GraphSpec) throws {
    self.spec = spec
    module = Module(filePath: program.path, loadMode: .mmap)
    try module.load("forward")
  }

  func run(_ inputs: [[Float]]) throws -> [[Float]] {
    let tensors = zip(inputs, spec.inputs).map { Tensor<Float>($0, shape: $1.shape) }
    let outputs: [Tensor<Float>] = try module.forward(tensors)
    // A copy: the output lies in the program's own memory, which the next call overwrites.
    return outputs.map { $0.scalars() }
  }
}

/// A kit's folder: its description, and its programs ready to run.
public final class LoadedKit {
  public let kit: Kit
  public let model: CryModel

  /// The kit that was packed into this library.
  public static var bundled: URL {
    Bundle.module.resourceURL!.appending(path: "kit", directoryHint: .isDirectory)
  }

  /// - Throws: `KitError` where a file is missing or not what the kit was made with.
  public init(folder: URL = LoadedKit.bundled) throws {
    let kit = try Kit(json: Self.read(folder, "kit.json"))
    self.kit = kit
    model = CryModel(
      kit: kit,
      frontend: try Self.open(folder, kit.frontend),
      network: try Self.open(folder, kit.network))
  }

  private static func open(_ folder: URL, _ spec: GraphSpec) throws -> ExecuTorchGraph {
    let program = try read(folder, spec.file)
    let sha256 = SHA256.hash(data: program).map { String(format: "%02x", $0) }.joined()
    guard program.count == spec.bytes, sha256 == spec.sha256 else {
      throw KitError("\(spec.file) was altered: make the kit again with crykit export")
    }
    return try ExecuTorchGraph(program: folder.appending(path: spec.file), spec: spec)
  }

  private static func read(_ folder: URL, _ path: String) throws -> Data {
    do {
      return try Data(contentsOf: folder.appending(path: path), options: .mappedIfSafe)
    } catch {
      throw KitError("the kit has no \(path): make it again with crykit export")
    }
  }
}
