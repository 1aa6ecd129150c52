/** One headless Chromium for a test file, and pages that tell what went wrong in them. */
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import chromium from '@sparticuz/chromium'
import { type Browser, type Page, chromium as playwright } from 'playwright-core'
import { expect } from 'vitest'

export const screenshots = join(import.meta.dirname, '../../build/screenshots')

export interface Watched {
  readonly page: Page
  /** Errors of the console and of scripts, and requests to other origins. */
  readonly faults: string[]
  /** Addresses asked for, in their order. */
  readonly asked: string[]
}

export interface PageOptions {
  readonly theme?: 'light' | 'dark'
  readonly height?: number
  /** Answers that are errors, and that the test wants: browsers write them to the console. */
  readonly expectErrors?: boolean
}

export async function launchBrowser(): Promise<Browser> {
  mkdirSync(screenshots, { recursive: true })
  return await playwright.launch({
    executablePath: await chromium.executablePath(),
    args: chromium.args,
    headless: true,
  })
}

export async function openPage(
  browser: Browser,
  origin: string,
  { theme = 'light', height = 900, expectErrors = false }: PageOptions = {},
): Promise<Watched> {
  const context = await browser.newContext({
    viewport: { width: 1360, height },
    colorScheme: theme,
    reducedMotion: 'reduce',
    permissions: ['clipboard-read', 'clipboard-write'],
  })
  const page = await context.newPage()
  page.setDefaultTimeout(15_000)
  const faults: string[] = []
  const asked: string[] = []
  page.on('console', (message) => {
    const isAnswer = message.text().startsWith('Failed to load resource')
    if (message.type() === 'error' && !(expectErrors && isAnswer)) faults.push(message.text())
  })
  page.on('pageerror', (error) => faults.push(String(error)))
  page.on('request', (request) => {
    asked.push(request.url())
    if (!request.url().startsWith(`${origin}/`)) faults.push(`asked ${request.url()}`)
  })
  return { page, faults, asked }
}

export async function shoot(page: Page, name: string): Promise<void> {
  await page.screenshot({ path: join(screenshots, `${name}.png`), fullPage: true })
}

/** What a page comes to show, however busy the machine is. */
export function eventually<T>(read: () => T) {
  return expect.poll(read, { timeout: 20_000, interval: 50 })
}
