import type { Browser, Page } from 'playwright-core'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { eventually, launchBrowser, openPage } from '../helpers/browser.ts'
import { apart, cellsOf, legendColour, legendOf, middleOf, pixelAt, pointAt } from './look.ts'
import {
  attention,
  brokenReasons,
  brokenTrace,
  chat,
  chatTrace,
  hostileTrace,
  logits,
  missingEvidence,
  normOf,
  openSite,
  type Site,
  tokenTexts,
} from './site.ts'

let browser: Browser
let site: Site
let page: Page
let faults: string[]

beforeAll(async () => {
  browser = await launchBrowser()
  site = await openSite()
  const opened = await openPage(browser, site.url)
  page = opened.page
  faults = opened.faults
})
afterAll(async () => {
  await browser?.close()
  await site?.close()
})

interface ListedToken {
  readonly position: number
  readonly entropy: number | null
  readonly surprisal: number | null
}

/** Softmax of the row that a token was drawn from, computed here. */
function distribution(position: number): { probabilities: number[]; entropy: number } {
  const row = logits(position - 1).map(Math.fround)
  const most = Math.max(...row)
  const sum = row.reduce((total, one) => total + Math.exp(one - most), 0)
  const probabilities = row.map((one) => Math.exp(one - most) / sum)
  return {
    probabilities,
    entropy: -probabilities.reduce((total, one) => total + one * Math.log(one), 0),
  }
}

test('a search finds by id, request and verdict, and leads to the trace and back', async () => {
  await page.goto(`${site.url}/`)
  const ids = page.locator('table.traces a.id')
  await eventually(() => ids.allTextContents()).toEqual([brokenTrace, hostileTrace, chatTrace])
  await page.getByRole('searchbox', { name: 'Trace id or request id' }).fill(chatTrace.slice(0, 6))
  await page.getByRole('button', { name: 'Search' }).click()
  await eventually(() => ids.allTextContents()).toEqual([chatTrace])
  await page.getByRole('searchbox', { name: 'Trace id or request id' }).fill('BROKEN')
  await page.getByRole('searchbox', { name: 'Trace id or request id' }).press('Enter')
  await eventually(() => page.url()).toContain('q=BROKEN')
  await page.getByRole('searchbox', { name: 'Trace id or request id' }).fill('')
  await page.getByLabel('Verdict').selectOption('collapsed')
  await eventually(() => ids.allTextContents()).toEqual([brokenTrace])
  await ids.first().click()
  await eventually(() => page.locator('h1').textContent()).toBe(brokenTrace)
  await page.goBack()
  await eventually(() => ids.allTextContents()).toEqual([brokenTrace])
  expect(await page.getByLabel('Verdict').inputValue()).toBe('collapsed')
})

test('verdict and completeness are shown with every reason', async () => {
  await page.goto(`${site.url}/t/${brokenTrace}`)
  const verdict = page.getByRole('region', { name: 'Verdict and completeness' })
  await eventually(() => verdict.locator('.badge').allTextContents()).toEqual([
    'collapsed',
    'incomplete',
  ])
  expect(
    await verdict.getByRole('list', { name: 'Findings' }).locator('li').allTextContents(),
  ).toEqual(['resid_pre.token_cosine_mean 0.9997 is above 0.9995 in decode, layer 3 (collapsed)'])
  expect(
    await verdict.getByRole('list', { name: 'Missing evidence' }).locator('li').allTextContents(),
  ).toEqual(missingEvidence)
  expect(
    await verdict.getByRole('list', { name: 'Reasons' }).locator('li').allTextContents(),
  ).toEqual(brokenReasons)
  expect(await verdict.textContent()).toContain('222 of 224 expected tensors came')
})

test('tokens have the texts and values of the API, and the colours of the legend', async () => {
  const answer = await fetch(`${site.url}/v1/traces/${chatTrace}/tokens?limit=4096`)
  const { tokens } = (await answer.json()) as { tokens: ListedToken[] }
  await page.goto(`${site.url}/t/${chatTrace}`)
  const options = page.locator('[data-position]')
  await eventually(() => options.count()).toBe(chat.tokens)
  const drawn = (await options.allTextContents()).map((text) => text.replaceAll('↵\n', '\n'))
  expect(drawn).toEqual(tokenTexts)
  for (const measure of ['surprisal', 'entropy'] as const) {
    await page.getByRole('radio', { name: measure }).click()
    await eventually(() => page.url()).toContain(`colour=${measure}`)
    const legend = await legendOf(page)
    const drawnColours = await page.evaluate<[boolean, string][]>(`
      [...document.querySelectorAll('[data-position]')].map((one) =>
        [one.classList.contains('missing'), getComputedStyle(one).backgroundColor])`)
    for (const [index, token] of tokens.entries()) {
      const value = token[measure]
      const [hatched, background] = drawnColours[index] ?? [null, '']
      expect([token.position, hatched]).toEqual([token.position, value === null])
      if (value === null) continue
      const colour = (background.match(/\d+/g) ?? []).map(Number) as unknown as [
        number,
        number,
        number,
      ]
      expect(apart(colour, legendColour(legend, value))).toBeLessThanOrEqual(4)
    }
  }
  expect(tokens.filter(({ entropy }) => entropy === null).length).toBe(chat.prompt)
})

test('a token shows its confidence, entropy and alternatives as the logits have them', async () => {
  const position = 17
  const { probabilities, entropy } = distribution(position)
  await page.goto(`${site.url}/t/${chatTrace}`)
  await page.locator(`[data-position="${position}"]`).hover()
  const detail = page.getByRole('complementary', { name: 'The token' })
  await detail.locator('table').waitFor()
  const text = (await detail.textContent()) ?? ''
  const [shown] = /Entropy\s*([\d.]+) nat/.exec(text)?.slice(1) ?? []
  expect(Number(shown)).toBeCloseTo(entropy, 2)
  const [confidence] = /Confidence\s*([\d.]+) %/.exec(text)?.slice(1) ?? []
  expect(Number(confidence)).toBeCloseTo(Math.max(...probabilities) * 100, 1)
  const ranked = probabilities
    .map((probability, id) => ({ probability, id }))
    .sort((one, other) => other.probability - one.probability)
    .slice(0, 10)
  const rows = await detail.locator('tbody tr').allTextContents()
  expect(rows.length).toBe(10)
  ranked.forEach(({ id, probability }, index) => {
    const row = (rows[index] ?? '').replaceAll('↵', '\n')
    expect(row).toContain(tokenTexts[id] ?? '')
    expect(row).toContain(`${(probability * 100).toFixed(1)} %`)
  })
  await page.locator('[data-position="3"]').hover()
  await eventually(() => detail.textContent()).toContain('are not stored')
})

test('a cell of the norms has the value of its place, and the colour of that value', async () => {
  await page.goto(`${site.url}/t/${chatTrace}?tab=norms`)
  await page.locator('.legend[data-scale="log"]').waitFor()
  const cells = await cellsOf(page, false)
  for (const [layer, token] of [
    [0, 0],
    [5, 0],
    [2, 4],
    [3, 17],
    [5, 29],
  ] as const) {
    const at = middleOf(cells, token, chat.tokens, layer, chat.layers)
    await eventually(() => pointAt(page, at)).toHaveLength(3)
    const [first, second, third] = await pointAt(page, at)
    const value = normOf(layer, token)
    expect([first, second]).toEqual([
      `Layer ${layer}`,
      `Token ${token} “${(tokenTexts[token] ?? '').replaceAll('\n', '↵')}”`,
    ])
    expect(third).toBe(`L2 norm ${Number(value.toPrecision(5))}`)
    expect(
      apart(await pixelAt(page, at), legendColour(await legendOf(page), value)),
    ).toBeLessThanOrEqual(6)
  }
  await page.getByText('Norms as a table').click()
  const row = page.locator('table.values tbody tr').nth(2)
  await eventually(() => row.locator('td').count()).toBe(chat.tokens)
  expect(await row.locator('td').nth(4).textContent()).toBe(
    String(Number(normOf(2, 4).toPrecision(3))),
  )
})

test('a cell of the norms that is not stored is hatched and says so', async () => {
  await page.goto(`${site.url}/t/${brokenTrace}?tab=norms`)
  await page.locator('.legend[data-scale="log"]').waitFor()
  const cells = await cellsOf(page, false)
  const lost = chat.prompt + 3
  const at = middleOf(cells, lost, chat.tokens, 3, chat.layers)
  await eventually(() => pointAt(page, at)).toContain('not stored')
  const beside = middleOf(cells, lost + 1, chat.tokens, 3, chat.layers)
  expect((await pointAt(page, beside)).at(-1)).toContain('L2 norm')
})

test('a cell of a pattern has the probability of its head, query and key', async () => {
  const layer = 3
  const head = 1
  await page.goto(`${site.url}/t/${chatTrace}?tab=attention&layer=${layer}&head=${head}`)
  await page.locator('.sink').waitFor()
  const cells = await cellsOf(page, true)
  for (const [query, key] of [
    [20, 0],
    [20, 19],
    [29, 29],
    [6, 2],
  ] as const) {
    const at = middleOf(cells, key, chat.tokens, query, chat.tokens)
    const [first, second, third] = await pointAt(page, at)
    const end = query < chat.prompt ? chat.prompt : query + 1
    const value = Math.fround(attention(layer, head, query, end)[key] ?? 0)
    expect(first).toMatch(new RegExp(`^Query ${query}\\b`))
    expect(second).toMatch(new RegExp(`^Key ${key}\\b`))
    expect(Number(third?.replace('probability ', ''))).toBeCloseTo(value, 3)
    expect(
      apart(await pixelAt(page, at), legendColour(await legendOf(page), value)),
    ).toBeLessThanOrEqual(6)
  }
  const after = await pointAt(page, middleOf(cells, 25, chat.tokens, 4, chat.tokens))
  expect(after.at(-1)).toBe('not stored, or a key after the query')
  const masses = Array.from(
    { length: chat.tokens },
    (_, query) =>
      attention(layer, head, query, query < chat.prompt ? chat.prompt : query + 1)[0] ?? 0,
  )
  const sink = masses.reduce((sum, one) => sum + one, 0) / chat.tokens
  expect(await page.locator('.sink').textContent()).toContain(`${(sink * 100).toFixed(1)} %`)
})

test('an address shows what its sender saw, and Back undoes a step', async () => {
  await page.goto(`${site.url}/t/${chatTrace}?tab=attention&layer=4&head=2&token=20&key=3`)
  await eventually(() => page.locator('select[name="head"]').inputValue()).toBe('2')
  expect(await page.locator('select[name="layer"]').inputValue()).toBe('4')
  await page.locator('.sink').waitFor()
  await page.locator('.plot').focus()
  await eventually(() => page.locator('.tip span').first().textContent()).toContain('Query 20')
  await page.locator('select[name="layer"]').selectOption('1')
  await eventually(() => page.url()).toContain('layer=1')
  await page.getByRole('link', { name: 'Tokens' }).click()
  await page.getByRole('listbox', { name: 'Tokens' }).waitFor()
  await page.goBack()
  await eventually(() => page.locator('select[name="layer"]').inputValue()).toBe('1')
  await page.goBack()
  await eventually(() => page.locator('select[name="layer"]').inputValue()).toBe('4')
  await page.goForward()
  await eventually(() => page.locator('select[name="layer"]').inputValue()).toBe('1')
})

test('nothing went wrong in the page, and it asked nobody but its own origin', () => {
  expect(faults).toEqual([])
})
