// The Android kit's listener on the JVM, while its two programs run at the other end of the pipes.
//
// Out: the number of a program and its inputs, again and again; then -1, and JSON of what was heard.
// In: that program's outputs. Numbers are big-endian.
package crykit.piped

import crykit.core.CryModel
import crykit.core.GateClosed
import crykit.core.Graph
import crykit.core.GraphSpec
import crykit.core.Listener
import crykit.core.kitFiles
import crykit.core.kitFolder
import crykit.core.readKit
import crykit.core.readProgram
import crykit.core.readWav
import java.io.DataInputStream
import java.io.DataOutputStream
import java.io.File

private val answers = DataInputStream(System.`in`.buffered())
private val requests = DataOutputStream(System.out.buffered())

private fun piped(number: Int, spec: GraphSpec): Graph {
    readProgram(kitFiles, spec)
    return Graph { inputs ->
        requests.writeInt(number)
        for (tensor in inputs) for (value in tensor) requests.writeFloat(value)
        requests.flush()
        spec.outputs.map { output -> FloatArray(output.size) { answers.readFloat() } }
    }
}

fun main() {
    val kit = readKit(kitFiles)
    val model = CryModel(kit, piped(0, kit.frontend), piped(1, kit.network))
    val probabilities = mutableListOf<Double>()
    val listener = Listener(model, kit.newGate(), kit.stepSamples) { block ->
        probabilities += block.cryProbability.toList()
    }
    val audio = readWav(File(kitFolder, kit.golden.audio))
    val found = listener.feed(audio) + listener.flush()
    val events = found.filterIsInstance<GateClosed>().map { listOf(it.onsetSample, it.offsetSample) }
    requests.writeInt(-1)
    requests.writeBytes("""{"cry_probability": $probabilities, "events": $events}""")
    requests.flush()
}
