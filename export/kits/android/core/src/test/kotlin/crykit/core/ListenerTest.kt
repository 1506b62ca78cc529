package crykit.core

import java.io.File
import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Test

private const val CLOSE = 1e-4 // expected.json is rounded, levels are summed in another order

class ListenerTest {
    private val kit = readKit(kitFiles)
    private val expected = golden<Expected>(kit.golden.expected)
    private val audio = readWav(File(kitFolder, kit.golden.audio))

    @Test
    fun `the expected probabilities make the expected events`() {
        val gate = kit.newGate()
        val found = gate.feed(
            expected.cryProbability.toDoubleArray(), expected.levelDbfs.toDoubleArray(),
        ) + gate.flush()
        compare(found)
    }

    @Test
    fun `the golden audio makes the expected levels and events, however it is cut`() {
        assertTrue(expected.events.isNotEmpty())
        for (chunk in listOf(audio.size, kit.stepSamples, 1, 317, kit.stepSamples + 1)) {
            val levels = mutableListOf<Double>()
            val listener = listener { block -> levels += block.levelDbfs.toList() }
            val found = cut(chunk).flatMap { listener.feed(it) } + listener.flush()
            compare(found)
            assertEquals(audio.size.toLong(), listener.clockSample)
            assertArrayEquals(expected.levelDbfs.toDoubleArray(), levels.toDoubleArray(), 0.001)
        }
    }

    @Test
    fun `a later clock moves every event by as much`() {
        val listener = listener()
        listener.reset(1_000_000)
        val found = listener.feed(audio) + listener.flush()
        val onsets = found.filterIsInstance<GateClosed>().map { it.onsetSample - 1_000_000 }
        assertEquals(expected.events.map { it.onsetSample }, onsets)
    }

    @Test
    fun `a rest that is no step is heard, and no event outlasts the sound`() {
        val always = Recorded(List(1000) { 1.0 }, kit.framesPerStep)
        val listener = Listener(always, kit.newGate(), kit.stepSamples)
        val length = 16 * kit.stepSamples + kit.frameSamples + 7
        val found = listener.feed(FloatArray(length)) + listener.flush()
        val end = (found.single { it is GateClosed } as GateClosed).offsetSample
        assertEquals((16L * kit.framesPerStep + 1) * kit.frameSamples, end)
    }

    @Test
    fun `where sound is missing a cry is closed and the clock goes on`() {
        val always = Recorded(List(1000) { 1.0 }, kit.framesPerStep)
        val listener = Listener(always, kit.newGate(), kit.stepSamples)
        val length = 16 * kit.stepSamples
        val first = listener.feed(FloatArray(length)) + listener.skip(5_000)
        assertEquals(length + 5_000L, listener.clockSample)
        val second = listener.feed(FloatArray(length)) + listener.flush()
        assertEquals(listOf(0L), first.filterIsInstance<GateClosed>().map { it.onsetSample })
        assertEquals(
            listOf(length + 5_000L), second.filterIsInstance<GateClosed>().map { it.onsetSample },
        )
    }

    @Test
    fun `what is no sample is refused`() {
        for (bad in listOf(Float.NaN, Float.POSITIVE_INFINITY, 2e6f)) {
            assertThrows(IllegalArgumentException::class.java) {
                listener().feed(floatArrayOf(0f, bad))
            }
        }
    }

    @Test
    fun `levels are those of a sine and of silence`() {
        val sine = FloatArray(16_000) { kotlin.math.sin(0.1 * it).toFloat() }
        assertEquals(-3.01, levelDbfs(sine), 0.01)
        assertEquals(SILENCE_DBFS, levelDbfs(FloatArray(640)), 0.0)
    }

    private fun listener(onFrames: (FrameBlock) -> Unit = {}) = Listener(
        Recorded(expected.cryProbability, kit.framesPerStep),
        kit.newGate(),
        kit.stepSamples,
        onFrames,
    )

    private fun cut(chunk: Int) =
        (audio.indices step chunk).map { audio.copyOfRange(it, minOf(it + chunk, audio.size)) }

    private fun compare(found: List<GateChange>) {
        val closed = found.filterIsInstance<GateClosed>()
        val opened = found.filterIsInstance<GateOpened>()
        assertEquals(expected.events.map { it.onsetSample }, closed.map { it.onsetSample })
        assertEquals(expected.events.map { it.offsetSample }, closed.map { it.offsetSample })
        assertEquals(expected.events.map { it.detectedSample }, opened.map { it.detectedSample })
        for ((wanted, got) in expected.events.zip(closed)) {
            assertEquals(wanted.peakProbability, got.peakProbability, CLOSE)
            assertEquals(wanted.meanProbability, got.meanProbability, CLOSE)
            assertEquals(wanted.levelDbfs, got.levelDbfs, 0.001)
        }
    }
}
