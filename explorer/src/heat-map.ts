/**
 * A heat map that can be read: by pointing, and with the keyboard. It knows cells and not what they
 * mean; whoever made it says what a cell is called and is told when the part in view should change.
 */
import { html, nothing, render } from 'lit-html'
import { announce } from './announce.ts'
import { limits } from './limits.ts'
import {
  type Area,
  type Picture,
  type Point,
  type Reading,
  readingAt,
  within,
  zoomed,
} from './picture.ts'
import { createPlotter, pixelOf, plotBox, pointAt, sizeOfSquares } from './plot.ts'

export interface HeatMapEvents {
  /** What the cell is called and worth, line by line. */
  describe(reading: Reading): readonly string[]
  onCursor(point: Point): void
  onView(view: Area): void
  /** Keys that the heat map does not know; true when it was used. */
  onKey(key: string): boolean
}

export interface HeatMap {
  show(picture: Picture): void
  close(): void
}

const heights = { row: 11, least: 220, most: 560 } as const
/** CSS pixels of the window that a picture of squares leaves to what is around it. */
const aroundSquares = 40

export function createHeatMap(host: HTMLElement, help: string, events: HeatMapEvents): HeatMap {
  const id = `heat-${crypto.randomUUID().slice(0, 8)}`
  let picture: Picture | null = null
  let hover: Point | null = null
  let drag: {
    readonly left: number
    readonly top: number
    readonly view: Area
    moved: boolean
  } | null = null
  host.classList.add('heat')
  render(
    html`<div class="zoom">
        <button type="button" @click=${() => zoom(2)}>Zoom in</button>
        <button type="button" @click=${() => zoom(0.5)}>Zoom out</button>
        <button type="button" @click=${() => showAll()}>All</button>
        <output></output>
      </div>
      <div class="plot" role="application" tabindex="0" aria-roledescription="heat map" aria-describedby=${id}
        @keydown=${onKey} @focus=${() => redraw()} @blur=${() => redraw()}
        @pointermove=${onMove} @pointerleave=${onLeave} @pointerdown=${onDown} @pointerup=${onUp}
        @pointercancel=${onUp} @dblclick=${(event: MouseEvent) => zoomAt(event)}>
        <canvas aria-hidden="true"></canvas>
        <div class="tip" hidden></div>
      </div>
      <p id=${id} class="help">${help}</p>`,
    host,
  )
  const plot = found(host, '.plot')
  const canvas = found(host, 'canvas') as HTMLCanvasElement
  const tip = found(host, '.tip')
  const output = found(host, 'output')
  const plotter = createPlotter(canvas)
  const resize = new ResizeObserver(() => redraw())
  resize.observe(plot)
  // The height of squares is bounded by the window's.
  const onWindow = () => redraw()
  addEventListener('resize', onWindow)

  function size(): { width: number; height: number } {
    const width = plot.clientWidth
    if (picture === null) return { width, height: heights.least }
    if (picture.square) {
      const most = Math.max(heights.least, innerHeight - aroundSquares)
      return sizeOfSquares(picture, { width, height: most })
    }
    const rows = picture.extent.y.end - picture.extent.y.start
    return {
      width,
      height: Math.min(heights.most, Math.max(heights.least, rows * heights.row + 60)),
    }
  }

  function redraw(): void {
    if (picture === null || plot.clientWidth === 0) return
    const { width, height } = size()
    canvas.style.width = `${width}px`
    canvas.style.height = `${height}px`
    const point = hover ?? picture.cursor
    const reading = point === null ? null : readingAt(picture, point)
    plotter.draw(picture, width, height, reading?.area ?? null)
    showTip(reading, width, height)
  }

  function showTip(reading: Reading | null, width: number, height: number): void {
    tip.hidden =
      reading === null || picture === null || (hover === null && document.activeElement !== plot)
    if (tip.hidden || reading === null || picture === null) return
    render(
      events.describe(reading).map((line) => html`<span>${line}</span>`),
      tip,
    )
    const box = plotBox(picture, width, height)
    const left = pixelOf(picture.view.x, box.left, box.width, reading.area.x.end)
    const top = pixelOf(picture.view.y, box.top, box.height, reading.area.y.end)
    const flip = left + tip.offsetWidth + 8 > width
    const start = pixelOf(picture.view.x, box.left, box.width, reading.area.x.start)
    tip.style.left = `${Math.max(0, flip ? start - tip.offsetWidth - 8 : left + 8)}px`
    tip.style.top = `${Math.max(0, Math.min(top + 6, height - tip.offsetHeight))}px`
  }

  function pointOf(event: MouseEvent): Point | null {
    if (picture === null) return null
    const frame = canvas.getBoundingClientRect()
    const { width, height } = size()
    const box = plotBox(picture, width, height)
    return pointAt(picture, box, event.clientX - frame.left, event.clientY - frame.top)
  }

  function onMove(event: PointerEvent): void {
    if (picture !== null && drag !== null) {
      const { width, height } = size()
      const box = plotBox(picture, width, height)
      const shift = {
        x: Math.round(((drag.left - event.clientX) / box.width) * spanOf(drag.view.x)),
        y: Math.round(((drag.top - event.clientY) / box.height) * spanOf(drag.view.y)),
      }
      const far = Math.abs(event.clientX - drag.left) + Math.abs(event.clientY - drag.top) > 4
      if (far && (shift.x !== 0 || shift.y !== 0)) {
        drag.moved = true
        pan(drag.view, shift)
      }
    }
    hover = pointOf(event)
    redraw()
  }
  function onLeave(): void {
    hover = null
    redraw()
  }
  function onDown(event: PointerEvent): void {
    if (picture === null || event.button !== 0) return
    drag = { left: event.clientX, top: event.clientY, view: picture.view, moved: false }
    plot.setPointerCapture(event.pointerId)
  }
  function onUp(event: PointerEvent): void {
    const moved = drag?.moved ?? true
    drag = null
    const point = pointOf(event)
    if (!moved && point !== null) moveTo(point)
  }

  function pan(from: Area, shift: Point): void {
    if (picture === null) return
    const { extent, zoomY } = picture
    const move = ({ start, end }: Area['x'], by: number) => ({ start: start + by, end: end + by })
    events.onView({
      x: within(move(from.x, shift.x), extent.x),
      y: zoomY ? within(move(from.y, shift.y), extent.y) : from.y,
    })
  }

  function zoom(factor: number, about: Point | null = null): void {
    if (picture === null) return
    const { view, extent, zoomY, cursor } = picture
    const inView = cursor !== null && contains(view, cursor) ? cursor : null
    const middle = about ??
      inView ?? { x: (view.x.start + view.x.end) / 2, y: (view.y.start + view.y.end) / 2 }
    const least = limits.viewTokensMin
    events.onView({
      x: zoomed(view.x, extent.x, factor, middle.x, least),
      y: zoomY ? zoomed(view.y, extent.y, factor, middle.y, least) : view.y,
    })
  }
  function zoomAt(event: MouseEvent): void {
    zoom(event.shiftKey ? 0.5 : 2, pointOf(event))
  }
  function showAll(): void {
    if (picture !== null) events.onView(picture.extent)
  }

  function moveTo(point: Point): void {
    if (picture === null) return
    const { extent, view } = picture
    const cut = (value: number, { start, end }: Area['x']) =>
      Math.min(end - 1, Math.max(start, Math.floor(value)))
    const target = { x: cut(point.x, extent.x), y: cut(point.y, extent.y) }
    hover = null
    events.onCursor(target)
    if (!contains(view, target)) {
      pan(view, { x: outside(view.x, target.x), y: outside(view.y, target.y) })
    }
    redraw()
    const reading = picture === null ? null : readingAt(picture, target)
    if (reading !== null) announce(events.describe(reading).join(', '))
  }

  function onKey(event: KeyboardEvent): void {
    if (picture === null || event.ctrlKey || event.metaKey || event.altKey) return
    if (!keyed(event.key, picture) && !events.onKey(event.key)) return
    event.preventDefault()
  }

  function keyed(key: string, { cursor, view, extent }: Picture): boolean {
    const from = cursor ?? { x: view.x.start, y: view.y.start }
    const area = picture === null ? null : (readingAt(picture, from)?.area ?? null)
    const at = area ?? {
      x: { start: from.x, end: from.x + 1 },
      y: { start: from.y, end: from.y + 1 },
    }
    const targets: Readonly<Record<string, Point>> = {
      ArrowRight: { x: at.x.end, y: from.y },
      ArrowLeft: { x: at.x.start - 1, y: from.y },
      ArrowDown: { x: from.x, y: at.y.end },
      ArrowUp: { x: from.x, y: at.y.start - 1 },
      Home: { x: extent.x.start, y: from.y },
      End: { x: extent.x.end - 1, y: from.y },
      PageUp: { x: from.x, y: extent.y.start },
      PageDown: { x: from.x, y: extent.y.end - 1 },
      Enter: from,
    }
    const target = targets[key]
    if (target !== undefined) moveTo(target)
    else if (key === '+' || key === '=') zoom(2)
    else if (key === '-') zoom(0.5)
    else if (key === '0') showAll()
    else return false
    return true
  }

  return {
    show(next) {
      picture = next
      plot.setAttribute('aria-label', next.label)
      plot.classList.toggle('square', next.square)
      const { view, extent } = next
      const part = spanOf(view.x) < spanOf(extent.x) || spanOf(view.y) < spanOf(extent.y)
      render(
        part
          ? html`${next.xTitle} ${view.x.start} to ${view.x.end - 1} of ${extent.x.end}`
          : nothing,
        output,
      )
      redraw()
    },
    close() {
      resize.disconnect()
      removeEventListener('resize', onWindow)
    },
  }
}

function found(host: HTMLElement, selector: string): HTMLElement {
  const element = host.querySelector<HTMLElement>(selector)
  if (element === null) throw new Error(`the heat map has no ${selector}`)
  return element
}

function spanOf({ start, end }: Area['x']): number {
  return end - start
}

function contains({ x, y }: Area, point: Point): boolean {
  return point.x >= x.start && point.x < x.end && point.y >= y.start && point.y < y.end
}

/** How far the span must move to show the value; 0 when it does. */
function outside({ start, end }: Area['x'], value: number): number {
  if (value < start) return value - start
  return value >= end ? value - end + 1 : 0
}
