// Microphone -> ring -> listener -> snapshots, on a thread of its own.
package crykit.phone

import android.content.Context
import crykit.core.FrameBlock
import crykit.core.GateChange
import crykit.core.GateClosed
import crykit.core.GateOpened
import crykit.core.Kit
import crykit.core.Listener
import crykit.core.SampleRing
import crykit.core.SignalWatch
import kotlin.concurrent.thread

/** Listens until [close]. [publish] is called several times a second, on the engine's thread. */
class ListenEngine(
    private val context: Context,
    private val publish: (Snapshot) -> Unit,
) : AutoCloseable {
    @Volatile private var running = true
    private var snapshot = Snapshot(Phase.STARTING, cries = Session.snapshot.cries)
    private val worker = thread(name = "listener") { runUntilClosed() }

    override fun close() {
        running = false
        worker.join()
    }

    private fun runUntilClosed() {
        publish(snapshot)
        try {
            LoadedKit(context).use(::listen)
        } catch (error: Exception) {
            fail(error)
        } catch (error: LinkageError) { // no native library for this processor
            fail(error)
        }
    }

    private fun fail(error: Throwable) {
        publish(snapshot.copy(trouble = Trouble(R.string.trouble_model, error.message ?: "$error")))
    }

    private fun listen(loaded: LoadedKit) {
        val kit = loaded.kit
        val ring = SampleRing(RING_SECONDS * kit.sampleRateHz)
        val watch = SignalWatch(kit.sampleRateHz)
        val listener = Listener(loaded.model, kit.newGate(), kit.stepSamples, ::hear)
        Microphone(context, kit.sampleRateHz, ring).use { microphone ->
            val block = FloatArray(kit.stepSamples)
            var startedAtMs = 0L
            var heardNs = System.nanoTime()
            var missed: Trouble? = null
            var missedNs = 0L
            while (running) {
                val read = ring.read(block, waitMs = 500)
                if (read.count > 0) heardNs = System.nanoTime()
                if (startedAtMs == 0L && read.count > 0) startedAtMs = System.currentTimeMillis()
                if (read.lostBefore > 0) {
                    note(listener.skip(read.lostBefore), kit, startedAtMs)
                    watch.reset()
                    val seconds = read.lostBefore / kit.sampleRateHz + 1
                    missed = Trouble(R.string.trouble_missed, seconds)
                    missedNs = System.nanoTime()
                }
                watch.hear(block, read.count)
                note(listener.feed(block, read.count), kit, startedAtMs)
                snapshot = snapshot.copy(
                    phase = if (listener.isCrying) Phase.CRYING else Phase.QUIET,
                    trouble = when {
                        microphone.isSilenced -> Trouble(R.string.trouble_silenced)
                        microphone.isDown || System.nanoTime() - heardNs > SILENT_DRIVER_NS ->
                            Trouble(R.string.trouble_stopped)
                        watch.isFlat -> Trouble(R.string.trouble_flat)
                        System.nanoTime() - missedNs < SHOW_MISSED_NS -> missed
                        else -> null
                    },
                )
                publish(snapshot)
            }
            note(listener.flush(), kit, startedAtMs)
            publish(snapshot)
        }
    }

    private fun hear(block: FrameBlock) {
        snapshot = snapshot.copy(
            probability = block.cryProbability.last(),
            levelDbfs = block.levelDbfs.last(),
        )
    }

    /** Bring the list of cries up to date; sample clocks become times of day. */
    private fun note(changes: List<GateChange>, kit: Kit, startedAtMs: Long) {
        fun timeOf(sample: Long) = startedAtMs + sample * 1000 / kit.sampleRateHz
        for (change in changes) {
            val cries = when (change) {
                is GateOpened -> listOf(HeardCry(timeOf(change.onsetSample))) + snapshot.cries
                is GateClosed -> {
                    val whole = HeardCry(timeOf(change.onsetSample), timeOf(change.offsetSample))
                    listOf(whole) + snapshot.cries.drop(1)
                }
            }
            snapshot = snapshot.copy(cries = cries.take(MAX_CRIES))
        }
    }

    private companion object {
        const val RING_SECONDS = 10 // how long the engine may stall before sound is lost
        const val SILENT_DRIVER_NS = 3_000_000_000L
        const val SHOW_MISSED_NS = 60_000_000_000L
        const val MAX_CRIES = 100
    }
}
