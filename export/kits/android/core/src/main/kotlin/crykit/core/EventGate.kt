// From frame probabilities to events: a plain translation of crykit/gate.py, held to it by
// golden/gate_vectors.json. The clock is an integer count of samples; frame j covers samples
// j * n until (j + 1) * n.
package crykit.core

import kotlin.math.ceil
import kotlin.math.exp
import kotlin.math.log10
import kotlin.math.max
import kotlin.math.pow

private class Frame(val probability: Double, val power: Double)

/** Statistics of consecutive frames from [onset], in samples. */
private class Span(val onset: Long) {
    var offset = onset
    var frames = 0
    var total = 0.0
    var power = 0.0
    var peak = 0.0

    fun add(frame: Frame, frameSamples: Int) {
        offset += frameSamples
        frames += 1
        total += frame.probability
        power += frame.power
        peak = max(peak, frame.probability)
    }

    /** Append a span that begins where this one ends. */
    fun extend(other: Span) {
        offset = other.offset
        frames += other.frames
        total += other.total
        power += other.power
        peak = max(peak, other.peak)
    }
}

/**
 * Hysteresis over a stream of frame probabilities.
 *
 * Events come out in order, never overlap, and are never shorter than `minOnMs`. How the frames are
 * cut into calls of [feed] makes no difference. The onset is walked back from the first frame over
 * the on threshold to where the probability rose over the off threshold, by `minOnMs` at most.
 */
class EventGate(
    private val settings: GateSettings,
    val frameSamples: Int,
    private val sampleRateHz: Int,
    firstSample: Long = 0,
) {
    private val minOn = samples(settings.minOnMs)
    private val minOff = samples(settings.minOffMs)
    private val mergeGap = samples(settings.mergeGapMs)
    private val walkBack = ceil(minOn.toDouble() / frameSamples).toInt()
    private val follow = settings.smoothingMs.let { tau ->
        if (tau > 0.0) 1.0 - exp(-1000.0 * frameSamples / sampleRateHz / tau) else 1.0
    }

    private var smoothed: Double? = null
    private val rise = ArrayDeque<Frame>()
    private var run: Span? = null // over the thresholds now, or within minOff of it
    private var gap: Span? = null // frames since, which belong to the run if it goes on
    private var event: Span? = null // opened, not yet closed
    private var between: Span? = null // frames after the event, before the next run

    /** End of the last frame fed, in samples. */
    var clockSample = firstSample
        private set

    /** Whether an event has been opened and not yet closed. */
    val isOpen get() = event != null

    /** Forget everything; the next frame starts at [firstSample]. */
    fun reset(firstSample: Long = 0) {
        clockSample = firstSample
        smoothed = null
        rise.clear()
        run = null
        gap = null
        event = null
        between = null
    }

    /** Take frames in order, any number; [probabilities] in 0..1, one level a frame. */
    fun feed(probabilities: DoubleArray, levelsDbfs: DoubleArray): List<GateChange> {
        require(probabilities.size == levelsDbfs.size) {
            "${probabilities.size} probabilities, but ${levelsDbfs.size} levels"
        }
        return buildList {
            for ((probability, level) in probabilities.zip(levelsDbfs)) {
                require(probability.isFinite()) {
                    "frame at sample $clockSample: expected a probability, got $probability"
                }
                frame(Frame(probability, 10.0.pow(level / 10.0)), this)
            }
        }
    }

    /** The stream ends here: close what is open, drop what is too short. */
    fun flush(): List<GateChange> = buildList {
        endRun()
        close(this)
        rise.clear()
    }

    private fun samples(durationMs: Double) = ceil(durationMs * sampleRateHz / 1000.0).toLong()

    private fun frame(frame: Frame, found: MutableList<GateChange>) {
        val last = smoothed ?: frame.probability
        val value = last + follow * (frame.probability - last)
        smoothed = value
        val start = clockSample
        clockSample += frameSamples
        run?.let { continueRun(it, value, frame) } ?: awaitRun(value, frame, start)
        val current = run
        if (current == null) {
            closeIfOver(found)
        } else if (current.offset - current.onset >= minOn && gap == null) {
            accept(current, found)
        }
    }

    private fun continueRun(run: Span, value: Double, frame: Frame) {
        if (value >= settings.offThreshold) {
            gap?.let(run::extend)
            gap = null
            run.add(frame, frameSamples)
            return
        }
        val pause = gap ?: Span(run.offset).also { gap = it }
        pause.add(frame, frameSamples)
        if (pause.offset - pause.onset >= minOff) endRun()
    }

    private fun awaitRun(value: Double, frame: Frame, start: Long) {
        if (value >= settings.onThreshold) {
            val begun = Span(start - rise.size * frameSamples)
            for (earlier in rise) begun.add(earlier, frameSamples)
            begun.add(frame, frameSamples)
            rise.clear()
            run = begun
            return
        }
        rise.addLast(frame)
        val keep = if (value >= settings.offThreshold) walkBack else 0
        while (rise.size > keep) {
            val passed = rise.removeFirst()
            between?.add(passed, frameSamples)
        }
    }

    /** A run long enough opens an event, or goes on with the one before it. */
    private fun accept(run: Span, found: MutableList<GateChange>) {
        val earlier = event
        val pause = between
        if (earlier === run) return
        if (earlier == null || pause == null) {
            event = run
            found += GateOpened(run.onset, clockSample, run.peak)
            return
        }
        // The pause had not yet outlasted the merge gap, else the event would be closed.
        earlier.extend(pause)
        earlier.extend(run)
        this.run = earlier
        between = null
    }

    /** The run is over: its event now waits for one to merge with, or it was too short. */
    private fun endRun() {
        val ended = run ?: return
        val pause = gap
        run = null
        gap = null
        if (event === ended) {
            between = pause ?: Span(ended.offset)
        } else {
            between?.extend(ended)
            if (pause != null) between?.extend(pause)
        }
    }

    private fun closeIfOver(found: MutableList<GateChange>) {
        // A rise that may yet become a run is not in `between`: its onset is what counts.
        val pause = between ?: return
        if (pause.offset - pause.onset >= mergeGap) close(found)
    }

    private fun close(found: MutableList<GateChange>) {
        val ended = event ?: return
        event = null
        between = null
        val power = ended.power / ended.frames
        val level = if (power > 0.0) 10.0 * log10(power) else SILENCE_DBFS
        found += GateClosed(
            ended.onset, ended.offset, ended.peak, ended.total / ended.frames, level,
        )
    }
}
