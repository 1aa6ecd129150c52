/** What the tests read off a page: pixels of canvases, colours of the legend, the text under the pointer. */
import type { Page } from 'playwright-core'

export type Pixel = readonly [number, number, number]

/** Where the cells are within the canvas, in CSS pixels. */
export interface Cells {
  readonly left: number
  readonly top: number
  readonly width: number
  readonly height: number
}

async function canvasBox(page: Page) {
  const box = await page.locator('.plot canvas').boundingBox()
  if (box === null) throw new Error('there is no picture')
  return box
}

/** The drawing's own margins; with strips there is room for them at the top and at the right. */
export async function cellsOf(page: Page, strips: boolean): Promise<Cells> {
  const { width, height } = await canvasBox(page)
  const top = strips ? 48 : 8
  const right = strips ? 56 : 12
  return { left: 52, top, width: width - 52 - right, height: height - top - 40 }
}

/** The middle of a cell, as shares of what is shown. */
export function middleOf(cells: Cells, x: number, columns: number, y: number, rows: number) {
  return {
    x: cells.left + ((x + 0.5) / columns) * cells.width,
    y: cells.top + ((y + 0.5) / rows) * cells.height,
  }
}

export async function pointAt(page: Page, at: { x: number; y: number }): Promise<string[]> {
  await page.locator('.plot canvas').scrollIntoViewIfNeeded()
  const box = await canvasBox(page)
  await page.mouse.move(box.x + at.x, box.y + at.y)
  return await page.locator('.tip:not([hidden]) span').allTextContents()
}

export async function pixelAt(page: Page, at: { x: number; y: number }): Promise<Pixel> {
  return await page.evaluate<Pixel>(`(() => {
    const canvas = document.querySelector('.plot canvas')
    const ratio = canvas.width / canvas.clientWidth
    const { data } = canvas.getContext('2d').getImageData(${at.x} * ratio, ${at.y} * ratio, 1, 1)
    return [data[0], data[1], data[2]]
  })()`)
}

export interface Legend {
  readonly low: number
  readonly high: number
  readonly kind: string
  readonly band: readonly Pixel[]
}

export async function legendOf(page: Page): Promise<Legend> {
  return await page.evaluate<Legend>(`(() => {
    const figure = document.querySelector('.legend')
    const canvas = figure.querySelector('canvas')
    const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, 1)
    const band = Array.from({ length: canvas.width }, (_, x) => [...data.slice(x * 4, x * 4 + 3)])
    const { low, high, scale } = figure.dataset
    return { low: Number(low), high: Number(high), kind: scale, band }
  })()`)
}

/** The colour that the legend has for a value. */
export function legendColour({ low, high, kind, band }: Legend, value: number): Pixel {
  const bends: Record<string, (one: number) => number> = { log: Math.log, root: Math.sqrt }
  const bend = bends[kind] ?? ((one: number) => one)
  const share = (bend(value) - bend(low)) / (bend(high) - bend(low))
  const found = band[Math.round(share * (band.length - 1))]
  if (found === undefined) throw new Error(`${value} is not in the legend`)
  return found
}

/** The largest difference of a channel. */
export function apart(one: readonly number[], other: Pixel): number {
  return Math.max(...one.map((channel, index) => Math.abs(channel - (other[index] ?? 0))))
}
