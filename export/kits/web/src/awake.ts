/** Keep the screen on: a phone that sleeps stops listening. */
export class ScreenAwake {
  private lock: WakeLockSentinel | null = null;
  private wanted = false;

  /** @param onChange told whether the screen is being kept on. */
  constructor(private readonly onChange: (held: boolean) => void) {
    // The lock is lost whenever the page is out of sight.
    document.addEventListener("visibilitychange", () => void this.acquire());
  }

  hold(): Promise<void> {
    this.wanted = true;
    return this.acquire();
  }

  release(): void {
    this.wanted = false;
    void this.lock?.release();
  }

  private async acquire(): Promise<void> {
    if (!this.wanted || this.lock || document.visibilityState !== "visible") return;
    try {
      const lock = await navigator.wakeLock.request("screen");
      lock.addEventListener("release", () => {
        this.lock = null;
        this.onChange(false);
      });
      this.lock = lock;
    } catch {
      // No such thing in this browser, or the battery is low; the page says so.
    }
    this.onChange(this.lock !== null);
  }
}
