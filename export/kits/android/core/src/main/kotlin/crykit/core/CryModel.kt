// The two programs of a kit as one model that hears a step at a time and keeps its states.
package crykit.core

/** A program: flat float32 tensors in and out, in the order of its [GraphSpec]. */
fun interface Graph {
    fun run(inputs: List<FloatArray>): List<FloatArray>
}

/** What the [Listener] needs of a model. */
interface StepModel {
    /** Forget the stream: states are zeros again. */
    fun reset()

    /** Hear one step of samples and give one cry probability for each of its frames. */
    fun step(samples: FloatArray): FloatArray
}

/** A graph whose states are kept from call to call; names and shapes come from the kit. */
class StreamingGraph(private val spec: GraphSpec, private val graph: Graph) {
    private val states = spec.states
    private val held = mutableMapOf<String, FloatArray>()

    init {
        reset()
    }

    fun reset() {
        for (state in states) held[state.name] = FloatArray(state.size)
    }

    /** Everything that the graph gives but its states, by name. */
    fun step(data: Map<String, FloatArray>): Map<String, FloatArray> {
        val inputs = spec.inputs.map { input ->
            val tensor = held[input.name] ?: data[input.name]
                ?: throw KitException("${spec.file} wants ${input.name}, which nothing gives")
            if (tensor.size != input.size) {
                throw KitException("${input.name}: expected ${input.size}, got ${tensor.size}")
            }
            tensor
        }
        val outputs = graph.run(inputs)
        if (outputs.size != spec.outputs.size) {
            throw KitException("${spec.file} gives ${outputs.size}, not ${spec.outputs.size}")
        }
        val byName = spec.outputs.map { it.name }.zip(outputs).toMap()
        for (state in states) held[state.name] = byName.getValue("${state.name}_next")
        return byName - states.map { "${it.name}_next" }.toSet()
    }
}

/** Front end and network, samples to probabilities. */
class CryModel(kit: Kit, frontend: Graph, network: Graph) : StepModel {
    private val frontend = StreamingGraph(kit.frontend, frontend)
    private val network = StreamingGraph(kit.network, network)
    private val samplesName = kit.frontend.inputs.first().name

    override fun reset() {
        frontend.reset()
        network.reset()
    }

    override fun step(samples: FloatArray): FloatArray {
        val features = frontend.step(mapOf(samplesName to samples))
        return network.step(features).getValue("cry_probability")
    }
}
