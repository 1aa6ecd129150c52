/** Draws a picture on a canvas: cells, axes, strips, cursor. Holds the bitmaps of patches it has drawn. */
import type { Area, Patch, Picture, Point, Span, Strip } from './picture.ts'

/** CSS pixels around the cells. */
const margins = { left: 52, bottom: 40, top: 8, right: 12, stripTop: 40, stripRight: 44 } as const

export interface Box {
  readonly left: number
  readonly top: number
  readonly width: number
  readonly height: number
}

export function plotBox(picture: Picture, width: number, height: number): Box {
  const top = margins.top + (picture.top === null ? 0 : margins.stripTop)
  const right = margins.right + (picture.right === null ? 0 : margins.stripRight)
  return {
    left: margins.left,
    top,
    width: Math.max(1, width - margins.left - right),
    height: Math.max(1, height - top - margins.bottom),
  }
}

/** The largest size in which a cell is as wide as high, within what there is. */
export function sizeOfSquares(
  picture: Picture,
  most: { readonly width: number; readonly height: number },
): { width: number; height: number } {
  const { x, y } = picture.view
  const box = plotBox(picture, most.width, most.height)
  const cell = Math.min(box.width / (x.end - x.start), box.height / (y.end - y.start))
  return {
    width: most.width - box.width + cell * (x.end - x.start),
    height: most.height - box.height + cell * (y.end - y.start),
  }
}

export function pixelOf(span: Span, from: number, length: number, value: number): number {
  return from + ((value - span.start) / (span.end - span.start)) * length
}

export function pointAt({ view }: Picture, box: Box, left: number, top: number): Point | null {
  const x = (left - box.left) / box.width
  const y = (top - box.top) / box.height
  if (x < 0 || y < 0 || x >= 1 || y >= 1) return null
  return {
    x: view.x.start + x * (view.x.end - view.x.start),
    y: view.y.start + y * (view.y.end - view.y.start),
  }
}

interface Inks {
  readonly text: string
  readonly line: string
  readonly hatch: string
  readonly ground: string
  readonly accent: string
  readonly mark: string
}

interface Bitmap {
  readonly key: string
  readonly canvas: OffscreenCanvas
}

export function createPlotter(canvas: HTMLCanvasElement) {
  const bitmaps = new WeakMap<Patch, Bitmap>()

  function bitmapOf(patch: Patch, { colour, colourKey }: Picture): OffscreenCanvas | null {
    const known = bitmaps.get(patch)
    if (known?.key === colourKey) return known.canvas
    const made = new OffscreenCanvas(patch.columns, patch.rows)
    const drawing = made.getContext('2d')
    if (drawing === null) return null
    const image = drawing.createImageData(patch.columns, patch.rows)
    patch.values.forEach((value, index) => {
      // What is not there stays clear: the hatching behind it shows.
      if (value === null) return
      const [red, green, blue] = colour(value)
      image.data[index * 4] = red
      image.data[index * 4 + 1] = green
      image.data[index * 4 + 2] = blue
      image.data[index * 4 + 3] = 255
    })
    drawing.putImageData(image, 0, 0)
    bitmaps.set(patch, { key: colourKey, canvas: made })
    return made
  }

  function draw(picture: Picture, width: number, height: number, hover: Area | null): void {
    const drawing = canvas.getContext('2d')
    if (drawing === null) return
    const ratio = devicePixelRatio
    const pixels = { width: Math.round(width * ratio), height: Math.round(height * ratio) }
    if (canvas.width !== pixels.width) canvas.width = pixels.width
    if (canvas.height !== pixels.height) canvas.height = pixels.height
    const inks = inksOf(canvas)
    const box = plotBox(picture, width, height)
    drawing.setTransform(ratio, 0, 0, ratio, 0, 0)
    drawing.clearRect(0, 0, width, height)
    drawing.save()
    drawing.beginPath()
    drawing.rect(box.left, box.top, box.width, box.height)
    drawing.clip()
    drawHatching(drawing, box, inks)
    drawing.imageSmoothingEnabled = false
    for (const patch of picture.patches) {
      const bitmap = bitmapOf(patch, picture)
      if (bitmap !== null) drawPatch(drawing, picture, box, patch, bitmap, inks)
    }
    drawing.restore()
    drawAxes(drawing, picture, box, inks)
    if (picture.top !== null) drawTop(drawing, picture, picture.top, box, inks)
    if (picture.right !== null) drawRight(drawing, picture, picture.right, box, inks)
    if (hover !== null) drawFrame(drawing, picture, box, hover, inks)
  }
  return { draw }
}

function inksOf(canvas: HTMLElement): Inks {
  const style = getComputedStyle(canvas)
  const ink = (name: string): string => style.getPropertyValue(name).trim()
  return {
    text: ink('--ink-soft'),
    line: ink('--line'),
    hatch: ink('--hatch'),
    ground: ink('--ground'),
    accent: ink('--cursor'),
    mark: ink('--mark'),
  }
}

type Drawing = CanvasRenderingContext2D

function drawHatching(drawing: Drawing, box: Box, inks: Inks): void {
  drawing.fillStyle = inks.ground
  drawing.fillRect(box.left, box.top, box.width, box.height)
  drawing.strokeStyle = inks.hatch
  drawing.lineWidth = 1
  drawing.beginPath()
  for (let start = -box.height; start < box.width; start += 6) {
    drawing.moveTo(box.left + start, box.top + box.height)
    drawing.lineTo(box.left + start + box.height, box.top)
  }
  drawing.stroke()
}

function drawPatch(
  drawing: Drawing,
  { view }: Picture,
  box: Box,
  patch: Patch,
  bitmap: OffscreenCanvas,
  inks: Inks,
): void {
  // On whole pixels, so that no seam shows between two patches.
  const whole = (value: number): number => Math.round(value * devicePixelRatio) / devicePixelRatio
  const across = (x: number): number => whole(pixelOf(view.x, box.left, box.width, x))
  const down = (y: number): number => whole(pixelOf(view.y, box.top, box.height, y))
  const left = across(patch.x)
  const right = across(patch.x + patch.columns * patch.cellWidth)
  const top = down(patch.y)
  const bottom = down(patch.y + patch.rows * patch.cellHeight)
  // A coarser patch may lie below: where this one has no values they are missing, not those.
  drawing.save()
  drawing.beginPath()
  drawing.rect(left, top, right - left, bottom - top)
  drawing.clip()
  drawHatching(drawing, box, inks)
  drawing.drawImage(bitmap, left, top, right - left, bottom - top)
  drawing.restore()
}

function drawAxes(drawing: Drawing, picture: Picture, box: Box, inks: Inks): void {
  const { view } = picture
  drawing.font = '11px system-ui, sans-serif'
  drawing.fillStyle = inks.text
  drawing.strokeStyle = inks.line
  drawing.lineWidth = 1
  drawing.strokeRect(box.left - 0.5, box.top - 0.5, box.width + 1, box.height + 1)
  drawing.textAlign = 'center'
  drawing.textBaseline = 'top'
  for (const value of ticks(view.x, box.width / 64)) {
    const at = pixelOf(view.x, box.left, box.width, value + 0.5)
    drawing.fillText(String(value), at, box.top + box.height + 6)
  }
  drawing.fillText(picture.xTitle, box.left + box.width / 2, box.top + box.height + 22)
  drawing.textAlign = 'right'
  drawing.textBaseline = 'middle'
  for (const value of ticks(view.y, box.height / 26)) {
    const at = pixelOf(view.y, box.top, box.height, value + 0.5)
    drawing.fillText(picture.yName(value), box.left - 7, at)
  }
  drawing.save()
  drawing.translate(11, box.top + box.height / 2)
  drawing.rotate(-Math.PI / 2)
  drawing.textAlign = 'center'
  drawing.fillText(picture.yTitle, 0, 0)
  drawing.restore()
}

/** Whole numbers, 1, 2 or 5 times a power of ten apart. */
function ticks(span: Span, most: number): number[] {
  const length = span.end - span.start
  const rough = Math.max(1, length / Math.max(1, most))
  const power = 10 ** Math.floor(Math.log10(rough))
  const step = [1, 2, 5, 10].map((one) => one * power).find((one) => one >= rough) ?? rough
  const first = Math.ceil(span.start / step) * step
  const all: number[] = []
  for (let value = first; value < span.end; value += step) all.push(value)
  return all
}

const stripLength = 26

function drawTop(drawing: Drawing, { view }: Picture, strip: Strip, box: Box, inks: Inks): void {
  const base = box.top - 5
  strip.values.forEach((value, index) => {
    if (value === null) return
    const left = pixelOf(view.x, box.left, box.width, strip.start + index * strip.cell)
    const right = pixelOf(view.x, box.left, box.width, strip.start + (index + 1) * strip.cell)
    drawing.fillStyle = index === strip.marked?.index ? inks.mark : inks.text
    const height = Math.max(value > 0 ? 1 : 0, value * stripLength)
    drawing.fillRect(
      left,
      base - height,
      Math.max(1, right - left - (right - left > 4 ? 1 : 0)),
      height,
    )
  })
  drawing.textAlign = 'left'
  drawing.textBaseline = 'bottom'
  const above = base - stripLength - 1
  const marked = strip.marked === null ? '' : `${strip.marked.title}   `
  drawing.fillStyle = inks.mark
  drawing.fillText(marked, box.left, above)
  drawing.fillStyle = inks.text
  drawing.fillText(strip.title, box.left + drawing.measureText(marked).width, above)
}

function drawRight(drawing: Drawing, { view }: Picture, strip: Strip, box: Box, inks: Inks): void {
  const base = box.left + box.width + 6
  const first = strip.values.findIndex((value) => value !== null)
  if (first < 0) return
  const start = pixelOf(view.y, box.top, box.height, strip.start + first * strip.cell)
  const from = Math.max(box.top, start)
  // The frame shows how long a bar can be.
  drawing.strokeStyle = inks.line
  drawing.strokeRect(base - 0.5, from - 0.5, stripLength + 1, box.top + box.height - from + 1)
  drawing.fillStyle = inks.text
  strip.values.forEach((value, index) => {
    if (value === null) return
    const top = pixelOf(view.y, box.top, box.height, strip.start + index * strip.cell)
    const bottom = pixelOf(view.y, box.top, box.height, strip.start + (index + 1) * strip.cell)
    drawing.fillRect(
      base,
      top,
      value * stripLength,
      Math.max(1, bottom - top - (bottom - top > 4 ? 1 : 0)),
    )
  })
  drawing.textAlign = 'left'
  drawing.textBaseline = 'bottom'
  drawing.fillText(strip.title, base, from - 4)
}

function drawFrame(drawing: Drawing, { view }: Picture, box: Box, area: Area, inks: Inks): void {
  const left = pixelOf(view.x, box.left, box.width, area.x.start)
  const top = pixelOf(view.y, box.top, box.height, area.y.start)
  const right = pixelOf(view.x, box.left, box.width, area.x.end)
  const bottom = pixelOf(view.y, box.top, box.height, area.y.end)
  const frame = [
    left - 1,
    top - 1,
    Math.max(2, right - left) + 2,
    Math.max(2, bottom - top) + 2,
  ] as const
  // A line in both inks is seen on every colour.
  drawing.lineWidth = 4
  drawing.strokeStyle = inks.ground
  drawing.strokeRect(...frame)
  drawing.lineWidth = 2
  drawing.strokeStyle = inks.accent
  drawing.strokeRect(...frame)
}
