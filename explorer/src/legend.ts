/** The scale of colours beside a picture: from low to high, with the unit, and the sign of what is missing. */
import { html, type TemplateResult } from 'lit-html'
import { ref } from 'lit-html/directives/ref.js'
import type { ColourMap } from './colour.ts'
import { numberText } from './format.ts'
import type { Scale } from './scale.ts'

const width = 256
const scaleNames = { linear: 'linear', root: 'square root', log: 'logarithmic' } as const

/** @param title what is shown, with its unit. @param missing what the hatching means here. */
export function legendView(
  title: string,
  scale: Scale,
  colours: ColourMap,
  missing: string,
): TemplateResult {
  const paint = (element: Element | undefined): void => {
    if (element instanceof HTMLCanvasElement) paintBand(element, colours)
  }
  const middle = scale.value(0.5)
  return html`<figure class="legend" data-low=${scale.low} data-high=${scale.high} data-scale=${scale.kind}>
    <figcaption>${title}, <small>${scaleNames[scale.kind]} scale</small></figcaption>
    <canvas width=${width} height="1" aria-hidden="true" ${ref(paint)}></canvas>
    <div class="ticks">
      <span>${numberText(scale.low)}</span><span>${numberText(middle)}</span><span>${numberText(scale.high)}</span>
    </div>
    <p class="hatched-key"><span class="swatch" aria-hidden="true"></span>hatched: ${missing}</p>
  </figure>`
}

function paintBand(canvas: HTMLCanvasElement, colours: ColourMap): void {
  const drawing = canvas.getContext('2d')
  if (drawing === null) return
  const image = drawing.createImageData(width, 1)
  for (let x = 0; x < width; x += 1) {
    image.data.set([...colours.at(x / (width - 1)), 255], x * 4)
  }
  drawing.putImageData(image, 0, 0)
}
