// The colour scale of the Latents map. Knows the colour table and canvases; knows nothing of concepts.

import { fromBase64 } from "./code.js";

// One colour table: 256 colours of three bytes, packed as base64.
export class HeatMaps {
  constructor(packed) {
    this.colours = fromBase64(packed, Uint8Array);
  }

  // The table as a line of 128 pixels, for a legend.
  drawRamp(canvas) {
    const context = canvas.getContext("2d");
    const image = context.createImageData(128, 1);
    for (let i = 0; i < 128; i++) {
      image.data.set([...this.colours.subarray(i * 6, i * 6 + 3), 255], i * 4);
    }
    context.putImageData(image, 0, 0);
  }
}
