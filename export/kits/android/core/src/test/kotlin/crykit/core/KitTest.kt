package crykit.core

import java.io.ByteArrayInputStream
import java.io.File
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Test

class KitTest {
    private val text = File(kitFolder, "kit.json").readText()
    private val kit = readKit(kitFiles)

    @Test
    fun `says what the model hears and keeps`() {
        assertEquals(1, kit.formatVersion)
        assertEquals("executorch", kit.runtime)
        assertTrue("cry" in kit.labels)
        assertEquals(kit.stepSamples, kit.frontend.inputs.first().size)
        assertTrue(kit.frontend.states.isNotEmpty() && kit.network.states.isNotEmpty())
        assertTrue(kit.network.outputs.any { it.name == "cry_probability" })
    }

    @Test
    fun `its programs are those that it was made with`() {
        for (spec in listOf(kit.frontend, kit.network)) {
            assertEquals(spec.bytes, readProgram(kitFiles, spec).size.toLong())
        }
    }

    @Test
    fun `an altered program is refused before anything parses it`() {
        val altered = KitFiles { path ->
            val bytes = kitFiles.open(path).readBytes()
            bytes[0] = (bytes[0] + 1).toByte()
            ByteArrayInputStream(bytes)
        }
        val error = assertThrows(KitException::class.java) { readProgram(altered, kit.network) }
        assertTrue(error.message!!.contains("altered"))
    }

    @Test
    fun `another format, runtime or type, and what is no kit, are refused in a line`() {
        val cases = listOf(
            "not json" to "kit.json",
            "{}" to "kit.json",
            text.replaceFirst("_version\": 1", "_version\": 2") to "format 1, got 2",
            text.replaceFirst("\"executorch\"", "\"onnx\"") to "got onnx",
            text.replaceFirst("\"float32\"", "\"int8\"") to "is int8",
            text.replaceFirst("\"on_threshold\": 0", "\"on_threshold\": 9") to "thresholds",
        )
        for ((broken, said) in cases) {
            val error = assertThrows(said, KitException::class.java) {
                readKit { broken.byteInputStream() }
            }
            assertTrue("$said: ${error.message}", error.message!!.contains(said))
            assertTrue(error.message!!.lines().size == 1)
        }
    }

    @Test
    fun `states go in as they came out, and start as zeros after a reset`() {
        val seen = mutableListOf<List<Float>>()
        val echo = Graph { inputs ->
            seen += inputs.map { it.first() }
            outputsOf(kit.frontend) { spec -> if (spec.name.endsWith("_next")) 7f else 1f }
        }
        val graph = StreamingGraph(kit.frontend, echo)
        val data = mapOf(kit.frontend.inputs.first().name to FloatArray(kit.stepSamples) { 3f })
        val states = kit.frontend.states.size
        assertEquals(kit.frontend.outputs.size - states, graph.step(data).size)
        graph.step(data)
        graph.reset()
        graph.step(data)
        assertEquals(List(states) { 0f }, seen[0].drop(1))
        assertEquals(List(states) { 7f }, seen[1].drop(1))
        assertEquals(seen[0], seen[2])
    }

    @Test
    fun `a graph that takes or gives something else is refused`() {
        val zeros = Graph { outputsOf(kit.frontend) { 0f } }
        val graph = StreamingGraph(kit.frontend, zeros)
        val name = kit.frontend.inputs.first().name
        assertThrows(KitException::class.java) { graph.step(emptyMap()) }
        assertThrows(KitException::class.java) { graph.step(mapOf(name to FloatArray(3))) }
        val silent = StreamingGraph(kit.frontend) { emptyList() }
        assertThrows(KitException::class.java) {
            silent.step(mapOf(name to FloatArray(kit.stepSamples)))
        }
    }

    @Test
    fun `front end and network make one model`() {
        val model = CryModel(
            kit,
            { outputsOf(kit.frontend) { 0.25f } },
            { inputs -> outputsOf(kit.network) { inputs.first().first() } },
        )
        val probabilities = model.step(FloatArray(kit.stepSamples))
        assertEquals(List(kit.framesPerStep) { 0.25f }, probabilities.toList())
    }

    private fun outputsOf(spec: GraphSpec, value: (TensorSpec) -> Float) =
        spec.outputs.map { tensor -> FloatArray(tensor.size) { value(tensor) } }
}
