// The microphone, as raw as the phone gives it.
package crykit.phone

import android.annotation.SuppressLint
import android.content.Context
import android.media.AudioFormat
import android.media.AudioManager
import android.media.AudioRecord
import android.media.MediaRecorder.AudioSource
import crykit.core.SampleRing
import kotlin.concurrent.thread
import kotlin.math.max

/**
 * Records mono float samples into a [SampleRing] on a thread of its own until [close].
 *
 * The unprocessed source where the phone has one, else that for speech recognition, for which
 * Android demands that gain control and noise suppression are off: both take a cry for noise. The
 * caller holds RECORD_AUDIO.
 */
class Microphone(
    context: Context,
    private val sampleRateHz: Int,
    private val ring: SampleRing,
) : AutoCloseable {
    private val source = sourceOf(context.getSystemService(AudioManager::class.java))
    @Volatile private var running = true

    /** Whether the driver has given up for now; it is opened again every second. */
    @Volatile var isDown = false
        private set

    /** Whether Android gives this app silence because another one took the microphone. */
    @Volatile var isSilenced = false
        private set

    private val worker = thread(name = "microphone") { recordUntilClosed() }

    override fun close() {
        running = false
        worker.join()
    }

    private fun recordUntilClosed() {
        var heardNs = 0L // when sound last came; 0 before any did
        while (running) {
            runCatching { open() }.getOrNull()?.let { record ->
                try {
                    heardNs = copy(record, heardNs)
                } finally {
                    record.release()
                }
            }
            if (!running) return
            isDown = true
            Thread.sleep(RETRY_MS)
        }
    }

    /** Fill the ring until the driver gives up; returns when sound last came. */
    private fun copy(record: AudioRecord, lastHeardNs: Long): Long {
        val block = FloatArray(sampleRateHz / BLOCKS_PER_SECOND)
        var heardNs = lastHeardNs
        var blocks = 0
        record.startRecording()
        while (running) {
            val count = record.read(block, 0, block.size, AudioRecord.READ_BLOCKING)
            if (count <= 0) break // the driver died, or something took the device away
            val nowNs = System.nanoTime()
            if (isDown && heardNs != 0L) {
                ring.countLost((nowNs - heardNs) / 1000 * sampleRateHz / 1_000_000 - count)
            }
            isDown = false
            heardNs = nowNs
            ring.write(block, count)
            if (blocks++ % BLOCKS_PER_SECOND == 0) {
                isSilenced = record.activeRecordingConfiguration?.isClientSilenced == true
            }
        }
        return heardNs
    }

    @SuppressLint("MissingPermission") // ListenService is started with it
    private fun open(): AudioRecord {
        val format = AudioFormat.Builder()
            .setSampleRate(sampleRateHz)
            .setChannelMask(AudioFormat.CHANNEL_IN_MONO)
            .setEncoding(AudioFormat.ENCODING_PCM_FLOAT)
            .build()
        val smallest = AudioRecord.getMinBufferSize(
            sampleRateHz, AudioFormat.CHANNEL_IN_MONO, AudioFormat.ENCODING_PCM_FLOAT,
        )
        return AudioRecord.Builder()
            .setAudioSource(source)
            .setAudioFormat(format)
            .setBufferSizeInBytes(max(smallest, sampleRateHz * Float.SIZE_BYTES)) // a second
            .build()
    }

    private fun sourceOf(manager: AudioManager): Int {
        val raw = manager.getProperty(AudioManager.PROPERTY_SUPPORT_AUDIO_SOURCE_UNPROCESSED)
        return if (raw.toBoolean()) AudioSource.UNPROCESSED else AudioSource.VOICE_RECOGNITION
    }

    private companion object {
        const val BLOCKS_PER_SECOND = 25
        const val RETRY_MS = 1000L
    }
}
