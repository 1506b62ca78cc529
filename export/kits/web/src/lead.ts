/**
 * Passes over the zeros with which a microphone often begins.
 *
 * The model follows the noise floor of the room. A few hundredths of a second of nothing at the very
 * start would be the quietest room there is, and all that comes would stand out of it for minutes.
 */
export class LeadIn {
  /** @param left samples that may be passed over; a microphone that stays silent must be told of. */
  constructor(private left: number) {}

  /** The rest of a block, from the first sample of sound on. */
  pass(samples: Float32Array): Float32Array {
    if (this.left <= 0) return samples;
    const first = samples.findIndex((sample) => sample !== 0);
    this.left = first < 0 ? this.left - samples.length : 0;
    return samples.subarray(first < 0 ? samples.length : first);
  }
}
