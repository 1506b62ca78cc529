package crykit.core

import kotlin.concurrent.thread
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Test

class SampleRingTest {
    @Test
    fun `gives back what was written, in order, around the end`() {
        val ring = SampleRing(7)
        val into = FloatArray(5)
        var next = 0
        val got = mutableListOf<Float>()
        repeat(20) {
            ring.write(FloatArray(3) { (next++).toFloat() })
            val read = ring.read(into)
            got += into.take(read.count)
        }
        assertEquals(List(60) { it.toFloat() }, got)
    }

    @Test
    fun `what does not fit is lost, and the reader learns where`() {
        val ring = SampleRing(10)
        val into = FloatArray(8)
        ring.write(FloatArray(6) { 1f })
        ring.write(FloatArray(9) { 2f }) // 4 fit, 5 are lost
        assertEquals(RingRead(8, 0), ring.read(into))
        ring.write(FloatArray(2) { 3f })
        assertEquals(RingRead(2, 0), ring.read(into)) // never across the loss
        assertEquals(RingRead(2, 5), ring.read(into))
        assertEquals(3f, into[0])
        assertEquals(RingRead(0, 0), ring.read(into))
    }

    @Test
    fun `losses at the same place add up`() {
        val ring = SampleRing(10)
        ring.countLost(100)
        ring.countLost(0)
        ring.countLost(20)
        ring.write(FloatArray(4))
        assertEquals(RingRead(4, 120), ring.read(FloatArray(8)))
    }

    @Test
    fun `a reader waits for the writer, and no longer than it said`() {
        val ring = SampleRing(100)
        assertEquals(0, ring.read(FloatArray(10), waitMs = 20).count)
        val writer = thread {
            Thread.sleep(30)
            ring.write(FloatArray(10))
        }
        assertEquals(10, ring.read(FloatArray(10), waitMs = 5000).count)
        writer.join()
    }

    @Test
    fun `two threads lose nothing that they do not count`() {
        val ring = SampleRing(64)
        val total = 20_000
        val writer = thread {
            for (i in 0 until total / 5) ring.write(FloatArray(5) { (i * 5 + it).toFloat() })
        }
        val into = FloatArray(16)
        var clock = 0L
        while (clock < total) {
            val read = ring.read(into, waitMs = 100)
            clock += read.lostBefore
            for (i in 0 until read.count) assertEquals((clock + i).toFloat(), into[i])
            clock += read.count
        }
        writer.join()
        assertEquals(total.toLong(), clock)
    }

    @Test
    fun `a ring that holds nothing is refused`() {
        assertThrows(IllegalArgumentException::class.java) { SampleRing(0) }
    }
}

class SignalWatchTest {
    private val rate = 16_000

    @Test
    fun `a dead microphone is told after five seconds, a quiet room never`() {
        val watch = SignalWatch(rate)
        watch.hear(FloatArray(4 * rate))
        assertFalse(watch.isFlat)
        watch.hear(FloatArray(rate))
        assertTrue(watch.isFlat)
        watch.hear(FloatArray(30 * rate) { if (it % 2 == 0) 1e-5f else -1e-5f })
        assertFalse(watch.isFlat)
    }

    @Test
    fun `one that stands still away from zero is dead as well, and a reset begins anew`() {
        val watch = SignalWatch(rate, afterMs = 1000)
        watch.hear(FloatArray(rate + 1) { 0.3f })
        assertTrue(watch.isFlat)
        watch.reset()
        assertFalse(watch.isFlat)
    }
}
