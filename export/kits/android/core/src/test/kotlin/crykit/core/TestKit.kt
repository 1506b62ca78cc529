// The kit under test, and its golden files as typed data.
package crykit.core

import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder
import kotlinx.serialization.Serializable

val kitFolder = File(System.getProperty("crykit.kit") ?: "../app/src/main/assets/kit")

val kitFiles = KitFiles { path -> File(kitFolder, path).inputStream() }

inline fun <reified T> golden(path: String): T =
    kitJson.decodeFromString<T>(File(kitFolder, path).readText())

@Serializable
class Change(
    val type: String,
    val onsetSample: Long,
    val detectedSample: Long = 0,
    val offsetSample: Long = 0,
    val peakProbability: Double,
    val meanProbability: Double = 0.0,
    val levelDbfs: Double = 0.0,
)

@Serializable
class Vector(
    val shows: List<String> = emptyList(),
    val settings: GateSettings,
    val frameSamples: Int,
    val sampleRateHz: Int,
    val firstSample: Long,
    val probabilities: List<Double>,
    val levelsDbfs: List<Double>,
    val found: List<Change>,
)

@Serializable
class Vectors(val formatVersion: Int, val vectors: List<Vector>)

@Serializable
class Event(
    val onsetSample: Long,
    val offsetSample: Long,
    val detectedSample: Long,
    val peakProbability: Double,
    val meanProbability: Double,
    val levelDbfs: Double,
)

@Serializable
class Expected(
    val sampleRateHz: Int,
    val frameSamples: Int,
    val cryProbability: List<Double>,
    val levelDbfs: List<Double>,
    val events: List<Event>,
)

/** The samples of a 16-bit mono WAV file, in -1..1. */
fun readWav(file: File): FloatArray {
    val bytes = ByteBuffer.wrap(file.readBytes()).order(ByteOrder.LITTLE_ENDIAN)
    var at = 12
    while (String(bytes.array(), at, 4) != "data") at += 8 + bytes.getInt(at + 4)
    return FloatArray(bytes.getInt(at + 4) / 2) { bytes.getShort(at + 8 + 2 * it) / 32768f }
}

/** A model that says what it was told to say, a step at a time. */
class Recorded(
    private val probabilities: List<Double>,
    private val framesPerStep: Int,
) : StepModel {
    private var at = 0

    override fun reset() {
        at = 0
    }

    override fun step(samples: FloatArray) = FloatArray(framesPerStep) {
        probabilities.getOrElse(at++) { 0.0 }.toFloat()
    }
}
