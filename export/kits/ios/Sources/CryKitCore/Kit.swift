// The kit's own description, as typed data: what kit.json says of the model beside it.

import Foundation

/// Something that cannot be used; the message says what was expected and what came.
public struct KitError: LocalizedError, Equatable {
  public let message: String
  public var errorDescription: String? { message }

  public init(_ message: String) {
    self.message = message
  }
}

public struct TensorSpec: Codable, Equatable, Sendable {
  public let name: String
  public let shape: [Int]
  public let dtype: String
  public var size: Int { shape.reduce(1, *) }
}

/// A program and its tensors in order. A state goes in as `x` and comes out as `x_next`.
public struct GraphSpec: Codable, Sendable {
  public let file: String
  public let sha256: String
  public let bytes: Int
  public let inputs: [TensorSpec]
  public let outputs: [TensorSpec]

  public var states: [TensorSpec] {
    inputs.filter { state in outputs.contains { $0.name == "\(state.name)_next" } }
  }
}

public struct GoldenFiles: Codable, Sendable {
  public let audio: String
  public let expected: String
  public let gateVectors: String
}

public struct Kit: Codable, Sendable {
  public let formatVersion: Int
  public let modelId: String
  public let name: String
  public let licence: String
  public let labels: [String]
  public let sampleRateHz: Int
  public let frameSamples: Int
  public let stepSamples: Int
  public let latencySamples: Int
  public let runtime: String
  public let precision: String
  public let frontend: GraphSpec
  public let network: GraphSpec
  public let gate: GateSettings
  public let golden: GoldenFiles

  public var framesPerStep: Int { stepSamples / frameSamples }

  public func makeGate(firstSample: Int = 0) -> EventGate {
    EventGate(
      settings: gate, frameSamples: frameSamples, sampleRateHz: sampleRateHz,
      firstSample: firstSample)
  }

  /// Reads `kit.json`.
  ///
  /// - Throws: `KitError` where it is not of this format, or not for this runtime.
  public init(json: Data) throws {
    do {
      self = try kitDecoder.decode(Kit.self, from: json)
    } catch {
      throw KitError("kit.json is not a kit's: \(error)")
    }
    guard formatVersion == 1 else {
      throw KitError("expected a kit of format 1, got \(formatVersion)")
    }
    guard runtime == "executorch" else { throw KitError("expected executorch, got \(runtime)") }
    guard frameSamples > 0, stepSamples > 0, stepSamples % frameSamples == 0 else {
      throw KitError("a step of \(stepSamples) is no number of frames of \(frameSamples)")
    }
    for graph in [frontend, network] {
      for tensor in graph.inputs + graph.outputs where tensor.dtype != "float32" {
        throw KitError("\(tensor.name) is \(tensor.dtype)")
      }
    }
    try gate.check()
  }
}

/// Reads the kit's files: snake_case becomes camelCase, what is not known is left out.
public let kitDecoder: JSONDecoder = {
  let decoder = JSONDecoder()
  decoder.keyDecodingStrategy = .convertFromSnakeCase
  return decoder
}()
