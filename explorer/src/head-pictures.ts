/** Small pictures of all heads of a layer, to see which one to look at; each is a button that chooses it. */
import { html, nothing, render } from 'lit-html'
import { ref } from 'lit-html/directives/ref.js'
import type { ColourMap } from './colour.ts'
import { limits } from './limits.ts'
import type { PatternPart, PatternWindows } from './pattern-windows.ts'
import type { Area } from './picture.ts'
import type { Scale } from './scale.ts'

export interface HeadPictures {
  show(layer: number, heads: number, chosen: string, colours: ColourMap, scale: Scale): void
  close(): void
}

export function createHeadPictures(
  host: HTMLElement,
  windows: PatternWindows,
  whole: Area,
  onChoice: (head: string) => void,
): HeadPictures {
  let asking = new AbortController()
  let asked = ''
  let latest: (() => void) | null = null

  async function ask(layer: number, heads: number): Promise<void> {
    asking.abort()
    asking = new AbortController()
    const { signal } = asking
    // One after the other: these must not keep the picture that is being read waiting.
    for (let head = 0; head < Math.min(heads, limits.headsMax); head += 1) {
      const choice = { layer, head: String(head) }
      const answer = await windows.ask(choice, whole, limits.headCells, signal)
      if (signal.aborted || answer.status !== 'success') return
      latest?.()
    }
  }

  function show(
    layer: number,
    heads: number,
    chosen: string,
    colours: ColourMap,
    scale: Scale,
  ): void {
    latest = () => draw(layer, heads, chosen, colours, scale)
    latest()
    const wanted = `${layer} ${heads}`
    if (wanted === asked) return
    asked = wanted
    void ask(layer, heads)
  }

  function draw(layer: number, heads: number, chosen: string, colours: ColourMap, scale: Scale) {
    const all = Array.from({ length: Math.min(heads, limits.headsMax) }, (_, head) => String(head))
    const picture = (head: string) => {
      const part = windows.known({ layer, head }, whole, limits.headCells)
      const paint = (element: Element | undefined): void => {
        if (element instanceof HTMLCanvasElement && part !== undefined)
          paintSmall(element, part, colours, scale)
      }
      return html`<button type="button" aria-pressed=${head === chosen} aria-label=${`Head ${head}`} @click=${() => onChoice(head)}>
        <canvas width=${limits.headCells} height=${limits.headCells} aria-hidden="true" ${ref(paint)}></canvas>
        <span>${head}</span>
      </button>`
    }
    render(
      heads === 0
        ? nothing
        : html`<div class="heads" role="group" aria-label=${`Heads of layer ${layer}`}>${all.map(picture)}</div>`,
      host,
    )
  }
  return { show, close: () => asking.abort() }
}

function paintSmall(
  canvas: HTMLCanvasElement,
  { patch }: PatternPart,
  colours: ColourMap,
  scale: Scale,
): void {
  canvas.width = patch.columns
  canvas.height = patch.rows
  const drawing = canvas.getContext('2d')
  if (drawing === null || patch.columns === 0 || patch.rows === 0) return
  const image = drawing.createImageData(patch.columns, patch.rows)
  patch.values.forEach((value, index) => {
    if (value !== null) image.data.set([...colours.at(scale.share(value)), 255], index * 4)
  })
  drawing.putImageData(image, 0, 0)
}
