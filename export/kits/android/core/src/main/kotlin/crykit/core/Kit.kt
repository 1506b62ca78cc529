// The kit's own description, as typed data: what kit.json says of the model beside it.
package crykit.core

import java.io.InputStream
import java.security.MessageDigest
import kotlinx.serialization.ExperimentalSerializationApi
import kotlinx.serialization.Serializable
import kotlinx.serialization.SerializationException
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonNamingStrategy

/** A kit that cannot be used; the message says what was expected and what came. */
class KitException(message: String) : Exception(message)

@Serializable
data class TensorSpec(val name: String, val shape: List<Int>, val dtype: String = "float32") {
    val size get() = shape.fold(1, Int::times)
}

/** A program and its tensors in order. A state goes in as `x` and comes out as `x_next`. */
@Serializable
data class GraphSpec(
    val file: String,
    val sha256: String,
    val bytes: Long,
    val inputs: List<TensorSpec>,
    val outputs: List<TensorSpec>,
) {
    val states get() = inputs.filter { state -> outputs.any { it.name == "${state.name}_next" } }
}

@Serializable
data class GoldenFiles(val audio: String, val expected: String, val gateVectors: String)

@Serializable
data class Kit(
    val formatVersion: Int,
    val modelId: String,
    val name: String,
    val licence: String,
    val labels: List<String>,
    val sampleRateHz: Int,
    val frameSamples: Int,
    val stepSamples: Int,
    val latencySamples: Int,
    val runtime: String,
    val precision: String,
    val frontend: GraphSpec,
    val network: GraphSpec,
    val gate: GateSettings,
    val golden: GoldenFiles,
) {
    val framesPerStep get() = stepSamples / frameSamples

    fun newGate(firstSample: Long = 0) = EventGate(gate, frameSamples, sampleRateHz, firstSample)
}

/** Where a kit lies: a folder, or an app's assets. */
fun interface KitFiles {
    fun open(path: String): InputStream
}

@OptIn(ExperimentalSerializationApi::class)
val kitJson = Json {
    namingStrategy = JsonNamingStrategy.SnakeCase
    ignoreUnknownKeys = true // a newer kit may say more
}

/**
 * The description of the kit in [files].
 *
 * @throws KitException it is not of this format, or not for this runtime.
 */
fun readKit(files: KitFiles): Kit {
    val text = files.open("kit.json").use { it.readBytes().decodeToString() }
    val kit = try {
        kitJson.decodeFromString<Kit>(text)
    } catch (error: SerializationException) {
        throw KitException("kit.json is not a kit's: ${error.message?.lineSequence()?.first()}")
    } catch (error: IllegalArgumentException) {
        throw KitException("kit.json: ${error.message}")
    }
    check(kit)
    return kit
}

private fun check(kit: Kit) {
    fun demand(fine: Boolean, message: String) {
        if (!fine) throw KitException(message)
    }
    demand(kit.formatVersion == 1, "expected a kit of format 1, got ${kit.formatVersion}")
    demand(kit.runtime == "executorch", "expected executorch, got ${kit.runtime}")
    demand(
        kit.frameSamples > 0 && kit.stepSamples > 0 && kit.stepSamples % kit.frameSamples == 0,
        "a step of ${kit.stepSamples} is no number of frames of ${kit.frameSamples}",
    )
    for (tensor in listOf(kit.frontend, kit.network).flatMap { it.inputs + it.outputs }) {
        demand(tensor.dtype == "float32", "${tensor.name} is ${tensor.dtype}")
    }
}

/**
 * The bytes of a program, compared with the kit's description before anything parses them.
 *
 * @throws KitException they are not the bytes that the kit was made with.
 */
fun readProgram(files: KitFiles, spec: GraphSpec): ByteArray {
    val program = files.open(spec.file).use { it.readBytes() }
    val sha256 = MessageDigest.getInstance("SHA-256").digest(program)
        .joinToString("") { "%02x".format(it) }
    if (program.size.toLong() != spec.bytes || sha256 != spec.sha256) {
        throw KitException("${spec.file} was altered: make the kit again with crykit export")
    }
    return program
}
