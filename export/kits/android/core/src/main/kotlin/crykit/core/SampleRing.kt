// Bounded buffer between the thread that records and the thread that listens.
package crykit.core

import java.util.concurrent.TimeUnit
import java.util.concurrent.locks.ReentrantLock
import kotlin.concurrent.withLock
import kotlin.math.min

/** What a reader got: [count] samples, with [lostBefore] missing just before them. */
data class RingRead(val count: Int, val lostBefore: Long)

/**
 * One writer, one reader. When it is full the newest sound is dropped and counted, and the reader
 * learns exactly where it is missing, so the clock of what follows stays right. The lock is held
 * only while one block is copied.
 */
class SampleRing(private val capacity: Int) {
    private class Loss(val at: Long, var samples: Long)

    private val buffer = FloatArray(capacity)
    private val losses = ArrayDeque<Loss>()
    private val lock = ReentrantLock()
    private val filled = lock.newCondition()
    private var written = 0L
    private var read = 0L

    init {
        require(capacity > 0) { "a ring of $capacity samples holds nothing" }
    }

    /** Copy [count] samples; what does not fit is counted as lost. */
    fun write(samples: FloatArray, count: Int = samples.size) = lock.withLock {
        val kept = min(count, capacity - (written - read).toInt())
        val start = (written % capacity).toInt()
        val head = min(kept, capacity - start)
        samples.copyInto(buffer, start, 0, head)
        samples.copyInto(buffer, 0, head, kept)
        written += kept
        lose((count - kept).toLong())
        filled.signal()
    }

    /** Note that [samples] went missing before the next [write]: the microphone stood still. */
    fun countLost(samples: Long) = lock.withLock {
        lose(samples)
        filled.signal()
    }

    /** Fetch what is there, at most [into] and never across a loss; wait for it up to [waitMs]. */
    fun read(into: FloatArray, waitMs: Long = 0): RingRead = lock.withLock {
        var left = TimeUnit.MILLISECONDS.toNanos(waitMs)
        while (read == written && losses.isEmpty() && left > 0) left = filled.awaitNanos(left)
        var lost = 0L
        while (losses.isNotEmpty() && losses.first().at <= read) {
            lost += losses.removeFirst().samples
        }
        var end = min(written, read + into.size)
        losses.firstOrNull()?.let { end = min(end, it.at) }
        val count = (end - read).toInt()
        for (i in 0 until count) into[i] = buffer[((read + i) % capacity).toInt()]
        read = end
        RingRead(count, lost)
    }

    private fun lose(samples: Long) {
        if (samples <= 0) return
        val last = losses.lastOrNull()
        if (last != null && last.at == written) last.samples += samples
        else losses.addLast(Loss(written, samples))
    }
}
