// The one screen: what is heard now, in type that can be read across a dark room.
package crykit.phone

import android.Manifest.permission.POST_NOTIFICATIONS
import android.Manifest.permission.RECORD_AUDIO
import android.app.Activity
import android.content.pm.PackageManager.PERMISSION_GRANTED
import android.os.Build
import android.os.Bundle
import android.view.View
import android.widget.Button
import android.widget.ProgressBar
import android.widget.TextView
import crykit.core.SILENCE_DBFS
import java.text.DateFormat
import java.util.Date
import kotlin.math.roundToInt

class MainActivity : Activity() {
    private val clock = DateFormat.getTimeInstance(DateFormat.MEDIUM)

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        setContentView(R.layout.activity_main)
        findViewById<Button>(R.id.toggle).setOnClickListener {
            if (Session.snapshot.phase == Phase.OFF) askAndStart() else ListenService.stop(this)
        }
    }

    override fun onStart() {
        super.onStart()
        Session.watch(::show)
    }

    override fun onStop() {
        Session.watch(null)
        super.onStop()
    }

    private fun askAndStart() {
        val wanted = buildList {
            add(RECORD_AUDIO)
            if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.TIRAMISU) add(POST_NOTIFICATIONS)
        }
        val missing = wanted.filter { checkSelfPermission(it) != PERMISSION_GRANTED }
        if (missing.isEmpty()) ListenService.start(this)
        else requestPermissions(missing.toTypedArray(), 0)
    }

    override fun onRequestPermissionsResult(
        code: Int,
        permissions: Array<String>,
        results: IntArray,
    ) {
        super.onRequestPermissionsResult(code, permissions, results)
        // Listening works without notifications; without the microphone there is nothing to do.
        if (checkSelfPermission(RECORD_AUDIO) == PERMISSION_GRANTED) ListenService.start(this)
        else show(Session.snapshot.copy(trouble = Trouble(R.string.needs_microphone)))
    }

    private fun show(snapshot: Snapshot) {
        val listening = snapshot.phase == Phase.QUIET || snapshot.phase == Phase.CRYING
        val colour = getColor(if (snapshot.phase == Phase.CRYING) R.color.crying else R.color.calm)
        text(R.id.state).setTextIfNew(getString(snapshot.phase.text))
        text(R.id.state).setTextColor(colour)
        text(R.id.probability).setTextIfNew(
            if (listening) "${(100 * snapshot.probability).roundToInt()} %" else "",
        )
        text(R.id.probability).setTextColor(colour)
        findViewById<ProgressBar>(R.id.level).progress =
            if (listening) (snapshot.levelDbfs - SILENCE_DBFS).roundToInt() else 0
        text(R.id.trouble).setTextIfNew(snapshot.trouble?.say(this) ?: "")
        text(R.id.trouble).visibility = if (snapshot.trouble == null) View.GONE else View.VISIBLE
        text(R.id.events).setTextIfNew(
            snapshot.cries.joinToString("\n", transform = ::line)
                .ifEmpty { getString(R.string.no_cries) },
        )
        text(R.id.toggle).setTextIfNew(
            getString(if (snapshot.phase == Phase.OFF) R.string.start else R.string.stop),
        )
    }

    private fun line(cry: HeardCry): String {
        val start = clock.format(Date(cry.startedAtMs))
        val end = cry.endedAtMs ?: return getString(R.string.cry_now, start)
        return getString(R.string.cry_line, start, ((end - cry.startedAtMs) / 1000.0).roundToInt())
    }

    private fun text(id: Int): TextView = findViewById(id)

    // A screen reader speaks a live region whenever its text is set.
    private fun TextView.setTextIfNew(next: String) {
        if (text.toString() != next) text = next
    }
}
