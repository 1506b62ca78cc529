// Sound in, cries out: a plain translation of crykit/listener.py.
package crykit.core

import kotlin.math.abs
import kotlin.math.ceil
import kotlin.math.log10
import kotlin.math.max
import kotlin.math.min
import kotlin.math.pow

/** What one step heard and said: one probability and one level a frame. */
class FrameBlock(
    val firstSample: Long,
    val cryProbability: DoubleArray,
    val levelDbfs: DoubleArray,
)

/**
 * Feeds sound of any length through a model and a gate. What comes out depends on the samples
 * alone, never on how they were cut.
 *
 * @param onFrames called with every step's [FrameBlock], on the thread that feeds.
 */
class Listener(
    private val model: StepModel,
    private val gate: EventGate,
    private val stepSamples: Int,
    private val onFrames: (FrameBlock) -> Unit = {},
) {
    private val pending = FloatArray(stepSamples)
    private var filled = 0

    /** Samples heard and scored, padding excluded. */
    var clockSample = gate.clockSample
        private set

    val isCrying get() = gate.isOpen

    /** Start a new stream whose first sample has the clock [firstSample]. */
    fun reset(firstSample: Long = 0) {
        model.reset()
        gate.reset(firstSample)
        clockSample = firstSample
        filled = 0
    }

    /** Take [count] samples, mono in -1..1 at the kit's rate, and return what became known. */
    fun feed(samples: FloatArray, count: Int = samples.size): List<GateChange> = buildList {
        var start = 0
        while (start < count) {
            val taken = min(stepSamples - filled, count - start)
            for (i in start until start + taken) {
                require(abs(samples[i]) <= MAX_AMPLITUDE) { "not a sample: ${samples[i]}" }
            }
            samples.copyInto(pending, filled, start, start + taken)
            filled += taken
            start += taken
            if (filled == stepSamples) {
                filled = 0
                addAll(step(stepSamples))
            }
        }
    }

    /**
     * The stream ends: score the rest, led out by zeros, and close an open cry. Only frames that
     * were heard in full reach the gate, so no event outlasts the sound.
     */
    fun flush(): List<GateChange> = buildList {
        if (filled > 0) {
            pending.fill(0f, filled)
            addAll(step(filled))
            filled = 0
        }
        addAll(gate.flush())
    }

    /**
     * [lostSamples] are missing here: what follows is another stream. Closes what was open, starts
     * anew, and keeps the clock right.
     */
    fun skip(lostSamples: Long): List<GateChange> {
        val found = flush()
        reset(clockSample + lostSamples)
        return found
    }

    private fun step(heard: Int): List<GateChange> {
        val frame = gate.frameSamples
        val kept = ceil(heard.toDouble() / frame).toInt()
        val probabilities = model.step(pending)
        val block = FrameBlock(
            clockSample,
            DoubleArray(kept) { probabilities[it].toDouble() },
            DoubleArray(kept) { levelDbfs(pending, it * frame, frame) },
        )
        clockSample += heard
        onFrames(block)
        val whole = heard / frame
        return gate.feed(block.cryProbability.copyOf(whole), block.levelDbfs.copyOf(whole))
    }

    private companion object {
        /** Full scale is 1; a NaN fails the comparison as well. */
        const val MAX_AMPLITUDE = 1e6f
    }
}

/** Root-mean-square level in dB of full scale: a sine that just reaches it reads -3. */
fun levelDbfs(samples: FloatArray, start: Int = 0, count: Int = samples.size): Double {
    var power = 0.0
    for (i in start until start + count) power += samples[i].toDouble() * samples[i]
    return 10.0 * log10(max(power / count, 10.0.pow(SILENCE_DBFS / 10.0)))
}
