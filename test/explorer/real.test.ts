/** A stock model with trained weights, the exporter as users start it, and what a person then sees. */
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import type { Browser, Page } from 'playwright-core'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { eventually, launchBrowser, openPage, shoot } from '../helpers/browser.ts'
import {
  createWorkspace,
  type Exporter,
  get,
  killAll,
  python,
  repository,
  startExporter,
  startModel,
} from '../pipeline/processes.ts'
import { queryDuckDb } from '../pipeline/store-reader.ts'

const traceId = '0af7651916cd43dd8448eb211c80319c'
const prompt = 'Write one line about the sea.'
const workspace = createWorkspace()
let browser: Browser
let exporter: Exporter
let page: Page
let faults: string[]

beforeAll(async () => {
  const [started, model] = await Promise.all([
    startExporter(workspace),
    startModel(workspace, {
      segment: 'chat',
      hooks: 'resid_pre,pattern,final_logits,token_ids',
      vocabulary: true,
    }),
  ])
  exporter = started
  // The texts of token ids are sent beside everything else, and are named by the requests after them.
  const vocabularies = join(workspace.store, 'vocabularies')
  await vi.waitUntil(() => existsSync(vocabularies), { timeout: 120_000, interval: 100 })
  const traceparent = `00-${traceId}-b7ad6b7169203331-01`
  await model.generate([{ id: "it's-1", text: prompt, traceparent }], 12)
  await model.detach()
  browser = await launchBrowser()
  const opened = await openPage(browser, exporter.url)
  page = opened.page
  faults = opened.faults
  const complete = async () => {
    const answer = await get(`${exporter.url}/v1/traces/${traceId}`)
    if (answer.status !== 200) return false
    if (answer.json<Stored>().requests[0]?.completeness !== 'complete') return false
    return (await tokens()).vocabulary === 'known'
  }
  await vi.waitUntil(complete, { timeout: 120_000, interval: 200 })
}, 300_000)

afterAll(async () => {
  killAll()
  await browser?.close()
  workspace.remove()
})

interface Stored {
  readonly requests: readonly {
    readonly verdict: string
    readonly completeness: string
    readonly tokens: number
  }[]
}

interface Tokens {
  readonly vocabulary: string
  readonly tokens: readonly { readonly text: string; readonly entropy: number | null }[]
}

async function tokens(): Promise<Tokens> {
  const answer = await get(`${exporter.url}/v1/traces/${traceId}/tokens?limit=4096`)
  return answer.json<Tokens>()
}

const tensorPath = `/v1/traces/${traceId}/tensors/resid_pre/15?format=npy`

test('the deep link of a trace opens its verdict and its tokens in words', async () => {
  await page.goto(`${exporter.url}/t/${traceId}`)
  const stored = (await get(`${exporter.url}/v1/traces/${traceId}`)).json<Stored>().requests[0]
  await eventually(() => page.locator('.badge').allTextContents()).toEqual([
    stored?.verdict,
    'complete',
  ])
  const answer = await tokens()
  expect(answer).toMatchObject({ vocabulary: 'known' })
  await eventually(() => page.locator('[data-position]').count()).toBe(answer.tokens.length)
  const text = (await page.locator('[data-position]').allTextContents()).join('')
  expect(text.replaceAll('↵\n', '\n')).toBe(answer.tokens.map((token) => token.text).join(''))
  expect(text).toContain(prompt)
  const drawn = await page.evaluate<string[]>(
    `[...document.querySelectorAll('[data-position]')].map((one) => one.dataset.value)`,
  )
  expect(drawn).toEqual(answer.tokens.map(({ entropy }) => String(entropy ?? '')))
  expect(drawn.filter((value) => value !== '').length).toBeGreaterThan(8)
})

test('every view draws the real capture', async () => {
  for (const theme of ['light', 'dark'] as const) {
    const { page: other, faults: wrong } = await openPage(browser, exporter.url, { theme })
    await other.goto(`${exporter.url}/t/${traceId}?token=20`)
    await other.locator('table.alternatives').waitFor()
    await shoot(other, `real-tokens-${theme}`)
    await other.goto(`${exporter.url}/t/${traceId}?tab=norms`)
    await other.locator('.legend[data-scale="log"]').waitFor()
    await shoot(other, `real-norms-${theme}`)
    await other.goto(`${exporter.url}/t/${traceId}?tab=attention&layer=12&head=4`)
    await other.locator('.sink').waitFor()
    // The pictures of the heads come one after the other.
    await eventually(() =>
      other.evaluate<number>(`[...document.querySelectorAll('.heads canvas')].filter((canvas) =>
        canvas.getContext('2d').getImageData(0, 0, 1, 1).data[3] === 255).length`),
    ).toBe(9)
    await shoot(other, `real-attention-${theme}`)
    expect(wrong).toEqual([])
  }
})

/** What follows the header of an .npy file. */
function elementsOf(npy: Uint8Array): Buffer {
  const bytes = Buffer.from(npy)
  return bytes.subarray(10 + bytes.readUInt16LE(8))
}

async function copied(name: string): Promise<string> {
  await page.getByRole('button', { name: `Copy the ${name} command` }).click()
  return await page.evaluate<string>('navigator.clipboard.readText()')
}

function bash(command: string): void {
  const { status, stderr } = spawnSync('bash', ['-euc', command], {
    cwd: workspace.root,
    encoding: 'utf8',
    env: { ...process.env, RING2_SEGMENTS_DIRECTORY: workspace.segments },
  })
  expect({ status, stderr }).toMatchObject({ status: 0 })
}

test('each copied command fetches the tensor, byte for byte', async () => {
  const expected = (await get(`${exporter.url}${tensorPath}`)).bytes
  await page.goto(`${exporter.url}/t/${traceId}?tab=commands&hook=resid_pre&layer=15`)
  await eventually(() => page.locator('.commands').textContent()).toContain(workspace.store)

  bash(await copied('curl'))
  expect(readFileSync(join(workspace.root, 'resid_pre.npy')).equals(expected)).toBe(true)

  // As in a checkout: npx finds the command in node_modules/.bin.
  const bin = join(workspace.root, 'node_modules', '.bin')
  mkdirSync(bin, { recursive: true })
  symlinkSync(join(repository, 'bin/ring2-exporter.js'), join(bin, 'ring2-exporter'))
  bash(`${await copied('Command line')} -o cli.npy`)
  expect(readFileSync(join(workspace.root, 'cli.npy')).equals(expected)).toBe(true)

  const script = `${await copied('Python')}\nimport numpy\nnumpy.save("python.npy", values)`
  const ran = spawnSync(python, ['-c', script], { cwd: workspace.root, encoding: 'utf8' })
  expect(ran.stderr).toBe('')
  const written = elementsOf(readFileSync(join(workspace.root, 'python.npy')))
  expect(written.equals(elementsOf(expected))).toBe(true)

  const query = (await copied('DuckDB')).replace(/ data\n/, ' hex(data) AS data\n')
  const rows = await queryDuckDb(query)
  const joined = Buffer.concat(rows.map((row) => Buffer.from(String(row.data), 'hex')))
  expect(joined.equals(elementsOf(expected))).toBe(true)
})

test('nothing went wrong in the page, and it asked nobody but the exporter', () => {
  expect(faults).toEqual([])
})
