/**
 * Names of copies that are not complete. They begin with a dot, because those who read a whole folder
 * (PyArrow, Spark) take every file whose name does not begin with a dot or an underscore for data.
 *
 *   {folder}/.{name}.partial            the only writer of the name copies it from the spool
 *   {folder}/.{name}.{hex}.partial      one of several writers of the name
 *
 * Earlier versions wrote the same without the dot. Not here: which of them nobody writes any more
 * (retention/leftovers.ts).
 */

import { randomBytes } from 'node:crypto'
import { basename, dirname, join } from 'node:path'

const SUFFIX = '.partial'
const NAME = /^\.?(.+?)(\.[0-9a-f]{12})?\.partial$/

/** Where a copy to the path is written by its only writer; in the same folder. */
export function partialPath(to: string): string {
  return join(dirname(to), `.${basename(to)}${SUFFIX}`)
}

/** As `partialPath`, for one of several writers: they must not write into one another's file. */
export function ownPartialPath(to: string): string {
  return partialPath(`${to}.${randomBytes(6).toString('hex')}`)
}

export interface PartialName {
  /** What the file would have been called. */
  readonly name: string
  /** It may have several writers. */
  readonly shared: boolean
}

/** Null for a name of anything else. */
export function parsePartialName(text: string): PartialName | null {
  const [, name, mark] = NAME.exec(text) ?? []
  return name === undefined ? null : { name, shared: mark !== undefined }
}
