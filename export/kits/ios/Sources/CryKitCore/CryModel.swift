// The two programs of a kit as one model that hears a step at a time and keeps its states.

/// A program: flat float32 tensors in and out, in the order of its `GraphSpec`.
public protocol Graph {
  func run(_ inputs: [[Float]]) throws -> [[Float]]
}

/// What the `Listener` needs of a model.
public protocol StepModel: AnyObject {
  /// Forget the stream: states are zeros again.
  func reset()

  /// Hear one step of samples and give one cry probability for each of its frames.
  func step(_ samples: [Float]) throws -> [Float]
}

/// A graph whose states are kept from call to call; names and shapes come from the kit.
public final class StreamingGraph {
  private let spec: GraphSpec
  private let graph: Graph
  private let states: [TensorSpec]
  private var held: [String: [Float]] = [:]

  public init(spec: GraphSpec, graph: Graph) {
    self.spec = spec
    self.graph = graph
    states = spec.states
    reset()
  }

  public func reset() {
    for state in states { held[state.name] = [Float](repeating: 0, count: state.size) }
  }

  /// Everything that the graph gives but its states, by name.
  public func step(_ data: [String: [Float]]) throws -> [String: [Float]] {
    let inputs = try spec.inputs.map { input -> [Float] in
      guard let tensor = held[input.name] ?? data[input.name] else {
        throw KitError("\(spec.file) wants \(input.name), which nothing gives")
      }
      guard tensor.count == input.size else {
        throw KitError("\(input.name): expected \(input.size) numbers, got \(tensor.count)")
      }
      return tensor
    }
    let outputs = try graph.run(inputs)
    guard outputs.count == spec.outputs.count else {
      throw KitError("\(spec.file) gives \(outputs.count) tensors, not \(spec.outputs.count)")
    }
    var byName = Dictionary(uniqueKeysWithValues: zip(spec.outputs.map(\.name), outputs))
    for state in states { held[state.name] = byName.removeValue(forKey: "\(state.name)_next") }
    return byName
  }
}

/// Front end and network, samples to probabilities.
public final class CryModel: StepModel {
  private let frontend: StreamingGraph
  private let network: StreamingGraph
  private let samplesName: String

  public init(kit: Kit, frontend: Graph, network: Graph) {
    self.frontend = StreamingGraph(spec: kit.frontend, graph: frontend)
    self.network = StreamingGraph(spec: kit.network, graph: network)
    samplesName = kit.frontend.inputs[0].name
  }

  public func reset() {
    frontend.reset()
    network.reset()
  }

  public func step(_ samples: [Float]) throws -> [Float] {
    let features = try frontend.step([samplesName: samples])
    guard let probability = try network.step(features)["cry_probability"] else {
      throw KitError("the network gives no cry_probability")
    }
    return probability
  }
}
