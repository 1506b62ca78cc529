// The kit under test, and its golden files as typed data.

import Foundation
import XCTest

@testable import CryKitCore

enum TestKit {
  /// `Sources/CryKit/Resources/kit`, beside these sources.
  static let folder = URL(fileURLWithPath: #filePath)
    .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
    .appendingPathComponent("Sources/CryKit/Resources/kit")

  static func data(_ path: String) throws -> Data {
    try Data(contentsOf: folder.appendingPathComponent(path))
  }

  static func kit() throws -> Kit { try Kit(json: data("kit.json")) }

  static func vectors() throws -> Vectors {
    try kitDecoder.decode(Vectors.self, from: data(kit().golden.gateVectors))
  }

  static func expected() throws -> Expected {
    try kitDecoder.decode(Expected.self, from: data(kit().golden.expected))
  }

  /// The samples of the golden audio, 16-bit mono PCM, in -1...1.
  static func audio() throws -> [Float] {
    let bytes = [UInt8](try data(kit().golden.audio))
    func integer(_ at: Int, _ size: Int) -> Int {
      (0..<size).reduce(0) { $0 | Int(bytes[at + $1]) << (8 * $1) }
    }
    var at = 12
    while bytes[at..<at + 4].elementsEqual("data".utf8) == false { at += 8 + integer(at + 4, 4) }
    return (0..<integer(at + 4, 4) / 2).map {
      Float(Int16(truncatingIfNeeded: integer(at + 8 + 2 * $0, 2))) / 32768
    }
  }
}

struct Change: Decodable {
  let type: String
  let onsetSample: Int
  let detectedSample: Int?
  let offsetSample: Int?
  let peakProbability: Double
  let meanProbability: Double?
  let levelDbfs: Double?
}

struct Vector: Decodable {
  let shows: [String]?
  let settings: GateSettings
  let frameSamples: Int
  let sampleRateHz: Int
  let firstSample: Int
  let probabilities: [Double]
  let levelsDbfs: [Double]
  let found: [Change]
}

struct Vectors: Decodable {
  let formatVersion: Int
  let vectors: [Vector]
}

struct ExpectedEvent: Decodable {
  let onsetSample: Int
  let offsetSample: Int
  let detectedSample: Int
  let peakProbability: Double
  let meanProbability: Double
  let levelDbfs: Double
}

struct Expected: Decodable {
  let sampleRateHz: Int
  let frameSamples: Int
  let cryProbability: [Double]
  let levelDbfs: [Double]
  let events: [ExpectedEvent]
}

/// A model that says what it was told to say, a step at a time.
final class Recorded: StepModel {
  private let probabilities: [Double]
  private let framesPerStep: Int
  private var at = 0

  init(_ probabilities: [Double], framesPerStep: Int) {
    self.probabilities = probabilities
    self.framesPerStep = framesPerStep
  }

  func reset() { at = 0 }

  func step(_ samples: [Float]) -> [Float] {
    defer { at += framesPerStep }
    return (at..<at + framesPerStep).map {
      $0 < probabilities.count ? Float(probabilities[$0]) : 0
    }
  }
}
