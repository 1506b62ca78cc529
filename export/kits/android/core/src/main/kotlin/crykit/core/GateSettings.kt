// What a gate is told and what it tells: a plain translation of the types in crykit/gate.py.
package crykit.core

import kotlinx.serialization.Serializable

/** Level given to digital silence, which has no logarithm. */
const val SILENCE_DBFS = -100.0

/**
 * When a probability becomes an event.
 *
 * A run starts where the probability reaches [onThreshold] and lasts until it has stayed under
 * [offThreshold] for [minOffMs]. It is an event once it is [minOnMs] long; a later run that starts
 * within [mergeGapMs] of an event's end belongs to that event. [smoothingMs] is the time constant
 * of a causal moving average that is taken first; 0 is none.
 */
@Serializable
data class GateSettings(
    val onThreshold: Double,
    val offThreshold: Double,
    val smoothingMs: Double,
    val minOnMs: Double,
    val minOffMs: Double,
    val mergeGapMs: Double,
) {
    init {
        require(0.0 < offThreshold && offThreshold <= onThreshold && onThreshold <= 1.0) {
            "gate thresholds must satisfy 0 < off <= on <= 1, " +
                "got on $onThreshold, off $offThreshold"
        }
        for (duration in listOf(smoothingMs, minOnMs, minOffMs, mergeGapMs)) {
            require(duration.isFinite() && duration >= 0.0) {
                "gate durations must be 0 or more milliseconds, got $duration"
            }
        }
    }
}

sealed interface GateChange

/** An event has begun. [detectedSample] is how much had been heard when that was known. */
data class GateOpened(
    val onsetSample: Long,
    val detectedSample: Long,
    val peakProbability: Double,
) : GateChange

/** An event has ended; statistics are over its frames, the level over their mean power. */
data class GateClosed(
    val onsetSample: Long,
    val offsetSample: Long,
    val peakProbability: Double,
    val meanProbability: Double,
    val levelDbfs: Double,
) : GateChange
