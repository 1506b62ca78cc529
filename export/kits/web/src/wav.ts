/** Read the samples of a PCM16 mono WAV file, in [-1, 1). Throws where it is another kind. */
export function readWav(data: ArrayBuffer, sampleRateHz: number): Float32Array {
  const view = new DataView(data);
  const tag = (at: number) => String.fromCharCode(...new Uint8Array(data, at, 4));
  let format = "";
  for (let at = 12; at + 8 <= data.byteLength; ) {
    const size = view.getUint32(at + 4, true);
    if (tag(at) === "fmt ") {
      const field = (offset: number) => view.getUint16(at + 8 + offset, true);
      format = `${field(0)}/${field(2)}/${view.getUint32(at + 12, true)}/${field(14)}`;
    }
    if (tag(at) === "data" && format === `1/1/${sampleRateHz}/16`) {
      const count = Math.min(size, data.byteLength - at - 8) >> 1;
      return Float32Array.from({ length: count }, (_, i) => {
        return view.getInt16(at + 8 + 2 * i, true) / 32768;
      });
    }
    at += 8 + size + (size & 1);
  }
  throw new Error(`expected a PCM16 mono WAV file at ${sampleRateHz} Hz, got ${format || "none"}`);
}
