import type { Browser } from 'playwright-core'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { limits } from '../../explorer/src/limits.ts'
import { eventually, launchBrowser, openPage, shoot } from '../helpers/browser.ts'
import { largeChat, largeNorm, largeTrace, storeLarge } from './large-store.ts'
import { cellsOf, middleOf, pointAt } from './look.ts'
import { openSite, type Site } from './site.ts'

let browser: Browser
let site: Site

beforeAll(async () => {
  browser = await launchBrowser()
  site = await openSite({ fill: storeLarge })
})
afterAll(async () => {
  await browser?.close()
  await site?.close()
})

const { tokens, layers } = largeChat

test('of 2,000 tokens by 48 layers a view asks for a bounded number of cells, and finer ones as one zooms', async () => {
  const { page, asked, faults } = await openPage(browser, site.url)
  const cells: number[] = []
  page.on('response', async (response) => {
    if (!response.url().includes('/views/norms')) return
    const { rows } = (await response.json()) as { rows: { mean: unknown[] }[] }
    cells.push(rows.reduce((sum, row) => sum + row.mean.length, 0))
  })
  const tiles = () => asked.filter((url) => url.includes('/views/norms')).length
  await page.goto(`${site.url}/t/${largeTrace}?tab=norms`)
  await page.locator('.legend[data-scale="log"]').waitFor()
  await eventually(() => cells.length).toBe(tiles())
  expect(tiles()).toBeLessThanOrEqual(Math.ceil(tokens / limits.tileCells / 2))
  expect(cells.reduce((sum, one) => sum + one, 0)).toBeLessThanOrEqual(layers * limits.viewCells)
  await shoot(page, 'large-norms')

  const plot = await cellsOf(page, false)
  const at = middleOf(plot, 70, 250, 20, layers)
  await eventually(() => pointAt(page, at)).toHaveLength(3)
  const [layer, range, norm] = await pointAt(page, at)
  const [from = 0, to = 0] = (range?.match(/\d+/g) ?? []).map(Number)
  expect([layer, to - from]).toEqual(['Layer 20', 3])
  const covered = [from, from + 1, from + 2, from + 3].map((token) => largeNorm(20, token))
  const [largest, mean] = (norm?.match(/[\d.]+(?=,|$)/g) ?? []).map(Number)
  expect(largest).toBeCloseTo(Math.max(...covered), 2)
  expect(mean).toBeCloseTo(covered.reduce((sum, one) => sum + one, 0) / 4, 2)

  const before = tiles()
  await page.goto(`${site.url}/t/${largeTrace}?tab=norms&layer=20&token=1234&view=1200:1300`)
  await page.locator('.plot:visible').focus()
  await eventually(() => page.locator('.tip').textContent()).toContain('Token 1234')
  const shown = (await page.locator('.tip').textContent()) ?? ''
  expect(Number(/L2 norm ([\d.]+)/.exec(shown)?.[1])).toBeCloseTo(largeNorm(20, 1234), 2)
  await eventually(() => cells.length).toBe(tiles())
  expect(tiles() - before).toBeLessThanOrEqual(8)
  expect(Math.max(...cells)).toBeLessThanOrEqual(layers * limits.tileCells)
  await page.keyboard.press('ArrowRight')
  await eventually(() => page.locator('#live').textContent()).toContain('Token 1235')
  expect(faults).toEqual([])
})

test('all 2,000 tokens are in one text, and an address leads to the one that it names', async () => {
  const { page, faults } = await openPage(browser, site.url)
  await page.goto(`${site.url}/t/${largeTrace}?token=1999`)
  await eventually(() => page.locator('[data-position]').count()).toBe(tokens)
  await eventually(() => page.locator('[aria-selected="true"]').getAttribute('data-position')).toBe(
    '1999',
  )
  await page.locator('[data-position="1999"]').focus()
  await page.keyboard.press('ArrowLeft')
  await eventually(() => page.locator('#live').textContent()).toContain('Position 1998')
  expect(faults).toEqual([])
})

test('attention over 2,000 keys comes in one bounded window at every zoom', async () => {
  const { page, faults } = await openPage(browser, site.url)
  const counts: number[] = []
  page.on('response', async (response) => {
    if (!response.url().includes('/views/pattern')) return
    counts.push(((await response.json()) as { cells: unknown[] }).cells.length)
  })
  await page.goto(`${site.url}/t/${largeTrace}?tab=attention&layer=0&head=0`)
  await page.locator('.sink').waitFor()
  await page.locator('.plot').focus()
  await page.keyboard.press('+')
  await page.keyboard.press('+')
  await eventually(() => page.locator('.zoom output').textContent()).toMatch(
    /^key \d+ to \d+ of 2000$/,
  )
  await eventually(() => page.url()).toContain('view=')
  await eventually(
    () => counts.filter((one) => one > limits.headCells ** 2).length,
  ).toBeGreaterThan(1)
  expect(Math.max(...counts)).toBeLessThanOrEqual(limits.patternCells ** 2)
  expect(faults).toEqual([])
})
