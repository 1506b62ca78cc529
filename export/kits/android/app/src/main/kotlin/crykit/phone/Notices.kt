// One notification says what goes on; another cannot be overheard when nothing is heard.
package crykit.phone

import android.app.Notification
import android.app.NotificationChannel
import android.app.NotificationManager
import android.app.PendingIntent
import android.content.Context
import android.content.Intent

class Notices(private val context: Context) {
    private val manager = context.getSystemService(NotificationManager::class.java)

    init {
        val listening = NotificationChannel(
            LISTENING,
            context.getString(R.string.channel_listening),
            NotificationManager.IMPORTANCE_LOW,
        )
        // High importance sounds and pops up: a parent must know that nobody listens.
        val trouble = NotificationChannel(
            TROUBLE,
            context.getString(R.string.channel_trouble),
            NotificationManager.IMPORTANCE_HIGH,
        )
        manager.createNotificationChannels(listOf(listening, trouble))
    }

    fun listening(snapshot: Snapshot): Notification = builder(LISTENING)
        .setContentTitle(context.getString(snapshot.phase.text))
        .setOngoing(true)
        .addAction(
            Notification.Action.Builder(null, context.getString(R.string.stop), stop()).build(),
        )
        .build()

    fun showListening(snapshot: Snapshot) = manager.notify(LISTENING_ID, listening(snapshot))

    fun showTrouble(trouble: Trouble?) {
        if (trouble == null) return manager.cancel(TROUBLE_ID)
        val text = trouble.say(context)
        val notification = builder(TROUBLE)
            .setContentTitle(context.getString(R.string.trouble_title))
            .setContentText(text)
            .setStyle(Notification.BigTextStyle().bigText(text))
            .setCategory(Notification.CATEGORY_ALARM)
            .build()
        manager.notify(TROUBLE_ID, notification)
    }

    private fun builder(channel: String) = Notification.Builder(context, channel)
        .setSmallIcon(R.drawable.ic_listening)
        .setContentIntent(
            PendingIntent.getActivity(
                context, 0, Intent(context, MainActivity::class.java), PendingIntent.FLAG_IMMUTABLE,
            ),
        )

    private fun stop(): PendingIntent = PendingIntent.getService(
        context, 1, ListenService.stopIntent(context), PendingIntent.FLAG_IMMUTABLE,
    )

    companion object {
        const val LISTENING_ID = 1
        private const val TROUBLE_ID = 2
        private const val LISTENING = "listening"
        private const val TROUBLE = "trouble"
    }
}
