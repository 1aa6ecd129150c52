import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import type { Browser, Page } from 'playwright-core'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { eventually, launchBrowser, openPage, shoot } from '../helpers/browser.ts'
import { brokenTrace, chat, chatTrace, normOf, openSite, type Site, tokenTexts } from './site.ts'

const axeSource = readFileSync(
  createRequire(import.meta.url).resolve('axe-core/axe.min.js'),
  'utf8',
)

let browser: Browser
let site: Site

beforeAll(async () => {
  browser = await launchBrowser()
  site = await openSite()
})
afterAll(async () => {
  await browser?.close()
  await site?.close()
})

interface Violation {
  readonly id: string
  readonly nodes: readonly { readonly html: string; readonly failureSummary: string }[]
}

async function violations(page: Page): Promise<string[]> {
  // The page's policy wants trusted types; axe-core is put in from outside of it.
  const { violations: found } = await page.evaluate<{ violations: Violation[] }>(
    `${axeSource};axe.run(document, { runOnly: ['wcag2a', 'wcag2aa', 'wcag21aa', 'wcag22aa', 'best-practice'] })`,
  )
  return found.map(
    ({ id, nodes }) =>
      `${id}: ${nodes.map((node) => `${node.html} ${node.failureSummary}`).join('; ')}`,
  )
}

const views: readonly (readonly [string, string, string])[] = [
  ['search', '/', 'table.traces'],
  ['tokens', `/t/${chatTrace}?token=17`, 'table.alternatives'],
  ['norms', `/t/${chatTrace}?tab=norms&token=4&layer=2`, '.legend[data-scale="log"]'],
  ['attention', `/t/${chatTrace}?tab=attention&layer=3&head=1&token=20&key=0`, '.sink'],
  ['commands', `/t/${chatTrace}?tab=commands&hook=resid_pre&layer=3`, '.commands'],
  ['verdict', `/t/${brokenTrace}`, '.findings'],
  ['unknown', `/t/${'9'.repeat(32)}`, '.problem'],
]

test.each(['light', 'dark'] as const)(
  'axe-core finds nothing in the views of a %s page',
  async (theme) => {
    const { page, faults } = await openPage(browser, site.url, { theme, expectErrors: true })
    for (const [name, path, ready] of views) {
      await page.goto(`${site.url}${path}`)
      await page.locator(ready).waitFor()
      for (const table of await page.locator('details summary').all()) {
        await table.click()
        await page.locator('table.values').waitFor()
      }
      expect([name, await violations(page)]).toEqual([name, []])
      for (const table of await page.locator('details summary').all()) await table.click()
      if ((await page.locator('.plot:visible').count()) > 0) await page.locator('.plot').focus()
      await shoot(page, `${name}-${theme}`)
    }
    expect(faults).toEqual([])
  },
)

test('every control is reached with the Tab key, in the order of the page', async () => {
  const { page } = await openPage(browser, site.url)
  await page.goto(`${site.url}/t/${chatTrace}?tab=norms`)
  await page.locator('.legend[data-scale="log"]').waitFor()
  const reached: string[] = []
  for (let step = 0; step < 24; step += 1) {
    await page.keyboard.press('Tab')
    const name = await page.evaluate<string>(`(() => {
      const one = document.activeElement
      if (one === null || one === document.body) return ''
      const outline = getComputedStyle(one)
      if (outline.outlineStyle === 'none' || parseFloat(outline.outlineWidth) < 2) return 'no visible focus: ' + one.outerHTML
      return one.getAttribute('aria-label') ?? one.getAttribute('name') ?? one.textContent.trim()
    })()`)
    if (name === '' || name === reached[0]) break
    reached.push(name)
  }
  expect(reached).toEqual([
    'Skip to the content',
    'ring2 explorer',
    'Trace id or request id',
    'Open',
    'theme',
    'Traces',
    'Tokens',
    'Norms',
    'Attention',
    'Commands',
    'hook',
    'cell',
    'scale',
    'Zoom in',
    'Zoom out',
    'All',
    'L2 norms of resid_pre, layer by token',
    'Norms as a table',
  ])
})

test('arrow keys move over the tokens, and what they reach is read aloud', async () => {
  const { page } = await openPage(browser, site.url)
  await page.goto(`${site.url}/t/${chatTrace}?token=16`)
  await page.locator('[data-position="16"][tabindex="0"]').focus()
  await page.keyboard.press('ArrowRight')
  const live = page.locator('#live')
  await eventually(() => live.textContent()).toMatch(/^Position 17, “ whisper”: entropy [\d.]+ nat/)
  await page.keyboard.press('Home')
  await eventually(() => live.textContent()).toBe('Position 0, “<|im_start|>”: nothing measured')
  await page.keyboard.press('ArrowDown')
  await eventually(() => live.textContent()).toMatch(/^Position 3, /)
  await page.keyboard.press('End')
  await eventually(() => live.textContent()).toContain(
    `Position ${chat.tokens - 1}, “${tokenTexts.at(-1)}”`,
  )
  expect(await page.locator('[aria-selected="true"]').count()).toBe(1)
  await eventually(() => page.url()).toContain(`token=${chat.tokens - 1}`)
})

test('arrow keys move over the cells of the heat maps, zoom, and step through heads and layers', async () => {
  const { page } = await openPage(browser, site.url)
  const live = page.locator('#live')
  await page.goto(`${site.url}/t/${chatTrace}?tab=norms&token=4&layer=2`)
  await page.locator('.legend[data-scale="log"]').waitFor()
  await page.locator('.plot').focus()
  await eventually(() => page.locator('.tip').textContent()).toContain('“ one”')
  await page.keyboard.press('ArrowRight')
  await page.keyboard.press('ArrowDown')
  const value = Number(normOf(3, 5).toPrecision(5))
  await eventually(() => live.textContent()).toBe(
    `Layer 3, Token 5 “${tokenTexts[5]}”, L2 norm ${value}`,
  )
  await page.keyboard.press('+')
  await eventually(() => page.locator('.zoom output').textContent()).toMatch(
    /^token \d+ to \d+ of 30$/,
  )
  await eventually(() => page.url()).toContain('view=')
  await page.keyboard.press('End')
  await eventually(() => live.textContent()).toContain(`Token ${chat.tokens - 1}`)
  await page.keyboard.press('0')
  await eventually(() => page.locator('.zoom output').textContent()).toBe('')

  await page.goto(`${site.url}/t/${chatTrace}?tab=attention&layer=3&head=1&token=20&key=4`)
  await page.locator('.sink').waitFor()
  await page.locator('.plot').focus()
  // The names of positions come after the cells.
  await eventually(() => page.locator('.tip').textContent()).toContain('“ the”')
  await page.keyboard.press('ArrowLeft')
  await eventually(() => live.textContent()).toMatch(
    /^Query 20 “ the”, Key 3 “Write”, probability [\d.]+/,
  )
  await page.keyboard.press(']')
  await eventually(() => page.locator('select[name="head"]').inputValue()).toBe('2')
  await page.keyboard.press('.')
  await eventually(() => page.locator('select[name="layer"]').inputValue()).toBe('4')
})

test('the switch of the theme holds for the next page', async () => {
  const { page } = await openPage(browser, site.url, { theme: 'light' })
  await page.goto(`${site.url}/t/${chatTrace}?tab=norms`)
  await page.locator('.legend[data-scale="log"]').waitFor()
  const ground = () =>
    page.evaluate<string>('getComputedStyle(document.documentElement).backgroundColor')
  const light = await ground()
  await page.locator('select[name="theme"]').selectOption('dark')
  expect(await ground()).not.toBe(light)
  const dark = await ground()
  await page.goto(`${site.url}/`)
  expect(await ground()).toBe(dark)
  expect(await page.locator('select[name="theme"]').inputValue()).toBe('dark')
})
