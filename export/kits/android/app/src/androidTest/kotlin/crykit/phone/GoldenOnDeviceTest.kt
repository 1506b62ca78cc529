package crykit.phone

import androidx.test.ext.junit.runners.AndroidJUnit4
import androidx.test.platform.app.InstrumentationRegistry
import crykit.core.FrameBlock
import crykit.core.GateClosed
import crykit.core.Listener
import java.nio.ByteBuffer
import java.nio.ByteOrder
import kotlin.math.abs
import org.json.JSONObject
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Test
import org.junit.runner.RunWith

/** The programs on this very phone: golden audio must give what it gave the kit's maker. */
@RunWith(AndroidJUnit4::class)
class GoldenOnDeviceTest {
    private val context = InstrumentationRegistry.getInstrumentation().targetContext
    private val files = assetKit(context)

    @Test
    fun goldenAudioGivesTheExpectedProbabilitiesAndEvents() {
        LoadedKit(context).use { loaded ->
            val kit = loaded.kit
            val expected = JSONObject(text(kit.golden.expected))
            val wanted = expected.getJSONArray("cry_probability")
            val tolerance = expected.getJSONObject("tolerance").getDouble("cry_probability_max_abs")
            val blocks = mutableListOf<FrameBlock>()
            val listener = Listener(loaded.model, kit.newGate(), kit.stepSamples) { blocks += it }
            val audio = wav(bytes(kit.golden.audio))
            val startedNs = System.nanoTime()
            val found = listener.feed(audio) + listener.flush()
            val tookMs = (System.nanoTime() - startedNs) / 1e6
            val seconds = audio.size.toDouble() / kit.sampleRateHz
            println("crykit: ${tookMs / seconds} ms for a second of sound")

            val heard = blocks.flatMap { it.cryProbability.toList() }
            assertEquals(wanted.length(), heard.size)
            heard.forEachIndexed { j, got ->
                assertEquals("frame $j", wanted.getDouble(j), got, tolerance)
            }

            // Within the tolerance a threshold may be crossed a step earlier or later.
            val events = expected.getJSONArray("events")
            val closed = found.filterIsInstance<GateClosed>()
            assertEquals(events.length(), closed.size)
            closed.forEachIndexed { i, got ->
                val onset = events.getJSONObject(i).getLong("onset_sample")
                val offset = events.getJSONObject(i).getLong("offset_sample")
                assertTrue("onset $i", abs(onset - got.onsetSample) <= kit.stepSamples)
                assertTrue("offset $i", abs(offset - got.offsetSample) <= kit.stepSamples)
            }
        }
    }

    private fun bytes(path: String) = files.open(path).use { it.readBytes() }

    private fun text(path: String) = bytes(path).decodeToString()

    private fun wav(bytes: ByteArray): FloatArray {
        val data = ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN)
        var at = 12
        while (String(bytes, at, 4) != "data") at += 8 + data.getInt(at + 4)
        return FloatArray(data.getInt(at + 4) / 2) { data.getShort(at + 8 + 2 * it) / 32768f }
    }
}
