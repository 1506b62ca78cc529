// Keeps listening while the screen is off or another app is in front.
package crykit.phone

import android.app.Service
import android.content.Context
import android.content.Intent
import android.content.pm.ServiceInfo
import android.os.IBinder
import android.os.PowerManager

/** A foreground service of the microphone type: started by the visible app, stopped by the user. */
class ListenService : Service() {
    private lateinit var notices: Notices
    private lateinit var wakeLock: PowerManager.WakeLock
    private var engine: ListenEngine? = null
    private var shown = Snapshot()

    override fun onBind(intent: Intent?): IBinder? = null

    override fun onCreate() {
        notices = Notices(this)
        // Without it the processor sleeps with the screen, and the microphone with it.
        wakeLock = getSystemService(PowerManager::class.java)
            .newWakeLock(PowerManager.PARTIAL_WAKE_LOCK, "crykit:listening")
    }

    override fun onStartCommand(intent: Intent?, flags: Int, startId: Int): Int {
        if (intent?.action == STOP) {
            stopSelf()
        } else if (engine == null) {
            startForeground(
                Notices.LISTENING_ID,
                notices.listening(Snapshot(Phase.STARTING)),
                ServiceInfo.FOREGROUND_SERVICE_TYPE_MICROPHONE,
            )
            wakeLock.acquire() // until the user stops it: a night has no timeout
            engine = ListenEngine(this, ::show)
        }
        // Android gives no microphone to a service that it restarts by itself in the background.
        return START_NOT_STICKY
    }

    override fun onDestroy() {
        engine?.close()
        if (wakeLock.isHeld) wakeLock.release()
        notices.showTrouble(null)
        Session.publish(Session.snapshot.copy(phase = Phase.OFF, trouble = null))
    }

    /** On the engine's thread, several times a second; a notification only when it would differ. */
    private fun show(snapshot: Snapshot) {
        Session.publish(snapshot)
        if (snapshot.phase != shown.phase) notices.showListening(snapshot)
        if (snapshot.trouble != shown.trouble) notices.showTrouble(snapshot.trouble)
        shown = snapshot
    }

    companion object {
        private const val STOP = "crykit.phone.STOP"

        fun start(context: Context) {
            context.startForegroundService(Intent(context, ListenService::class.java))
        }

        fun stop(context: Context) {
            context.stopService(Intent(context, ListenService::class.java))
        }

        fun stopIntent(context: Context): Intent =
            Intent(context, ListenService::class.java).setAction(STOP)
    }
}
