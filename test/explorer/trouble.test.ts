import type { Browser } from 'playwright-core'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { eventually, launchBrowser, openPage } from '../helpers/browser.ts'
import { chatTrace, hostile, hostileTrace, openSite, type Site } from './site.ts'

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

test('an exporter with a token is asked with the one that the person gives, which no address has', async () => {
  const guarded = await openSite({ token: 'open sesame' })
  try {
    const { page, asked, faults } = await openPage(browser, guarded.url, { expectErrors: true })
    await page.goto(`${guarded.url}/t/${chatTrace}`)
    const dialog = page.getByRole('dialog', { name: 'This exporter asks for a token' })
    await dialog.getByLabel('Bearer token').fill('wrong')
    await dialog.getByRole('button', { name: 'Continue' }).click()
    await eventually(() => dialog.getByRole('alert').textContent()).toBe(
      'The exporter refused that token.',
    )
    await dialog.getByLabel('Bearer token').fill('open sesame')
    await page.keyboard.press('Enter')
    await page.getByRole('listbox', { name: 'Tokens' }).waitFor()
    expect(await dialog.count()).toBe(0)
    await page.reload()
    await page.getByRole('listbox', { name: 'Tokens' }).waitFor()
    expect(asked.filter((url) => /sesame|wrong/.test(decodeURIComponent(url)))).toEqual([])
    expect(page.url()).not.toContain('sesame')
    await page.getByRole('link', { name: 'Commands' }).click()
    const commands = (await page.locator('.commands').textContent()) ?? ''
    expect(commands).toContain('RING2_API_TOKEN')
    expect(commands).not.toContain('sesame')
    expect(faults).toEqual([])
    const refused = await openPage(browser, guarded.url, { expectErrors: true })
    await refused.page.goto(guarded.url)
    await refused.page.getByRole('button', { name: 'Cancel' }).click()
    await eventually(() => refused.page.locator('.problem').textContent()).toContain(
      'RING2_E_UNAUTHORIZED',
    )
  } finally {
    await guarded.close()
  }
})

test('an error is shown with its code, what was expected, what came, and what to do', async () => {
  const { page } = await openPage(browser, site.url, { expectErrors: true })
  for (const path of [`/v1/traces/${'9'.repeat(32)}`, '/v1/traces/not-an-id']) {
    const problem = (await (await fetch(`${site.url}${path}`)).json()) as Record<string, string>
    await page.goto(`${site.url}${path.replace('/v1/traces', '/t')}`)
    const shown = page.locator('.problem')
    await shown.waitFor()
    const text = (await shown.textContent()) ?? ''
    for (const field of ['title', 'code', 'expected', 'actual', 'action']) {
      expect([field, text]).toEqual([field, expect.stringContaining(problem[field] ?? '?')])
    }
  }
})

test('an answer that would be too large says what to ask for instead', async () => {
  const { page } = await openPage(browser, site.url, { expectErrors: true })
  const problem = {
    type: 'urn:ring2:error:RING2_E_TOO_LARGE',
    title: 'The answer would be too large.',
    status: 413,
    code: 'RING2_E_TOO_LARGE',
    expected: 'at most 16777216 elements of one head',
    actual: '9000 queries of 9000 keys',
    action: 'Ask for at most 1864 queries (queries=a:b).',
  }
  await page.route('**/views/pattern/**', (route) =>
    route.fulfill({ status: 413, contentType: 'application/problem+json', json: problem }),
  )
  await page.goto(`${site.url}/t/${chatTrace}?tab=attention`)
  await eventually(() => page.locator('.problem').textContent()).toContain(problem.action)
  await page.unroute('**/views/pattern/**')
  await page.getByRole('button', { name: 'Try again' }).click()
  await page.locator('.sink').waitFor()
  expect(await page.locator('.problem').count()).toBe(0)
})

test('when the exporter is away the page says so, and tries again when asked', async () => {
  const { page } = await openPage(browser, site.url, { expectErrors: true })
  await page.goto(`${site.url}/t/${chatTrace}`)
  await page.getByRole('listbox', { name: 'Tokens' }).waitFor()
  await page.context().setOffline(true)
  await page.getByRole('link', { name: 'Norms' }).click()
  await eventually(() => page.locator('.problem').textContent()).toContain('RING2_E_UNREACHABLE')
  await page.context().setOffline(false)
  await page.getByRole('button', { name: 'Try again' }).click()
  await page.locator('.plot:visible').waitFor()
  expect(await page.locator('.problem').count()).toBe(0)
})

test('ids, names and tokens with markup stay text in every view', async () => {
  const { page, faults } = await openPage(browser, site.url)
  await page.goto(`${site.url}/`)
  const row = page.locator('tr', { has: page.getByText(hostileTrace) })
  await eventually(() => row.locator('td').nth(1).textContent()).toBe(hostile)
  expect(await row.locator('td').nth(2).textContent()).toBe(`model/${hostile}`)
  await row.locator('a').click()
  await eventually(() => page.locator('[data-position="3"]').textContent()).toBe(hostile)
  await page.locator('[data-position="3"]').click()
  await eventually(() => page.locator('.token-name').textContent()).toBe(`“${hostile}”`)
  for (const tab of ['Norms', 'Attention', 'Commands']) {
    await page.getByRole('link', { name: tab }).click()
    await page.waitForLoadState('networkidle')
  }
  const query = encodeURIComponent(hostile)
  await page.goto(
    `${site.url}/t/${chatTrace}?request=${query}&tab=${query}&hook=${query}&view=${query}`,
  )
  await eventually(() => page.getByText('another one is shown').textContent()).toContain('onerror')
  await page.goto(`${site.url}/?q=${query}&since=${encodeURIComponent('"><b>')}`)
  await page.locator('.problem').waitFor()
  expect(await page.evaluate('window.broken')).toBeUndefined()
  expect(await page.locator('main img, main script, main b').count()).toBe(0)
  expect(faults.filter((fault) => !fault.startsWith('Failed to load resource'))).toEqual([])
})
