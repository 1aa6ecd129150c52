/** What tests of deletion look for: the coded error of a call, and files that still hold a text. */

import { readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { Ring2Error } from '../../../exporter/errors.ts'

export function filesWith(folder: string, text: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter((entry) => {
    const path = join(folder, entry)
    return statSync(path).isFile() && readFileSync(path).includes(text)
  })
}

export async function errorOf(act: Promise<unknown>): Promise<Ring2Error> {
  const error = await act.then(
    () => null,
    (thrown: unknown) => thrown,
  )
  if (error instanceof Ring2Error) return error
  throw new Error(`no coded error: ${String(error)}`)
}
