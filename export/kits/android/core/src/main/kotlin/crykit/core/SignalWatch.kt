// A microphone that hears nothing must not look like a quiet night.
package crykit.core

/**
 * Tells whether a microphone is dead. A real one always moves a little, even in a silent room;
 * samples that are all the same mean that it is muted, covered by another app, or broken.
 *
 * @param afterMs how long the signal must have stood still.
 */
class SignalWatch(sampleRateHz: Int, afterMs: Int = 5000) {
    private val afterSamples = sampleRateHz.toLong() * afterMs / 1000
    private var last = 0f
    private var still = 0L

    /** Whether the signal has stood still for too long, up to now. */
    val isFlat get() = still >= afterSamples

    fun hear(samples: FloatArray, count: Int = samples.size) {
        for (i in 0 until count) {
            if (samples[i] == last) still += 1 else still = 0
            last = samples[i]
        }
    }

    fun reset() {
        still = 0
        last = 0f
    }
}
