/** What the page opens on, and what it says of what is not there: wrong addresses, redacted and removed tensors. */
import type { Browser, Page } from 'playwright-core'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { eventually, launchBrowser, openPage, shoot } from '../helpers/browser.ts'
import { cellsOf } from './look.ts'
import { brokenTrace, chat, chatTrace, ended, openSite, rowsOf, type Site } from './site.ts'

const redactedTrace = '4ed00000000000000000000000000001'
const removedTrace = '4e000000000000000000000000000002'
const redacted = { traceId: redactedTrace, requestId: 'chat-redacted', key: 1 }
const removed = { traceId: removedTrace, requestId: 'chat-removed', key: 2 }

let browser: Browser
let site: Site
let other: Site
let page: Page
let faults: string[]

beforeAll(async () => {
  browser = await launchBrowser()
  site = await openSite()
  other = await openSite({
    fill(store) {
      const withoutPayload = { encoding: 'redacted', crc32c: 0, data: new Uint8Array(0) }
      const rows = rowsOf(redacted).map((one) =>
        one.hook === 'token_ids' ? { ...one, ...withoutPayload } : one,
      )
      store.flush(rows, [ended(redacted)])
      // As retention leaves a request: its entry, and none of its tensors.
      store.flush([], [ended(removed)])
    },
  })
  const opened = await openPage(browser, site.url)
  page = opened.page
  faults = opened.faults
})
afterAll(async () => {
  await browser?.close()
  await site?.close()
  await other?.close()
})

test('views open on what has values: the first generated token, and resid_pre', async () => {
  await page.goto(`${site.url}/t/${chatTrace}`)
  const selected = page.locator('[aria-selected="true"]')
  await eventually(() => selected.getAttribute('data-position')).toBe(String(chat.prompt))
  await page.getByRole('link', { name: 'Norms' }).click()
  await eventually(() => page.locator('select[name="hook"]').inputValue()).toBe('resid_pre')
  await page.getByRole('link', { name: 'Commands' }).click()
  await page.locator('.commands').waitFor()
  expect(await page.locator('select[name="hook"]').inputValue()).toBe('resid_pre')
  expect(await page.locator('.facts').textContent()).toContain('15 prompt + 15 generated')
  expect(await page.locator('.facts [title*="never fed back"]').count()).toBe(1)
})

test('wrong parts of an address are named, and the address is put right', async () => {
  await page.goto(`${site.url}/t/${chatTrace}?tab=nonsense&layer=99&hook=zzz`)
  const notice = page.locator('.notes[role="status"]')
  await eventually(() => notice.locator('p').allTextContents()).toEqual([
    'There is no view "nonsense".',
    'The stored tensors have no hook "zzz".',
    'The stored tensors have no layer "99".',
  ])
  await eventually(() => page.url()).toBe(`${site.url}/t/${chatTrace}`)
  await page.getByRole('link', { name: 'Norms' }).click()
  await page.locator('.legend[data-scale="log"]').waitFor()
  expect(await notice.count()).toBe(0)
  await page.goto(`${site.url}/t/${chatTrace}?request=gone&tab=attention&layer=2`)
  await eventually(() => notice.textContent()).toContain('no request "gone"')
  const { searchParams } = new URL(page.url())
  expect([searchParams.get('request'), searchParams.get('layer')]).toEqual(['chat-1', '2'])
})

const narrowViews = [
  '/',
  `/t/${chatTrace}?token=17`,
  `/t/${chatTrace}?tab=norms`,
  `/t/${chatTrace}?tab=attention&layer=3`,
  `/t/${chatTrace}?tab=commands`,
  `/t/${brokenTrace}`,
]

test('no view is wider than a window of 360 pixels', async () => {
  const { page: narrow } = await openPage(browser, site.url)
  await narrow.setViewportSize({ width: 360, height: 720 })
  for (const [index, path] of narrowViews.entries()) {
    await narrow.goto(`${site.url}${path}`)
    await narrow.locator(path === '/' ? 'table.traces' : '.tabs').waitFor()
    await narrow.waitForLoadState('networkidle')
    const wide = await narrow.evaluate<number>('document.documentElement.scrollWidth')
    expect([path, wide]).toEqual([path, 360])
    await shoot(narrow, `narrow-${index}`)
  }
})

test('cells of attention are square, and the picture fits into the window', async () => {
  const { page: sized } = await openPage(browser, site.url)
  for (const [width, height] of [
    [1360, 900],
    [1360, 500],
    [420, 900],
  ] as const) {
    await sized.setViewportSize({ width, height })
    await sized.goto(`${site.url}/t/${chatTrace}?tab=attention&layer=3`)
    await sized.locator('.sink').waitFor()
    const cells = await cellsOf(sized, true)
    expect(Math.abs(cells.width - cells.height)).toBeLessThan(1)
    const canvas = await sized.locator('.plot canvas').boundingBox()
    expect(canvas?.height).toBeLessThanOrEqual(height)
    expect(canvas?.width).toBeLessThanOrEqual(width)
  }
})

test('a whole trace id in the search field opens the trace, in any case of its letters', async () => {
  await page.goto(`${site.url}/`)
  const field = page.getByRole('searchbox', { name: 'Trace id or request id' })
  await field.fill(chatTrace.toUpperCase())
  await field.press('Enter')
  await eventually(() => page.locator('h1').textContent()).toBe(chatTrace)
})

test('a part of a model name finds, and a list that filters made empty says so', async () => {
  await page.goto(`${site.url}/`)
  const rows = page.locator('table.traces tbody tr')
  await eventually(() => rows.count()).toBe(3)
  const names = await page.evaluate<string[]>(
    `[...document.querySelectorAll('#models option')].map((one) => one.value)`,
  )
  const [plain = ''] = names.filter((name) => name.startsWith('HuggingFaceTB/'))
  const model = page.getByRole('combobox', { name: 'Model' })
  await model.fill('huggingface')
  await model.press('Enter')
  await eventually(() => rows.count()).toBe(2)
  expect(new URL(page.url()).searchParams.get('model')).toBe(plain)
  await page.goto(`${site.url}/?model=HuggingFace`)
  await eventually(() => page.locator('.nothing').textContent()).toContain('fits the filters')
  await page.getByRole('link', { name: plain }).click()
  await eventually(() => rows.count()).toBe(2)
  await page.goto(`${site.url}/?verdict=looping`)
  await page.getByRole('link', { name: 'Show all requests' }).click()
  await eventually(() => rows.count()).toBe(3)
})

test('a space before a word has no colour, and a line of a command does not end after a hyphen', async () => {
  await page.goto(`${site.url}/t/${chatTrace}`)
  const space = page.locator(`[data-position="${chat.prompt + 1}"] .space`)
  expect(await space.textContent()).toBe(' ')
  const grounds = await page.evaluate<string[]>(
    `['.tokens', '[data-position="${chat.prompt + 1}"] .space'].map((one) =>
      getComputedStyle(document.querySelector(one)).backgroundColor)`,
  )
  expect(grounds[0]).toBe(grounds[1])
  const { page: narrow } = await openPage(browser, site.url)
  await narrow.goto(`${site.url}/t/${chatTrace}?tab=commands`)
  await eventually(() => narrow.locator('.commands').textContent()).toContain('--store=')
  for (let width = 360; width < 1360; width += 50) {
    await narrow.setViewportSize({ width, height: 720 })
    const tops = await narrow.evaluate<number[]>(`(() => {
      const word = [...document.querySelectorAll('.word')].find((one) => one.textContent.startsWith('--store='))
      const range = document.createRange()
      return [0, 1, 2].map((at) => {
        range.setStart(word.firstChild, at)
        range.setEnd(word.firstChild, at + 1)
        return range.getBoundingClientRect().top
      })
    })()`)
    expect([width, new Set(tops).size]).toEqual([width, 1])
  }
})

test('a redacted hook has no commands, and its absence advises nothing about tokenizers', async () => {
  const { page: shown } = await openPage(browser, other.url)
  await shown.goto(`${other.url}/t/${redactedTrace}?tab=commands&hook=token_ids`)
  await eventually(() => shown.locator('.panel').textContent()).toContain('token_ids is redacted')
  expect(await shown.getByRole('button', { name: /^Copy/ }).count()).toBe(0)
  await shown.locator('select[name="hook"]').selectOption('resid_pre')
  await eventually(() => shown.getByRole('button', { name: /^Copy/ }).count()).toBe(4)
  await shown.getByRole('link', { name: 'Tokens' }).click()
  const notes = shown.getByRole('list', { name: 'What is missing' })
  await eventually(() => notes.textContent()).toContain('token_ids is redacted')
  expect(await notes.textContent()).not.toContain('tokenizer')
})

test('tensors that were removed are no longer stored, whatever was captured', async () => {
  const { page: shown } = await openPage(browser, other.url)
  await shown.goto(`${other.url}/t/${removedTrace}`)
  const verdict = shown.getByRole('region', { name: 'Verdict and completeness' })
  await eventually(() => verdict.textContent()).toContain('as captured: 224 of them are no longer')
  await eventually(() => shown.locator('ul.notes').textContent()).toContain('no longer stored')
  for (const tab of ['Norms', 'Attention', 'Commands']) {
    await shown.getByRole('link', { name: tab }).click()
    await eventually(() => shown.locator('.panel').textContent()).toContain('no longer stored')
    expect(await shown.locator('.panel').textContent()).not.toContain('Capture')
  }
})

test('nothing went wrong in the page', () => {
  expect(faults).toEqual([])
})
