package crykit.core

import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Test

private const val EXACT = 1e-9

class EventGateTest {
    private val kit = readKit(kitFiles)
    private val vectors = golden<Vectors>(kit.golden.gateVectors)

    @Test
    fun `does what the Python gate does`() {
        assertEquals(1, vectors.formatVersion)
        assertTrue(vectors.vectors.size >= 60)
        vectors.vectors.forEachIndexed { index, vector ->
            val gate = gateOf(vector)
            val found = gate.feed(
                vector.probabilities.toDoubleArray(), vector.levelsDbfs.toDoubleArray(),
            ) + gate.flush()
            compare("vector $index ${vector.shows}", vector.found, found)
        }
    }

    @Test
    fun `does the same frame by frame, and again after a reset`() {
        for (vector in vectors.vectors) {
            val gate = gateOf(vector)
            repeat(2) {
                gate.reset(vector.firstSample)
                val found = vector.probabilities.indices.flatMap {
                    gate.feed(
                        doubleArrayOf(vector.probabilities[it]),
                        doubleArrayOf(vector.levelsDbfs[it]),
                    )
                } + gate.flush()
                compare("frame by frame ${vector.shows}", vector.found, found)
                assertFalse(gate.isOpen)
            }
        }
    }

    @Test
    fun `refuses what is no probability, and settings that make no sense`() {
        val gate = kit.newGate()
        assertThrows(IllegalArgumentException::class.java) {
            gate.feed(doubleArrayOf(Double.NaN), doubleArrayOf(-30.0))
        }
        assertThrows(IllegalArgumentException::class.java) {
            gate.feed(doubleArrayOf(0.5), doubleArrayOf())
        }
        assertThrows(IllegalArgumentException::class.java) {
            kit.gate.copy(offThreshold = 0.9, onThreshold = 0.5)
        }
        assertThrows(IllegalArgumentException::class.java) { kit.gate.copy(minOnMs = -1.0) }
    }

    private fun gateOf(vector: Vector) =
        EventGate(vector.settings, vector.frameSamples, vector.sampleRateHz, vector.firstSample)

    private fun compare(what: String, expected: List<Change>, found: List<GateChange>) {
        assertEquals(what, expected.size, found.size)
        for ((wanted, got) in expected.zip(found)) {
            when (got) {
                is GateOpened -> {
                    assertEquals(what, "opened", wanted.type)
                    assertEquals(what, wanted.onsetSample, got.onsetSample)
                    assertEquals(what, wanted.detectedSample, got.detectedSample)
                    assertEquals(what, wanted.peakProbability, got.peakProbability, EXACT)
                }
                is GateClosed -> {
                    assertEquals(what, "closed", wanted.type)
                    assertEquals(what, wanted.onsetSample, got.onsetSample)
                    assertEquals(what, wanted.offsetSample, got.offsetSample)
                    assertEquals(what, wanted.peakProbability, got.peakProbability, EXACT)
                    assertEquals(what, wanted.meanProbability, got.meanProbability, EXACT)
                    assertEquals(what, wanted.levelDbfs, got.levelDbfs, EXACT)
                }
            }
        }
    }
}
