// What the screen and the notification show, passed from the engine's thread to the main one.
package crykit.phone

import android.content.Context
import android.os.Handler
import android.os.Looper
import crykit.core.SILENCE_DBFS

enum class Phase(val text: Int) {
    OFF(R.string.off),
    STARTING(R.string.starting),
    QUIET(R.string.quiet),
    CRYING(R.string.crying),
}

/** Why nothing can be heard, as a string resource and what belongs in it. */
data class Trouble(val text: Int, val detail: Any? = null) {
    fun say(context: Context): String =
        if (detail == null) context.getString(text) else context.getString(text, detail)
}

/** One cry; [endedAtMs] is null while it lasts. Times are milliseconds since 1970. */
data class HeardCry(val startedAtMs: Long, val endedAtMs: Long? = null)

data class Snapshot(
    val phase: Phase = Phase.OFF,
    val probability: Double = 0.0,
    val levelDbfs: Double = SILENCE_DBFS,
    val cries: List<HeardCry> = emptyList(), // latest first
    val trouble: Trouble? = null,
)

/** The latest snapshot of this process, for whichever screen is there to see it. */
object Session {
    private val main = Handler(Looper.getMainLooper())
    private var watcher: ((Snapshot) -> Unit)? = null

    @Volatile
    var snapshot = Snapshot()
        private set

    /** From any thread. */
    fun publish(next: Snapshot) {
        snapshot = next
        main.post { watcher?.invoke(snapshot) }
    }

    /** On the main thread: [watch] is called now and with every later snapshot; null ends that. */
    fun watch(watch: ((Snapshot) -> Unit)?) {
        watcher = watch
        watch?.invoke(snapshot)
    }
}
