// The kit's programs under ExecuTorch's Android library.
package crykit.phone

import android.content.Context
import crykit.core.CryModel
import crykit.core.Graph
import crykit.core.GraphSpec
import crykit.core.Kit
import crykit.core.KitException
import crykit.core.KitFiles
import crykit.core.readKit
import crykit.core.readProgram
import java.io.File
import org.pytorch.executorch.EValue
import org.pytorch.executorch.Module
import org.pytorch.executorch.Tensor

/** The kit in the app's assets. */
fun assetKit(context: Context) = KitFiles { path -> context.assets.open("kit/$path") }

/** One program's `forward`. One thread: a step takes a millisecond or two every 160. */
class ExecuTorchGraph(program: File, private val spec: GraphSpec) : Graph, AutoCloseable {
    private val module = Module.load(program.path, Module.LOAD_MODE_MMAP, 1)
    private val shapes = spec.inputs.map { input ->
        LongArray(input.shape.size) { input.shape[it].toLong() }
    }

    override fun run(inputs: List<FloatArray>): List<FloatArray> {
        val values = inputs.zip(shapes) { tensor, shape ->
            EValue.from(Tensor.fromBlob(tensor, shape))
        }
        val outputs = module.forward(*values.toTypedArray())
        if (outputs.isEmpty()) throw KitException("${spec.file} did not run")
        // Copies: the tensors lie in the program's own memory, which the next call overwrites.
        return outputs.map { it.toTensor().dataAsFloatArray }
    }

    override fun close() = module.destroy()
}

/** Both programs, checked against the kit's digests and loaded. */
class LoadedKit(context: Context) : AutoCloseable {
    private val files = assetKit(context)
    val kit: Kit = readKit(files)
    private val frontend = open(context, kit.frontend)
    private val network = open(context, kit.network)
    val model = CryModel(kit, frontend, network)

    // ExecuTorch loads from a path, so the asset is written out; its digest is its name, so that an
    // update of the app never meets an older program. Few and small, the old ones may stay.
    private fun open(context: Context, spec: GraphSpec): ExecuTorchGraph {
        val program = File(context.noBackupFilesDir, "${spec.sha256}.pte")
        val bytes = readProgram(files, spec)
        if (program.length() != spec.bytes) {
            val aside = File(program.path + ".part")
            aside.writeBytes(bytes)
            if (!aside.renameTo(program)) throw KitException("${spec.file} cannot be stored")
        }
        return ExecuTorchGraph(program, spec)
    }

    override fun close() {
        frontend.close()
        network.close()
    }
}
